"""helpers.serve: a server starts, answers, and is gone in the end, however that comes about."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbclient import NotebookClient
from openai import AuthenticationError

from helpers import guard, load, runtime, serve
from tests.processes import gone, within

FAKE = Path(__file__).parent / "data" / "fake_vllm.py"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """A program that is called as vllm is."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\n{FAKE.read_text(encoding='utf-8')}", encoding="utf-8")
    program.chmod(0o755)
    yield str(program)
    serve.stop_all()


def break_the_stream(program):
    """Have the stand-in end its answer to a question with "broken" in it by half an event."""
    text = Path(program).read_text(encoding="utf-8")
    broken = '        if "broken" in said:\n            return self.wfile.write(b\'data: {"choices": [{\\n\\n\')\n'
    before = '        self.event({"choices": [], "usage": usage})\n'
    assert before in text
    Path(program).write_text(text.replace(before, broken + before), encoding="utf-8")


def facts(server):
    """What the stand-in said of itself: pid, worker, argv, env."""
    return json.loads(server.log.read_text(encoding="utf-8").splitlines()[0])


def test_a_cell_that_starts_a_server_may_run_again(vllm):
    first, other = serve.Server("m", vllm), serve.Server("m", vllm, {"slow": 0})
    again = serve.Server("m", vllm)
    assert not first.alive and serve.refused(first.url)
    assert other.alive and again.alive


def test_with_a_port_of_ones_own_the_cell_may_run_again_too(vllm):
    port = runtime.free_port()
    first = serve.Server("m", vllm, port=port)
    again = serve.Server("m", vllm, port=port)
    assert not first.alive and again.alive


def test_a_guard_whose_pipe_is_held_open_takes_the_command_along(tmp_path):
    process = guard.start([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", os.environ)
    held = os.dup(process.stdin.fileno())  # as a process forked from the notebook holds it
    try:
        assert within(10, lambda: len(guard.descendants(process.pid)) > 1)
        family = [pid for pid in guard.descendants(process.pid) if pid != process.pid]
        guard.stop(process)
    finally:
        os.close(held)
    assert family and all(gone(pid) for pid in family)


def test_a_server_answers_and_stops_with_all_that_it_started(vllm):
    server = serve.Server("some/model", vllm)
    said = facts(server)
    assert server.alive and not serve.refused(server.url) and not gone(said["worker"])
    assert load.ask(load.client(server), server.model, "hello", 10).text == "some/model heard hello"
    server.stop()
    assert gone(said["pid"]) and gone(said["worker"])
    assert serve.refused(server.url) and not server.alive
    server.stop()
    assert serve.stop_all() == []


def test_a_server_whose_log_is_gone_stops_all_the_same(vllm):
    servers = [serve.Server("one", vllm), serve.Server("two", vllm)]
    for server in servers:
        server.log.unlink()
    assert servers[0].tail() == ""
    assert len(serve.stop_all()) == 2
    assert all(serve.refused(server.url) for server in servers)


def test_what_goes_wrong_with_one_server_leaves_no_other_running(vllm, monkeypatch):
    def full(self, text):
        raise OSError(28, "No space left on device")

    servers = [serve.Server("one", vllm), serve.Server("two", vllm)]
    monkeypatch.setattr(serve.Server, "_without_key", full)
    with pytest.raises(OSError, match="No space"):
        serve.stop_all()
    assert all(serve.refused(server.url) for server in servers)


def test_what_will_not_end_is_made_to():
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    stubborn.stdout.readline()
    guard.end([psutil.Process(stubborn.pid)], grace=0.3)
    assert gone(stubborn.pid)


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_ends_by_itself_hands_on_its_exit_code_and_nothing_else_is_said(tmp_path, code):
    log = tmp_path / "log.txt"
    process = guard.start([sys.executable, "-c", f"print('done'); raise SystemExit({code})"], log, os.environ)
    assert process.wait(timeout=30) == code
    guard.stop(process)
    assert log.read_text(encoding="utf-8") == "done\n"


@pytest.mark.interruption
@pytest.mark.parametrize("how", [lambda process: process.terminate(), lambda process: process.stdin.close()])
def test_a_command_that_is_cut_off_never_counts_as_done(tmp_path, how):
    process = guard.start(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], tmp_path / "log", os.environ
    )
    while not (tmp_path / "log").read_bytes():
        time.sleep(0.05)
    how(process)
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    guard.stop(process)


def test_with_stops_when_the_block_fails(vllm):
    with pytest.raises(KeyError), serve.Server("m", vllm) as server:
        raise KeyError
    assert serve.refused(server.url) and gone(facts(server)["worker"])


def start_elsewhere(vllm, tmp_path, then):
    """A Python that starts a server and then does something; returns what the stand-in said."""
    code = f"from helpers import serve; s = serve.Server('m', {vllm!r}, log='log.txt'); print('up', flush=True); {then}"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize("then", ["1 / 0", "import os; os._exit(3)"])
def test_the_interpreters_end_is_the_servers(vllm, tmp_path, then):
    python = start_elsewhere(vllm, tmp_path, then)
    python.wait(timeout=60)
    said = json.loads((tmp_path / "log.txt").read_text().splitlines()[0])
    assert within(15, lambda: gone(said["pid"]) and gone(said["worker"]))


def test_a_killed_kernel_takes_its_server_along(vllm, tmp_path):
    python = start_elsewhere(vllm, tmp_path, "import time; time.sleep(600)")
    while "up" not in python.stdout.readline():
        pass
    said = json.loads((tmp_path / "log.txt").read_text().splitlines()[0])
    assert not gone(said["pid"])
    python.send_signal(signal.SIGKILL)
    python.wait()
    assert within(15, lambda: gone(said["pid"]) and gone(said["worker"]))


@pytest.mark.notebook
def test_in_a_notebook_a_failing_cell_stops_it_and_a_good_one_does_not(vllm, tmp_path):
    cells = [
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom helpers import serve\nserver = serve.Server('m', {vllm!r})",
        "print(serve.refused(server.url))",
        "1 / 0",
        "print(serve.refused(server.url), server.alive)",
        f"server = serve.Server('m', {vllm!r}, log='last.txt')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = NotebookClient(book, timeout=60, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    def printed(cell):
        return "".join(output.get("text", "") for output in cell.outputs)

    assert printed(book.cells[1]) == "False\n"
    assert "the server is stopped (http://127.0.0.1:" in printed(book.cells[2])
    assert printed(book.cells[3]) == "True False\n"
    said = json.loads((tmp_path / "last.txt").read_text().splitlines()[0])
    assert within(15, lambda: gone(said["pid"]) and gone(said["worker"])), "the kernel has ended"


def test_a_server_that_dies_shows_its_log_and_leaves_nothing(vllm):
    with pytest.raises(
        serve.ServerFailed, match=r"ended before it answered(.|\n)*not enough memory for the KV cache"
    ) as caught:
        serve.Server("m", vllm, {"die": True}, log="died.txt")
    assert caught.value._render_traceback_() == [f"ServerFailed: {caught.value}"]
    said = json.loads(Path("died.txt").read_text().splitlines()[0])
    assert within(5, lambda: gone(said["worker"])), "a worker whose parent has died is found all the same"


def test_a_server_that_never_answers_is_stopped(vllm):
    with pytest.raises(serve.ServerFailed, match="did not answer in 1 s"):
        serve.Server("m", vllm, {"deaf": True}, timeout=1, log="deaf.txt")
    said = json.loads(Path("deaf.txt").read_text().splitlines()[0])
    assert gone(said["pid"]) and gone(said["worker"])


def test_an_interrupted_start_is_stopped(vllm, monkeypatch):
    def interrupt(_):
        if Path("i.txt").read_text().strip():
            raise KeyboardInterrupt
        return False

    answers = iter([lambda _: False])
    monkeypatch.setattr(serve, "answers", lambda url: next(answers, interrupt)(url))
    with pytest.raises(KeyboardInterrupt):
        serve.Server("m", vllm, {"deaf": True}, log="i.txt")
    said = json.loads(Path("i.txt").read_text().splitlines()[0])
    assert gone(said["pid"]) and gone(said["worker"])


def test_a_taken_port_is_named(vllm):
    with serve.Server("m", vllm) as server, pytest.raises(serve.ServerFailed, match=f"port {server.port} is taken"):
        serve.Server("other", vllm, port=server.port)


def test_the_key_is_asked_for_and_stands_in_no_command_line(vllm):
    with serve.Server("m", vllm, api_key="s3cret") as server:
        said = facts(server)
        assert said["env"]["VLLM_API_KEY"] == "s3cret" and "s3cret" not in " ".join(said["argv"])
        assert "s3cret" not in repr(server) and "s3cret" not in " ".join(psutil.Process(said["pid"]).cmdline())
        assert load.ask(load.client(server), "m", "hello", 10).text == "m heard hello"
        stranger = load.client(server).with_options(api_key="wrong")
        with pytest.raises(AuthenticationError):
            stranger.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize(("language", "says"), [("en", "transformers asks nobody for the key"), ("zh", "不检查密钥")])
def test_an_engine_that_asks_nobody_for_the_key_is_told(vllm, monkeypatch, capsys, language, says):
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    line = serve.command
    monkeypatch.setattr(serve, "command", lambda engine, *given: line(vllm, *given))  # the stand-in, in its place
    for engine, key, told in (("transformers", "s3cret", True), ("transformers", None, False), (vllm, "s3cret", False)):
        with serve.Server("m", engine, api_key=key):
            said = capsys.readouterr().out
        assert (says in said) is told and ("127.0.0.1 alone" in said or "只监听 127.0.0.1" in said) is told
        assert "s3cret" not in said and len(said.splitlines()) == 1 + told


def test_it_listens_on_this_machine_alone(vllm):
    with serve.Server("m", vllm) as server:
        listening = [c.laddr.ip for c in psutil.Process(facts(server)["pid"]).net_connections() if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"]


def test_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("VLLM_USE_FLASHINFER_SAMPLER", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert serve.environment("vllm", "owner/model", None)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "HF_HUB_OFFLINE" not in serve.environment("vllm", "owner/model", None)
    assert serve.environment("vllm", str(tmp_path), None)["HF_HUB_OFFLINE"] == "1"
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    assert serve.environment("vllm", "owner/model", None)["VLLM_USE_FLASHINFER_SAMPLER"] == "1", "the user's choice"


def test_the_command(vllm):
    options = {"max-model-len": 2048, "enforce-eager": True, "enable-prefix-caching": False}
    assert serve.command(vllm, "m", 1234, options) == [
        *[vllm, "serve", "m", "--host", "127.0.0.1", "--port", "1234"],
        *["--max-model-len", "2048", "--enforce-eager", "--no-enable-prefix-caching"],
    ]


@pytest.mark.parametrize("computes", [torch.float32, torch.float16])
def test_transformers_serves_in_the_numbers_that_the_hardware_computes_in(monkeypatch, computes):
    monkeypatch.setattr(runtime, "dtype", lambda: computes)
    program = [
        *[sys.executable, "-m", "transformers.cli.transformers"],
        *["serve", "m", "--host", "127.0.0.1", "--port", "1"],
    ]
    assert serve.command("transformers", "m", 1, {}) == [*program, "--dtype", str(computes).removeprefix("torch.")]
    assert serve.command("transformers", "m", 1, {"dtype": "auto"}) == [*program, "--dtype", "auto"]


def test_vllm_is_looked_for_and_its_absence_explained(vllm, tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "root", lambda: tmp_path / "course")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(serve.ServerFailed, match=r"vLLM is not installed.*uv venv.*ENGINE = 'transformers'"):
        serve.find_vllm()
    with pytest.raises(serve.ServerFailed, match="'sglang' is no program"):
        serve.find_vllm("sglang")
    own = tmp_path / "course" / ".vllm" / "bin" / "vllm"
    own.parent.mkdir(parents=True)
    shutil.copy(vllm, own)
    assert serve.find_vllm() == str(own)


# --- load ---


def test_all_requests_are_answered_and_times_are_right(vllm):
    questions = [f"question {number}" for number in range(8)]
    with serve.Server("m", vllm, {"slow": 0.2}) as server:  # next to that, what a busy machine adds is little
        table = load.measure(server, questions, [1, 8], max_tokens=9)
    assert list(table.index) == [1, 8]
    assert table["answered"].tolist() == [8, 8] and table["failed"].tolist() == [0, 0]
    assert table["latency p50"][1] >= 0.6 > table["first token p50"][1] >= 0.2
    assert table["tokens/s"][8] > 2 * table["tokens/s"][1]
    little = table["requests/s"] * table["latency mean"]
    assert 0.8 < little[1] <= 1.0 + 1e-6 and 4 < little[8] <= 8.0 + 1e-6


def test_a_failed_request_is_counted_and_shown(vllm, capsys):
    with serve.Server("m", vllm, {"refuse": "bad"}) as server:
        table = load.measure(server, ["good", "bad one", "good too"], [2], max_tokens=9)
    assert table["answered"].tolist() == [2] and table["failed"].tolist() == [1]
    assert "1 of 3 requests failed, the first with BadRequestError" in capsys.readouterr().out


def test_an_answer_that_breaks_off_is_counted_and_ends_nothing(vllm, capsys):
    break_the_stream(vllm)
    with serve.Server("m", vllm) as server:
        table = load.measure(server, ["good", "broken", "good too"], [2], max_tokens=9)
    assert table["answered"].tolist() == [2] and table["failed"].tolist() == [1]
    assert "1 of 3 requests failed, the first with JSONDecodeError" in capsys.readouterr().out


def test_figures():
    answers = [load.Answer("a", 10, 0.1, 1.0), load.Answer("b", 30, 0.3, 3.0), load.Answer(error="timeout")]
    got = load.figures(answers, wall=4.0)
    assert got["tokens/s"] == 10 and got["requests/s"] == 0.5
    assert got["latency mean"] == got["latency p50"] == 2.0 and got["first token p50"] == pytest.approx(0.2)
    assert (got["answered"], got["failed"]) == (2, 1)
