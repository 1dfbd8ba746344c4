"""Secrets stay where they are, nobody else's program runs, downloads can be repeated, uploads are private.

The names of the secrets are the lessons' own; their values are drawn here and stand in no file of the course.
"""

from __future__ import annotations

import ast
import base64
import html
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, quote_plus

import httpx
import nbformat
import pytest
import yaml
from filelock import FileLock
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

from helpers import checkup, data, environments, export, hub, launch, runtime, serve, tracking
from tests import hub_server
from tests.platform_modules import write
from tools.lessons import ROOT, load_course

pytestmark = [pytest.mark.secrets, pytest.mark.notebook]  # three real kernels: longer than the inner loop should be
LESSONS = {lesson.number: lesson for lesson in load_course().lessons}
PLATFORMS = ("colab", "kaggle", "local")
SECRETS = {  # as long as real ones; the last is a student's own invention, with all that has to be escaped somewhere
    "HF_TOKEN": "hf_" + "QqWwEeRrTtYyUuIiOoPpAaSsDdFfGgHhJj",
    "WANDB_API_KEY": "0f1e2d3c4b5a6978" * 2 + "8796a5b4",
    "VLLM_API_KEY": "k3y/with+every==sign'\"&%<~in_it",
}


def cell(lesson: str, part: str) -> str:
    """The lesson's one code cell that holds `part`, as it stands."""
    (found,) = [one.node.source for one in LESSONS[lesson].cells if one.is_code and part in one.node.source]
    return found


# --- The search -------------------------------------------------------------------------------------------------------


URL_SAFE = str.maketrans("+/", "-_")
ESCAPES = {
    "plain": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "repr": lambda text: repr(text)[1:-1],
    "HTML": html.escape,
    "shell": lambda text: shlex.quote(text).strip("'"),
    "URL": lambda text: quote(text, safe=""),
    "form": quote_plus,
}


def forms(secret: str) -> dict[str, bytes]:
    """How a value can stand in a file: escaped in up to two ways (a repr in JSON), or in base64, whatever stands before
    it there.
    """
    found = {f"{two}({one})": ESCAPES[two](ESCAPES[one](secret)) for one in ESCAPES for two in ESCAPES}
    for shift, one in product(range(3), ("plain", "JSON")):
        raw = bytes(shift) + ESCAPES[one](secret).encode()
        text = base64.b64encode(raw).decode()
        # Three bytes become four characters; those at the ends depend on the neighbours.
        within = text[-(-8 * shift // 6) : 8 * len(raw) // 6]
        found |= {f"base64+{shift}({one})": within, f"urlsafe+{shift}({one})": within.translate(URL_SAFE)}
    return {name: text.encode() for name, text in found.items()}


def leaks(secret: str, *places: Path) -> list[str]:
    """Every file in or at `places` that holds the value, and in which form."""
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    assert files, places
    found = []
    for file in files:
        content = file.read_bytes() + str(file).encode()
        if here := [form for form, text in forms(secret).items() if text in content]:
            found.append(f"{file}: {here[0]}")
    return found


HIDDEN = {
    "plain text": lambda secret: f"token={secret}\n".encode(),
    "a JSON string": lambda secret: json.dumps({"key": secret}).encode(),
    "a Python repr": lambda secret: repr([secret]).encode(),
    "a command line in a notebook": lambda secret: json.dumps([f"Command {['curl', 'X: ' + secret]} failed"]).encode(),
    "a command line": lambda secret: shlex.join(["curl", "-H", f"Authorization: {secret}"]).encode(),
    "a page": lambda secret: f"<td>{html.escape(secret)}</td>".encode(),
    "a query": lambda secret: f"https://hub/x?token={quote(secret, safe='')}&a=1".encode(),
    "a form": lambda secret: f"a=1&token={quote_plus(secret)}".encode(),
    "base64": lambda secret: base64.b64encode(secret.encode()),
    "URL-safe base64": lambda secret: base64.urlsafe_b64encode(secret.encode()),
    "basic authentication": lambda secret: base64.b64encode(f"me:{secret}".encode()),
    "a JSON body in base64": lambda secret: base64.b64encode(json.dumps({"t": "a" + secret}).encode()),
    "a data base": lambda secret: b"SQLite\0\xff\xfe" + secret.encode() + b"\0\x81",
}


@pytest.mark.parametrize("way", HIDDEN)
@pytest.mark.parametrize("name", ["HF_TOKEN", "VLLM_API_KEY"])
def test_the_search_finds_what_is_hidden(tmp_path, name, way):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(HIDDEN[way](SECRETS[name]))
    assert leaks(SECRETS[name], tmp_path)
    assert not leaks("Another" + SECRETS[name][7:] + "x", tmp_path)


# --- A hub of one's own -----------------------------------------------------------------------------------------------

A, B, PR = "a" * 40, "b" * 40, "c" * 40  # commits


def model(**files: bytes | dict) -> dict[str, bytes]:
    return {
        name: content if isinstance(content, bytes) else json.dumps(content).encode() for name, content in files.items()
    }


QWEN = {"model_type": "qwen2"}
CODE = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
ADAPTER = {"base_model_name_or_path": "me/safe", "peft_type": "LORA"}
PICKLED = model(**{"config.json": QWEN, "pytorch_model.bin": b"P"})
SAFE = {"config.json": QWEN, "model.safetensors": b"S", "pytorch_model.bin": b"P", "onnx/model.onnx": b"O"}
JUDGE = hub.READ_AS_DATA[0]
REPOSITORIES: dict[str, dict[str, dict[str, bytes]]] = {
    "models/me/safe": {A: model(**SAFE | {"config.json": QWEN | {"v": 1}}), B: model(**SAFE)},
    "models/me/sharded": {B: model(**{"config.json": QWEN, "model.safetensors.index.json": {}, "a.bin": b"P"})},
    "models/me/pickled": {B: PICKLED, PR: model(**{"config.json": QWEN, "model.safetensors": b"S"})},
    "models/me/pickled-shards": {
        B: model(**{"config.json": QWEN, "pytorch_model.bin.index.json": {}, "pytorch_model-00001-of-00002.bin": b"P"})
    },
    "models/me/adapter": {B: model(**{"adapter_config.json": ADAPTER, "adapter_model.safetensors": b"S"})},
    "models/me/pickled-adapter": {B: model(**{"adapter_config.json": ADAPTER, "adapter_model.bin": b"P"})},
    "models/me/code": {B: model(**{"config.json": CODE, "model.safetensors": b"S", "code.py": b"raise SystemExit"})},
    "models/me/on-code": {
        B: model(**{"adapter_config.json": {"base_model_name_or_path": "me/code"}, "adapter_model.safetensors": b"S"})
    },
    "models/me/known-code": {B: model(**{"config.json": CODE | QWEN, "model.safetensors": b"S"})},
    f"models/{JUDGE}": {B: PICKLED},
    "datasets/me/rows": {
        commit: {"train.jsonl": b'{"instruction": "Say %d", "input": "", "output": "%d"}\n' % (number, number)}
        for number, commit in enumerate((A, B), start=1)
    },
    "datasets/me/texts": {
        commit: {"book.jsonl": b'{"text": "Text %d, long enough."}\n' % number}
        for number, commit in enumerate((A, B), start=1)
    },
}
REVISIONS = {"main": B, "v1": A, "refs/pr/1": PR}


def open_hub() -> ThreadingHTTPServer:
    return hub_server.open_hub(REPOSITORIES, REVISIONS)


# --- An executed notebook ---------------------------------------------------------------------------------------------

# Says what it was started with, as a server does, and asks for the key; `dies` says more than it should.
VLLM = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
print(sys.argv, flush=True)
if "dies" in sys.argv[2]:
    sys.exit(f"cannot start with {dict(os.environ)}")
class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        message = {"role": "assistant", "content": "Drink something warm."}
        said = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(said if good else {"error": {"message": "Unauthorized"}}).encode())
at = sys.argv.index("--port") + 1
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[at])), Api).serve_forever()
"""
BEFORE = """
from pathlib import Path
import huggingface_hub
from helpers import checkup, export, runtime, tracking
nothing = lambda *_, **__: checkup.Finding("measured", "ok", "")  # takes seconds and knows no secret
checkup.writing = checkup.speed = checkup.gpu = checkup.packages = nothing

LANGUAGE, MAX_STEPS, MAX_NEW_TOKENS, OUTPUT_DIR = "en", 1, 8, "out"
TRACKING, UPLOAD = "wandb", True
ENGINE, SERVER_OPTIONS = VLLM, {"max-model-len": 2048}
TITLE, LICENSE, DATASETS, DISCLAIMER = "Mine", "apache-2.0", ["me/rows"], "No advice."
UPLOAD_TO, PRIVATE, base_model = "me/model", True, "me/safe"
output = Path(OUTPUT_DIR)
gguf = output / "gguf" / "model.Q8_0.gguf"
gguf.parent.mkdir(parents=True)
gguf.write_text("GGUF")
held_out = {"question": ["I have a cold."]}
asked, messages = {"model": "m"}, [{"role": "user", "content": "I have a cold."}]
"""
CELLS: list[tuple[str, str, bool]] = [  # what, the source, whether it is to fail
    ("parameters", BEFORE, False),
    ("lesson 00: the machine", cell("00", "checkup.examine("), False),
    ("lesson 03: tracking", cell("03", "tracking.start("), False),
    ("a W&B run, refused", "import wandb\nwandb.init(settings=wandb.Settings(init_timeout=20))", True),
    ("W&B offline", "tracking.start(TRACKING, OUTPUT_DIR, 'offline')\nrun = wandb.init(mode='offline')\nrun.log({'loss': 1.0})\nrun.finish()", False),
    ("lesson 10: the server", "from helpers import serve\n" + cell("10", "runtime.secret("), False),
    ("lesson 10: from Python", cell("10", "client = OpenAI("), False),
    ("lesson 10: curl", cell("10", "shlex.join(curl)"), False),
    ("lesson 06: upload", cell("06", "export.upload("), False),
    ("summary", "report.summary(OUTPUT_DIR, engine=server.engine, model=server.model, repository=UPLOAD_TO, **tracked)", False),
    ("lesson 06: upload, refused", "UPLOAD_TO = 'me/refused'\n" + cell("06", "export.upload("), True),
    ("a stopped server", "server.stop()", False),
    ("lesson 10: from Python, no server", "client.with_options(max_retries=0).chat.completions.create(messages=messages, **asked)", True),
    ("lesson 10: curl, no server", cell("10", "shlex.join(curl)"), True),
    ("a server that dies", "serve.Server('dies', ENGINE, api_key=api_key)", True),
    ("lesson 06: upload, no hub", "huggingface_hub.constants.ENDPOINT = 'http://127.0.0.1:9'\n" + cell("06", "export.upload("), True),
    ("a secret at a cell's end", "runtime.secret('HF_TOKEN')", False),
    ("a long traceback", "%xmode Verbose\ndef ask(token):\n    return token + api_key + 1\nask(runtime.secret('WANDB_API_KEY'))", True),
    ("an unfit secret", "import os\nexport.upload(output, 'me/model', runtime.secret('UNFIT', required=True))", True),
]  # fmt: skip


HERE_TOO = ("parameters", "lesson 00: the machine", "lesson 03: tracking", "lesson 10: the server", "lesson 10: curl",
            "lesson 06: upload", "summary")  # fmt: skip
# What fails does so alike wherever a secret came from.
RUNS = {platform: [one for one in CELLS if platform == "colab" or one[0] in HERE_TOO] for platform in PLATFORMS}


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> Any:
    """What `make` returns, given a folder, in JSON: one of several workers makes it, the others wait for it."""
    folder = factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    result = folder / f"{name}.json"
    with FileLock(f"{result}.lock"):
        if not result.exists():
            # Where another worker has failed: its error is to be seen here, too, and not that its folder is there.
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / name).mkdir()
            result.write_text(json.dumps(make(folder / name)), encoding="utf-8")
    return json.loads(result.read_text(encoding="utf-8"))


def execute(platform: str, folder: Path) -> dict[str, Any]:
    """Run the cells as on `platform`: each cell's outputs, the folder with all that was written, what services saw."""
    modules, written = folder / "modules", folder / "written"
    write(modules)
    for name in ("home", "work", "ipython", "jupyter"):
        (written / name).mkdir(parents=True)
    vllm = folder / "vllm"
    vllm.write_text(f"#!{sys.executable}\n{VLLM}", encoding="utf-8")
    vllm.chmod(0o755)
    secrets = SECRETS | {"UNFIT": f"{SECRETS['HF_TOKEN']}\n{SECRETS['WANDB_API_KEY']}"}
    (folder / "vault.json").write_text(json.dumps({} if platform == "local" else secrets), encoding="utf-8")
    services, tracker = open_hub(), open_hub()
    tracker.refuses = 401
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
    env = {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(written / "home"),
        "IPYTHONDIR": str(written / "ipython"),
        "JUPYTER_CONFIG_DIR": str(written / "jupyter"),
        "PYTHONPATH": os.pathsep.join([str(modules), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "VAULT": str(folder / "vault.json"),
        "HF_ENDPOINT": services.url,
        "WANDB_BASE_URL": tracker.url,
        "NO_PROXY": "127.0.0.1",
    }
    env |= {"colab": {"COLAB_RELEASE_TAG": "r"}, "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}}.get(platform, secrets)
    sources = [source.replace("VLLM,", f"{str(vllm)!r},", 1) for _, source, _ in RUNS[platform]]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", allow_errors=True)
    with (written / "kernel.log").open("wb") as log:
        client.execute(cwd=str(written / "work"), env=env, stdout=log, stderr=log)
    nbformat.write(notebook, written / "notebook.ipynb")
    services.shutdown()
    tracker.shutdown()
    seen = {"asked": services.asked, "created": services.created, "commits": len(services.commits)}
    outputs = [one.outputs for one in notebook.cells]
    return seen | {"outputs": outputs, "written": str(written), "tracker": tracker.asked}


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict[str, dict[str, Any]]:
    def make(folder: Path) -> dict[str, dict[str, Any]]:
        with ThreadPoolExecutor(len(PLATFORMS)) as pool:
            return dict(zip(PLATFORMS, pool.map(lambda platform: execute(platform, folder / platform), PLATFORMS)))

    return once(tmp_path_factory, "executed", make)


@pytest.mark.parametrize(("platform", "what"), [(platform, one[0]) for platform in PLATFORMS for one in RUNS[platform]])
def test_a_cell_does_what_it_should_and_shows_no_secret(executed, platform, what):
    number = [one[0] for one in RUNS[platform]].index(what)
    outputs = executed[platform]["outputs"][number]
    errors = [output for output in outputs if output["output_type"] == "error"]
    assert bool(errors) == RUNS[platform][number][2], errors
    shown = json.dumps(outputs, ensure_ascii=False).encode()
    assert [(name, form) for name in SECRETS for form, text in forms(SECRETS[name]).items() if text in shown] == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_that_a_notebook_writes_holds_a_secret(executed, platform, name):
    written = Path(executed[platform]["written"])
    there = {file.name for file in written.rglob("*") if file.is_file()}
    assert {"notebook.ipynb", "kernel.log", "summary.json", "README.md", "request.json"} <= there
    assert list(written.rglob("servers/*.log")) and (platform != "colab" or list(written.rglob("*.wandb")))
    assert leaks(SECRETS[name], written) == []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_secrets_were_there_and_were_used(executed, platform):
    seen = executed[platform]
    sent = {who for _, path, who in seen["asked"] if path.startswith(("/api/repos", "/api/models/me"))}
    assert sent == {f"Bearer {SECRETS['HF_TOKEN']}"}
    assert seen["commits"] == 1 and [one["visibility"] for one in seen["created"]] == ["private"]
    if platform == "colab":
        basic = base64.b64encode(f"api:{SECRETS['WANDB_API_KEY']}".encode()).decode()
        assert f"Basic {basic}" in {who for _, _, who in seen["tracker"]}


FIT = {
    SECRETS["HF_TOKEN"]: True,
    f"  {SECRETS['HF_TOKEN']}\n": True,
    SECRETS["VLLM_API_KEY"]: True,
    f"{SECRETS['HF_TOKEN']}\nHF_TOKEN": False,
    f"{SECRETS['HF_TOKEN']}\r\n{SECRETS['WANDB_API_KEY']}": False,
    f"{SECRETS['HF_TOKEN']}\u200b": False,
    f"“{SECRETS['HF_TOKEN']}”": False,
    f"密钥：{SECRETS['HF_TOKEN']}": False,
    f"{SECRETS['HF_TOKEN']}\x00": False,
}


@pytest.mark.parametrize("value", FIT, ids=range(len(FIT)))
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_is_no_key_is_refused_without_being_shown(monkeypatch, value, language):
    """httpx, for one, writes a header with a line break in it into its error, in full."""
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    monkeypatch.setattr(runtime, "platform_name", lambda: "colab")
    monkeypatch.setitem(sys.modules, "google.colab.userdata", SimpleNamespace(get=lambda name: value))
    if FIT[value]:
        secret = runtime.secret("HF_TOKEN")
        assert secret == value.strip() and f"{secret}|{secret!r}|{[secret]}" == f"{value.strip()}|'***'|['***']"
        return
    with pytest.raises(runtime.MissingSecret, match="HF_TOKEN.*(Copy it again|请重新复制)") as caught:
        runtime.secret("HF_TOKEN")
    assert SECRETS["HF_TOKEN"] not in "".join(traceback.format_exception(caught.value))


# --- What is loaded ---------------------------------------------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "it ran"


def plant(file: Path, mark: Path, **tensors) -> Path:
    import torch

    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(tensors | {"bomb": Bomb(mark)}, file)
    return file


def test_the_bomb_is_live(tmp_path, mark):
    import torch

    torch.load(plant(tmp_path / "a.bin", mark), weights_only=False)
    assert mark.exists()


FOLDERS = {  # the files of a folder, and whether it may be loaded
    "a model": ({"config.json", "model.safetensors"}, True),
    "a model in parts": ({"config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"}, True),
    "a model and its pickled copy": ({"config.json", "model.safetensors", "pytorch_model.bin"}, True),
    "a checkpoint": (
        {"config.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"},
        True,
    ),
    "an adapter": ({"adapter_config.json", "adapter_model.safetensors", "training_args.bin"}, True),
    "a configuration": ({"config.json", "training_args.bin"}, True),
    "a GGUF": ({"config.json", "model.Q8_0.gguf"}, True),
    "a pickled model": ({"config.json", "pytorch_model.bin"}, False),
    "a pickled model in parts": (
        {"config.json", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"},
        False,
    ),
    "a pickle under another name": ({"config.json", "weights.pt"}, False),
    "the original weights": ({"config.json", "consolidated.00.pth"}, False),
    "a pickled adapter": ({"adapter_config.json", "adapter_model.bin"}, False),
    "a pickled adapter beside a model": (
        {"config.json", "model.safetensors", "adapter_config.json", "adapter_model.bin"},
        False,
    ),
    "a pickled model beside an adapter's weights": (
        {"config.json", "adapter_model.safetensors", "pytorch_model.bin"},
        False,
    ),
    "a pickled checkpoint": ({"config.json", "pytorch_model.bin", "optimizer.pt", "training_args.bin"}, False),
}


def fill(folder: Path, files: set[str], mark: Path, **facts) -> Path:
    folder.mkdir()
    for name in files:
        if name.endswith(".json"):
            (folder / name).write_text(json.dumps(facts), encoding="utf-8")
        elif hub._is_any(name, hub.PICKLES):
            plant(folder / name, mark)
        else:
            (folder / name).write_bytes(b"no pickle")
    return folder


@pytest.mark.parametrize("what", FOLDERS)
def test_a_folder_with_nothing_but_a_pickle_is_refused(tmp_path, mark, what):
    files, safe = FOLDERS[what]
    folder = fill(tmp_path / "model", files, mark)
    if safe:
        assert hub.resolve_model(str(folder)) == str(folder)
    else:
        with pytest.raises(
            hub.UnsafeModel, match=r"only as a pickle \(.*safetensors.*refs/pr/1.*save_pretrained"
        ) as caught:
            hub.resolve_model(str(folder))
        assert str(folder) in str(caught.value) and "training_args.bin" not in str(caught.value)
    assert not mark.exists()


def test_so_is_an_adapter_on_such_a_folder_and_one_whose_model_is_gone(tmp_path, mark):
    base = fill(tmp_path / "base", {"config.json", "pytorch_model.bin"}, mark)
    files = {"adapter_config.json", "adapter_model.safetensors"}
    adapter = fill(tmp_path / "adapter", files, mark, base_model_name_or_path=str(base))
    with pytest.raises(hub.UnsafeModel, match=re.escape(f"{base} has its weights only as a pickle")):
        hub.resolve_model(str(adapter))
    shutil.rmtree(base)
    with pytest.raises(
        hub.ModelNotFound, match="is an adapter on .*base, which is not there any more. Put the model back"
    ):
        hub.resolve_model(str(adapter))
    assert not mark.exists()


BAD_BASES = {  # the files of a base, its configuration, and what is said
    "a pickle": ({"pytorch_model.bin"}, {}, "has its weights only as a pickle"),
    "a pickle and a configuration": ({"config.json", "pytorch_model.bin"}, QWEN, "has its weights only as a pickle"),
    "own code": ({"config.json", "model.safetensors"}, CODE, "is a model of its own Python code"),
}


@pytest.mark.parametrize("way", ["base", "./base", "../{here}/base", "{whole}/base"])
@pytest.mark.parametrize("what", BAD_BASES)
def test_the_base_of_an_adapter_is_refused_however_it_is_named(tmp_path, monkeypatch, mark, what, way):
    files, facts, says = BAD_BASES[what]
    fill(tmp_path / "base", files, mark, **facts)
    named = {"base_model_name_or_path": way.format(here=tmp_path.name, whole=tmp_path)}
    adapter = fill(tmp_path / "adapter", {"adapter_config.json", "adapter_model.safetensors"}, mark, **named)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hub.UnsafeModel, match=f"base {says}"):
        hub.check_safe("adapter")
    with pytest.raises(hub.UnsafeModel, match=rf"base {says}.* Choose a model"):
        hub.resolve_model("adapter")
    # One on the Hub, whose author has guessed how a folder here is called.
    monkeypatch.setattr(hub, "_asked_hub", lambda name, _: {"adapter_config.json": adapter / "adapter_config.json"})
    with pytest.raises(hub.UnsafeModel, match=rf"me/adapter is an adapter(.|\n)*base {says}.* Choose a model"):
        hub.resolve_model("me/adapter")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (json.dumps(CODE), "its own Python code"),
        (json.dumps({"auto_map": {}}), "its own Python code"),
        ("{", "config.json is not JSON"),
        ("[]", "is a JSON list, not an object"),
        (json.dumps(CODE | QWEN), None),
        ("{}", None),
    ],
)
def test_a_model_of_its_own_code_is_refused(tmp_path, config, says):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"S")
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", encoding="utf-8")
    if says:
        with pytest.raises(hub.ModelNotFound, match=says):
            hub.resolve_model(str(tmp_path))
    else:
        assert hub.resolve_model(str(tmp_path)) == str(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def small():
    """A tiny model's configuration, and its weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=16, num_key_value_heads=2, bos_token_id=0, eos_token_id=1, **sizes)
    return config, Qwen2ForCausalLM(config).state_dict()


@pytest.mark.parametrize("loader", ["AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification"])
def test_transformers_reads_a_pickle_as_data(tmp_path, mark, small, loader):
    """What lesson 11's reward model rests on, and the way that the refusal shows."""
    import torch
    import transformers

    config, weights = small
    config.save_pretrained(tmp_path)
    load = getattr(transformers, loader).from_pretrained
    plant(tmp_path / "pytorch_model.bin", mark, **weights)
    with pytest.raises(Exception, match="(?i)weights.only|unpickl|unsupported"):
        load(tmp_path)
    assert not mark.exists()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    load(tmp_path).save_pretrained(tmp_path / "converted")
    assert hub.resolve_model(str(tmp_path / "converted"))
    with pytest.raises(hub.UnsafeModel):
        hub.resolve_model(str(tmp_path))


def test_a_pickled_adapter_is_refused_and_read_as_data(tmp_path, mark, small):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    config, _ = small
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)
    (adapter / "adapter_model.safetensors").unlink()
    plant(adapter / "adapter_model.bin", mark)
    with pytest.raises(Exception, match="(?i)weights.only|unpickl|unsupported"):
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    with pytest.raises(hub.UnsafeModel, match="adapter_model.bin"):
        export.load_16bit(str(adapter))
    assert not mark.exists()


def trainer(folder: Path, small, steps: int = 1):
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    options = {"save_steps": 1, "max_steps": steps, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(str(folder), per_device_train_batch_size=1, **options)
    rows = [{"input_ids": [2, 3, 4], "labels": [2, 3, 4]}] * 4
    return Trainer(AutoModelForCausalLM.from_config(small[0]), arguments, train_dataset=rows)


@pytest.fixture
def checkpoint(tmp_path, small) -> Path:
    """What a trainer wrote after a step, in a folder of its own."""
    trainer(tmp_path / "out", small).train()
    return tmp_path / "out" / "checkpoint-1"


@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin"]
)
def test_going_on_from_a_checkpoint_runs_nothing(checkpoint, mark, small, file):
    if file == "pytorch_model.bin":
        (checkpoint / "model.safetensors").unlink()
    plant(checkpoint / file, mark)
    try:
        trainer(checkpoint.parent, small, 2).train(resume_from_checkpoint=str(checkpoint))
    except Exception as error:
        assert "weights_only" in str(error)  # why it would not read the file
    else:
        assert file == "training_args.bin"  # is not read at all
    assert not mark.exists()


PLANTED = {  # what is planted in a checkpoint, and why it is refused
    "optimizer.pt": ("optimizer.pt holds something other than numbers", "optimizer.pt 里不只是数字"),
    "scheduler.pt": ("scheduler.pt holds something other than numbers", "scheduler.pt 里不只是数字"),
    "scaler.pt": ("scaler.pt holds something other than numbers", "scaler.pt 里不只是数字"),
    "rng_state_1.pth": ("rng_state_1.pth holds something other than numbers", "rng_state_1.pth 里不只是数字"),
    "pytorch_model.bin": (
        r"its weights are a pickle \(pytorch_model.bin\)",
        r"权重是 pickle 格式（pytorch_model.bin）",
    ),
    "adapter_model.bin": (
        r"its weights are a pickle \(adapter_model.bin\)",
        r"权重是 pickle 格式（adapter_model.bin）",
    ),
}
MENDS = ("Delete this folder or move it elsewhere, and start again", "请把这个文件夹删掉或移走，再重新开始")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("file", PLANTED)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_checkpoint_with_a_planted_file_is_refused_when_it_is_chosen(
    checkpoint, mark, monkeypatch, language, file, zipped
):
    import torch

    monkeypatch.setenv("COURSE_LANGUAGE", language)
    assert launch.last_checkpoint(checkpoint.parent) == str(checkpoint)
    if file.endswith(".bin"):
        (checkpoint / "model.safetensors").unlink()
    torch.save({"bomb": Bomb(mark)}, checkpoint / file, _use_new_zipfile_serialization=zipped)
    says = re.escape(str(checkpoint)) + ".*" + PLANTED[file][language == "zh"] + ".*" + MENDS[language == "zh"]
    with pytest.raises(hub.UnsafeModel, match=says):
        launch.last_checkpoint(checkpoint.parent)
    assert not mark.exists()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_checkpoint_in_shares_is_refused(checkpoint, mark, monkeypatch, language):
    import torch
    import torch.distributed.checkpoint as shares

    monkeypatch.setenv("COURSE_LANGUAGE", language)
    folder = checkpoint / "pytorch_model_fsdp_0"
    shares.save({"model": {"weight": torch.ones(4)}}, checkpoint_id=folder, no_dist=True)
    says = {
        "en": r"lies in shares.*\(pytorch_model_fsdp_0/\.metadata\)",
        "zh": r"分片的清单（pytorch_model_fsdp_0/\.metadata）",
    }
    for planted in (False, True):
        if planted:
            (folder / ".metadata").write_bytes(pickle.dumps(Bomb(mark)))
        with pytest.raises(hub.UnsafeModel, match=says[language] + ".*FULL_STATE_DICT.*" + MENDS[language == "zh"]):
            launch.last_checkpoint(checkpoint.parent)
        assert not mark.exists()
    with pytest.raises(AttributeError):  # why: torch runs what is planted there, and complains afterwards
        shares.FileSystemReader(folder).read_metadata()
    assert mark.exists()


def test_what_a_trainer_does_not_read_keeps_nobody_from_going_on(checkpoint, mark, small):
    plant(checkpoint / "training_args.bin", mark)
    plant(checkpoint / "pytorch_model.bin", mark)  # beside model.safetensors, which comes first
    trainer(checkpoint.parent, small, 2).train(resume_from_checkpoint=launch.last_checkpoint(checkpoint.parent))
    assert (checkpoint.parent / "checkpoint-2").is_dir() and not mark.exists()


# --- The project's own code -------------------------------------------------------------------------------------------

PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}
FORBIDDEN = {"eval", "exec", "os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader", "CSafeLoader"}
REMOTE_CODE = re.compile(r"--trust[-_]remote[-_]code\b|\btrust_remote_code\b\W{0,3}[:=]\s*true", re.IGNORECASE)
# Where, what, and why it is no danger.
ALLOWED = {
    ("tools/lessons.py", "eval"): "the conditions of lesson.toml's [effect], which are the course's own",
}


def faults(source: str) -> list[tuple[int, str]]:
    """What of a source could run somebody else's program, or give a secret away; the line, and what it is."""
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings(action="ignore"):
        tree = compile(TransformerManager().transform_cell(source), "cell", "exec", flags)
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [(node.lineno, f"import {name}") for name in names if name.split(".")[0] in PICKLERS]
        if isinstance(node, ast.Call):
            found += [(node.lineno, fault) for fault in call_faults(node)]
        elif isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values) if isinstance(key, ast.Constant)]
            found += [
                (node.lineno, name) for name, value in pairs if name == "trust_remote_code" and not says(value, False)
            ]
        elif isinstance(node, ast.Assign) and "trust_remote_code" in map(ast.unparse, node.targets):
            found += [] if says(node.value, False) else [(node.lineno, "trust_remote_code")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and REMOTE_CODE.search(node.value):
            found.append((node.lineno, "trust_remote_code"))
    return found


def call_faults(node: ast.Call) -> list[str]:
    called, given = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
    found = [called.removeprefix("builtins.")] if called.removeprefix("builtins.") in FORBIDDEN else []
    if called == "torch.load" and not says(given.get("weights_only"), True):
        found.append("torch.load without weights_only=True")
    if called.split(".")[-1] == "read_pickle":
        found.append("read_pickle")
    if (
        called == "yaml.load"
        and ast.unparse(given.get("Loader") or (node.args[1:] or [ast.Constant("")])[0]) not in SAFE_LOADERS
    ):
        found.append("yaml.load")
    for word, good in {"trust_remote_code": False, "allow_pickle": False, "shell": False, "push_to_hub": False}.items():
        if word in given and not says(given[word], good):
            found.append(word)
    token = given.get("token", given.get("hub_token", given.get("api_key")))
    if isinstance(token, ast.Constant) and isinstance(token.value, str) and len(token.value) > 16:
        found.append("a secret in the source")
    if called.endswith("run_cell_magic") and says(node.args[0], "writefile"):
        try:
            found += [fault for _, fault in faults(node.args[2].value)]
        except SyntaxError:
            found += ["trust_remote_code"] if REMOTE_CODE.search(node.args[2].value) else []
    return found


def says(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


BAD = {
    "import pickle": "import pickle",
    "from joblib import load": "import joblib",
    "import numpy, dill.session": "import dill.session",
    "def f():\n    import cloudpickle as c": "import cloudpickle",
    "torch.load('a.bin')": "torch.load without weights_only=True",
    "torch.load('a.bin', weights_only=False)": "torch.load without weights_only=True",
    "torch.load('a.bin', weights_only=flag)": "torch.load without weights_only=True",
    "np.load('a.npy', allow_pickle=True)": "allow_pickle",
    "pd.read_pickle('a')": "read_pickle",
    "yaml.load(text)": "yaml.load",
    "yaml.load(text, yaml.Loader)": "yaml.load",
    "yaml.unsafe_load(text)": "yaml.unsafe_load",
    "eval(text)": "eval",
    "builtins.exec(text)": "exec",
    "os.system('ls')": "os.system",
    "subprocess.run('ls', shell=True)": "shell",
    "torch.hub.load('a/b', 'c')": "torch.hub.load",
    "Model.from_pretrained(name, trust_remote_code=True)": "trust_remote_code",
    "Model.from_pretrained(name, trust_remote_code=trust)": "trust_remote_code",
    "options = {'trust_remote_code': True}": "trust_remote_code",
    "trust_remote_code = 1": "trust_remote_code",
    "command = ['vllm', 'serve', '--trust-remote-code']": "trust_remote_code",
    "!vllm serve x --trust-remote-code": "trust_remote_code",
    "text = 'model: x\\ntrust_remote_code: true'": "trust_remote_code",
    "%%writefile a.py\nimport pickle": "import pickle",
    "%%writefile a.yaml\nmodel: x y\ntrust_remote_code: true": "trust_remote_code",
    "SFTConfig(push_to_hub=True)": "push_to_hub",
    "login(token='hf_" + "a" * 34 + "')": "a secret in the source",
}
GOOD = [
    "torch.load('a.bin', weights_only=True)",
    "np.load('a.npy')",
    "yaml.safe_load(text)",
    "yaml.load(text, Loader=yaml.SafeLoader)",
    "model.eval()",
    "pd.eval",
    "Model.from_pretrained(name, trust_remote_code=False)",
    "OpenAI(api_key='none')",
    "upload(folder, name, token=runtime.secret('HF_TOKEN'))",
    "reply = await page.goto(url)",
    "%pip install pickleshare",
]


@pytest.mark.parametrize("source", BAD)
def test_the_scan_sees(source):
    assert BAD[source] in [fault for _, fault in faults(source)]


@pytest.mark.parametrize("source", GOOD)
def test_the_scan_lets_pass(source):
    assert faults(source) == []


SOURCES = {
    "helpers": sorted((ROOT / "helpers").rglob("*.py")),
    "tools": [*sorted((ROOT / "tools").rglob("*.py")), ROOT / "conftest.py"],
    "lessons": sorted((ROOT / "lessons").rglob("*.py")),
    "notebooks/en": sorted((ROOT / "notebooks" / "en").glob("*.ipynb")),
    "notebooks/zh": sorted((ROOT / "notebooks" / "zh").glob("*.ipynb")),
}


@pytest.mark.parametrize("place", SOURCES)
def test_the_course_runs_nobody_elses_program(place):
    assert SOURCES[place]
    found = []
    for path in SOURCES[place]:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".ipynb":
            sources = [one["source"] for one in json.loads(text)["cells"] if one["cell_type"] == "code"]
            sources = ["".join(one) for one in sources]
        elif path.name == "lesson.py":
            sources = [one.node.source for one in LESSONS[path.parent.name[:2]].cells if one.is_code]
        else:
            sources = [text]
        seen = {(name, fault) for one in sources for _, fault in faults(one)}
        found += sorted(seen - ALLOWED.keys())
    assert found == []


def test_what_is_allowed_is_there():
    assert {(name, fault) for name, _ in ALLOWED for _, fault in faults((ROOT / name).read_text("utf-8"))} == set(
        ALLOWED
    )


@pytest.mark.parametrize("suffix", [".yaml", ".toml", ".md"])
def test_no_setting_and_no_text_tells_a_student_to(suffix):
    files = [file for place in ("lessons", "tools") for file in (ROOT / place).rglob(f"*{suffix}")]
    assert files and [file for file in files if REMOTE_CODE.search(file.read_text(encoding="utf-8"))] == []


# --- Uploads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_hub(monkeypatch):
    server = open_hub()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()


def lesson_06(folder: Path, **given) -> dict:
    """Names that lesson 06 has when it comes to its upload."""
    gguf = folder / "gguf" / "model.gguf"
    gguf.parent.mkdir()
    gguf.write_text("GGUF", encoding="utf-8")
    real = LESSONS["06"].parameters
    return real | {"export": export, "runtime": runtime, "Path": Path, "gguf": gguf, "base_model": "me/safe"} | given


def test_nothing_is_uploaded_unless_a_repository_is_named(own_hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    names = lesson_06(tmp_path)
    assert names["UPLOAD_TO"] == "" and names["PRIVATE"] is True
    exec(cell("06", "export.upload("), names)
    assert own_hub.asked == [] and "# Llama Medical o1" in capsys.readouterr().out


def test_the_lessons_own_parameters_upload_privately(own_hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    exec(cell("06", "export.upload("), lesson_06(tmp_path, UPLOAD_TO="me/model"))
    assert [one["visibility"] for one in own_hub.created] == ["private"] and len(own_hub.commits) == 1


@pytest.mark.parametrize("private", [True, None, 1, 0, "", "False", "no"])
def test_only_false_is_public(own_hub, tmp_path, private):
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    export.upload(tmp_path, "me/model", "hf_x", private)
    export.upload(tmp_path, "me/model", "hf_x", private=False)
    assert [one["visibility"] for one in own_hub.created] == ["private", "public"]


@pytest.mark.parametrize(
    ("repository", "status", "says"),
    [
        ("me/model", 401, "does not know the token in the secret HF_TOKEN: make one"),
        ("me/model", 403, "may not write there"),
        ("me/model", 404, "Check UPLOAD_TO and the network"),
        ("me/model", 500, "Check UPLOAD_TO and the network"),
        ("my model", 0, "write it as 'your_name/your_model'"),
        ("me/my/model", 0, "write it as 'your_name/your_model'"),
        ("me/my model", 0, "me/my model was not uploaded: Repo id must"),
    ],
)
def test_an_upload_that_fails_says_what_to_do_without_the_token(own_hub, tmp_path, repository, status, says):
    own_hub.refuses = status
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(export.UploadFailed, match=says) as caught:
        export.upload(tmp_path, repository, SECRETS["HF_TOKEN"])
    assert SECRETS["HF_TOKEN"] not in "".join(traceback.format_exception(caught.value))
    assert (len(own_hub.asked) > 0) == (status > 0)


def test_an_upload_that_fails_does_not_show_a_mirrors_password(own_hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", own_hub.url.replace("//", "//me:pa55word@"))
    own_hub.refuses = 500
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(export.UploadFailed, match=f"{own_hub.url}.*\n.*Check UPLOAD_TO") as caught:
        export.upload(tmp_path, "me/model", "hf_x")
    assert "pa55word" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "token", [f"{SECRETS['HF_TOKEN']}\nnext line", f"{SECRETS['HF_TOKEN']}\x00", f"{SECRETS['HF_TOKEN']}…"]
)
def test_a_token_with_something_else_behind_it_is_not_quoted(own_hub, tmp_path, token):
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(export.UploadFailed) as caught:
        export.upload(tmp_path, "me/model", token)
    assert SECRETS["HF_TOKEN"] not in "".join(traceback.format_exception(caught.value)) and own_hub.commits == []


@pytest.mark.parametrize("before", ["online", "shared", "disabled", None])
def test_no_run_is_uploaded_unless_told(tmp_path, monkeypatch, before):
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_PROJECT", "WANDB_LOG_MODEL",
                 "WANDB_DISABLE_CODE", "WANDB_MODE"):  # fmt: skip
        monkeypatch.setenv(name, before or "")
    monkeypatch.setattr(runtime, "secret", lambda *_, **__: pytest.fail("a key was asked for"))
    names = LESSONS["03"].parameters | {"tracking": tracking, "TRACKING": "wandb", "OUTPUT_DIR": str(tmp_path)}
    assert names["UPLOAD"] is False
    exec(cell("03", "tracking.start("), names)
    said = {
        name: os.environ.get(name) for name in ("WANDB_MODE", "WANDB_LOG_MODEL", "WANDB_DISABLE_CODE", "WANDB_API_KEY")
    }
    assert list(said.values()) == ["offline", "false", "true", None]


# --- Servers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "goes"),
    [("WANDB_API_KEY", 0), ("KAGGLE_USER_SECRETS_TOKEN", 0), ("AWS_SECRET_ACCESS_KEY", 0), ("DB_PASSWORD", 0),
     ("CLIENT_SECRET", 0), ("VLLM_API_KEY", 0), ("CUDA_VISIBLE_DEVICES", 1), ("TOKENIZERS_PARALLELISM", 1), ("HF_HOME", 1)],
)  # fmt: skip
def test_a_server_gets_no_secret_but_its_own(tmp_path, monkeypatch, name, goes):
    monkeypatch.setenv(name, "x" * 20)
    assert [name in serve.environment(engine, str(tmp_path), None) for engine in serve.ENGINES] == [bool(goes)] * 2
    assert serve.environment("vllm", "m", "its own")["VLLM_API_KEY"] == "its own"


def test_the_hubs_token_goes_along_where_something_may_be_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    assert serve.environment("vllm", "owner/model", None)["HF_TOKEN"] == SECRETS["HF_TOKEN"]
    assert "HF_TOKEN" not in serve.environment("vllm", str(tmp_path), None)


@pytest.mark.parametrize("option", ["api-key", "api_key"])
def test_a_key_among_the_options_is_refused(option):
    with pytest.raises(serve.ServerFailed, match=r"api_key=runtime\.secret") as caught:
        serve.command("transformers", "m", 8000, {option: SECRETS["VLLM_API_KEY"]})
    assert SECRETS["VLLM_API_KEY"] not in str(caught.value)


# --- Before a commit --------------------------------------------------------------------------------------------------

HOOKS = {
    hook["id"]: hook
    for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"][0]["hooks"]
}
TOKENS = {
    "Hugging Face": f'TOKEN = "{SECRETS["HF_TOKEN"]}"',
    "Hugging Face, in a command": f"!hf auth login --token {SECRETS['HF_TOKEN']}",
    "W&B": f"wandb.login(key='{SECRETS['WANDB_API_KEY']}')",
    "W&B, in the environment": f"export WANDB_API_KEY={SECRETS['WANDB_API_KEY']}",
    "GitHub": "https://me:ghp" + "_" + "a1B2" * 9 + "@github.com/me/x",
    "OpenAI": "OPENAI_API_KEY=sk" + "-proj-" + "a1B2" * 12,
    "DeepSeek": "DEEPSEEK_API_KEY=sk" + "-" + "0f1e2d3c4b5a6978" * 2,
    "GitLab": "git clone https://gitlab.com/x --header PRIVATE-TOKEN:glpat" + "-" + "a1B2" * 5,
    "Google": "key=AIza" + "a1B2c" * 7,
    "a password in an address": "HF_ENDPOINT=https://ann:" + "correct-horse@hub.example.com",
    "AWS": "AKIA" + "ABCD1234EFGH5678",
    "ModelScope": "MODELSCOPE_API_TOKEN=ms" + "-0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
    "Kaggle": json.dumps({"username": "me", "key": "0f1e2d3c4b5a6978" * 2}),
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
}
HARMLESS = (
    "token = runtime.secret('HF_TOKEN')\nhf_token: hf_...\nkey = 'sk-...'\nhttps://user:$PASSWORD@a.example\n"
    "https://a.example:8443/x@1\nf'http://{name}:{password}@{host}'\n--hash=sha256:"
) + "0f1e2d3c4b5a6978" * 4


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git here")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory) -> dict[str, tuple[int, str]]:
    """The exit code of pre-commit and what it says, hook by hook, on a repository of planted files and harmless ones."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copy(ROOT / ".pre-commit-config.yaml", folder)
    files = {f"{what}.txt": line for what, line in TOKENS.items()} | {"harmless.txt": HARMLESS}
    shown = [nbformat.v4.new_output("stream", text="1")]
    for name, left in {"harmless": {}, "shown": {"outputs": shown}, "counted": {"execution_count": 1}}.items():
        cells = [nbformat.v4.new_code_cell("print(1)", **left)]
        files[f"{name}.ipynb"] = nbformat.writes(nbformat.v4.new_notebook(cells=cells))
    for name, text in files.items():
        (folder / name).write_text(f"one line\n{text}\n" if name.endswith(".txt") else text, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env["PRE_COMMIT_HOME"] = str(folder.parent / "pre-commit")
    for command in (["git", "init", "-q"], ["git", "add", "."]):
        subprocess.run(command, cwd=folder, env=env, check=True)
    said = {}
    for hook in ("tokens", "outputs"):
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files", hook]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        said[hook] = done.returncode, done.stdout + done.stderr
    return said


@pytest.mark.parametrize(
    ("hook", "file"),
    [*(("tokens", f"{what}.txt:2:") for what in TOKENS), ("outputs", "shown.ipynb:"), ("outputs", "counted.ipynb:")],
)
def test_a_commit_is_stopped(hooked, hook, file):
    status, said = hooked[hook]
    assert status == 1 and file in said and "harmless" not in said, said


@pytest.mark.parametrize(("hook", "suffix"), [("tokens", ""), ("outputs", ".ipynb")])
def test_the_hooks_find_nothing_in_what_is_committed(hook, suffix):
    pattern = re.compile(HOOKS[hook]["entry"].encode())
    files = [file for file in tracked() if file.name.endswith(suffix)]
    assert files and [file for file in files if pattern.search(file.read_bytes())] == []


def test_the_hook_stops_outputs(executed):
    shown = [outputs for outputs in executed["local"]["outputs"] if outputs]
    for outputs in shown:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=nbformat.from_dict(outputs))])
        assert re.search(HOOKS["outputs"]["entry"], nbformat.writes(notebook))
    assert shown and re.search(HOOKS["outputs"]["entry"], '{"execution_count": 3, "outputs": []}')


# --- Downloads --------------------------------------------------------------------------------------------------------

# In a process of its own: the Hub's clients read their settings when they are imported.
FETCH = """
import contextlib, io, json, sys, types, unittest.mock
from pathlib import Path
import huggingface_hub.constants
from helpers import data, hub, llamafactory

# transformers' own table of models, without the seconds that its import takes.
auto = {name: types.ModuleType(name) for name in ("transformers", "transformers.models", "transformers.models.auto")}
auto["transformers.models.auto.configuration_auto"] = types.SimpleNamespace(CONFIG_MAPPING={"qwen2": object})

def resolve(name):
    with unittest.mock.patch.dict(sys.modules, auto):
        return hub.resolve_model(name)

def offline(name):
    with unittest.mock.patch.object(huggingface_hub.constants, "HF_HUB_OFFLINE", True):
        return resolve(name)

CALLS = {
    "model": resolve,
    "offline": offline,
    "alpaca": lambda name: data.load_alpaca(name)["instruction"][:],
    "corpus": lambda name: data.load_corpus(name, limit=5)["text"][:],
    "first rows": lambda name: Path(llamafactory.first_rows(name, "rows", 1)).read_text("utf-8"),
}
for number, (call, name) in enumerate(json.load(sys.stdin)):
    said, value, error = io.StringIO(), None, None
    with contextlib.redirect_stdout(said):
        try:
            value = CALLS[call](name)
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
    print("RESULT", json.dumps([value, said.getvalue(), error]), flush=True)
"""
MODELS = [  # the name; what comes back: the name, a commit's folder, or an error; the commit that is printed
    ("me/safe", "me/safe", B),
    ("me/sharded", "me/sharded", B),
    ("me/adapter", "me/adapter", B),
    ("me/known-code", "me/known-code", B),
    (JUDGE, JUDGE, B),
    ("me/pickled", r"UnsafeModel: me/pickled has its weights only as a pickle \(pytorch_model.bin\)", None),
    ("me/pickled-shards", r"UnsafeModel: .*00001-of-00002.bin", None),
    ("me/pickled-adapter", r"UnsafeModel: .*adapter_model.bin", None),
    ("me/code", r"UnsafeModel: me/code is a model of its own Python code \(model_type 'mine'\)", None),
    ("me/on-code", r"UnsafeModel: me/on-code is an adapter(.|\n)*me/code is a model of its own Python code", None),
    ("me/none", "ModelNotFound: The Hub has no model 'me/none'", None),
    (f"me/safe@{A}", A, A),
    (f"me/safe@{B}", B, B),
    ("me/safe@v1", A, A),
    ("me/safe@main", B, B),
    ("me/pickled@refs/pr/1", PR, PR),
    (f"me/pickled@{B}", "UnsafeModel: me/pickled has", None),
    (f"me/adapter@{B}", B, B),
    (f"{JUDGE}@{B}", B, B),
    (
        "me/safe@v9",
        r"ModelNotFound: 'me/safe' has no revision 'v9'\. Look under .* or name the model without @v9",
        None,
    ),
    (f"me/safe@{'d' * 40}", "ModelNotFound: 'me/safe' has no revision", None),
]
DATA = [  # how it is loaded; the name; what is in it, or an error; the commit that is printed
    ("alpaca", "me/rows", "Say 2", B),
    ("alpaca", f"me/rows@{A}", "Say 1", A),
    ("alpaca", "me/rows@v1", "Say 1", A),
    ("alpaca", "me/rows@v9", r"DataError: Data set 'me/rows@v9' could not be loaded.*v9", None),
    ("corpus", "me/texts", "Text 2", B),
    ("corpus", f"me/texts@{A}", "Text 1", A),
    ("corpus", "hf://datasets/me/texts/book.jsonl", "Text 2", B),
    ("corpus", f"hf://datasets/me/texts@{A}/book.jsonl", "Text 1", A),
    ("first rows", "me/texts:book.jsonl", "Text 2", B),
    ("first rows", f"me/texts@{A}:book.jsonl", "Text 1", A),
    ("first rows", "me/texts@v9:book.jsonl", "DataError: book.jsonl of the data set 'me/texts@v9' could not", None),
]
OFFLINE = [
    (f"me/safe@{A}", A),
    ("me/safe", "me/safe"),
    (f"me/known-code@{B}", "ModelNotFound: .* is not downloaded yet"),
]


@pytest.fixture(scope="module")
def fetched(tmp_path_factory) -> tuple[dict[tuple[str, str], list], list]:
    """What came of each call (its value, what it printed, its error), and what the hub was asked."""
    calls = [("model", name) for name, *_ in MODELS] + [(how, name) for how, name, *_ in DATA]
    calls += [("offline", name) for name, _ in OFFLINE]

    def make(folder: Path) -> tuple[list, list]:
        server = open_hub()
        env = os.environ | {
            "HF_ENDPOINT": server.url, "HF_HOME": str(folder), "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", FETCH], input=json.dumps(calls), env=env, cwd=folder, capture_output=True, text=True
        )
        server.shutdown()
        results = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        assert len(results) == len(calls), done.stderr[-3000:]
        return results, server.asked

    results, asked = once(tmp_path_factory, "fetched", make)
    return dict(zip(calls, results)), asked


@pytest.mark.parametrize(("name", "expected", "commit"), MODELS)
def test_a_model_comes_with_its_commit_and_by_it(fetched, monkeypatch, name, expected, commit):
    value, said, error = fetched[0]["model", name]
    if commit is None:
        assert value is None and re.match(expected, error) and said == ""
        return
    assert error is None and said.startswith(f"{name}: commit {commit}")
    repository, revision = hub.split_revision(name)
    if revision is None:
        assert value == expected == name and said.rstrip().endswith(f"the same again: '{name}@{commit}'")
        return
    assert Path(value).name == expected and hub.hub_name(value) == repository
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path(value).parents[2]))  # an adapter's base
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub.resolve_model(value) == value
    assert ("the same again" in said) == (revision != commit)
    there = {file.name for file in Path(value).iterdir()}
    assert there == {file for file in REPOSITORIES[f"models/{repository}"][commit] if "/" not in file} - (
        set() if repository == JUDGE else {"pytorch_model.bin"}
    )


def test_no_pickle_was_so_much_as_fetched(fetched):
    pickles = [path for how, path, _ in fetched[1] if ".bin" in path and JUDGE not in path]
    assert pickles == []


@pytest.mark.parametrize(("how", "name", "expected", "commit"), DATA)
def test_a_data_set_comes_with_its_commit_and_by_it(fetched, how, name, expected, commit):
    value, said, error = fetched[0][how, name]
    if commit is None:
        assert value is None and re.match(expected, error, re.DOTALL)
    else:
        assert error is None and expected in str(value)
        assert re.search(rf"^\S+: commit {commit}", said, re.MULTILINE)


@pytest.mark.parametrize(("name", "expected"), OFFLINE)
def test_what_was_fetched_is_there_without_a_network(fetched, name, expected):
    value, _, error = fetched[0]["offline", name]
    assert re.match(expected, error) if error else Path(value).name == expected or value == expected


@pytest.mark.parametrize(("name", "asked"), [("me/safe", {}), (f"me/safe@{A}", {"revision": A})])
def test_modelscope_takes_a_revision_and_is_looked_at_too(tmp_path, monkeypatch, mark, name, asked):
    given = []
    folder = fill(tmp_path / "safe", {"config.json", "model.safetensors"}, mark)
    fetch = lambda name, **options: given.append((name, options)) or str(folder)
    monkeypatch.setitem(sys.modules, "modelscope", SimpleNamespace(snapshot_download=fetch))
    assert hub.resolve_model(name, "modelscope") == str(folder) and given == [("me/safe", asked)]
    (folder / "model.safetensors").unlink()
    plant(folder / "pytorch_model.bin", mark)
    with pytest.raises(hub.UnsafeModel, match="only as a pickle"):
        hub.resolve_model(name, "modelscope")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (f"/c/hub/models--me--safe/snapshots/{A}", "me/safe"),
        (f"/c/hub/models--me--safe/snapshots/{A}/", "me/safe"),
        (f"/c/hub/models--me--a-b_c.d/snapshots/{A}", "me/a-b_c.d"),
        ("/c/modelscope/models/me--a-b_c.d/snapshots/master", "me/a-b_c.d"),
        (f"/c/hub/datasets--me--safe/snapshots/{A}", f"/c/hub/datasets--me--safe/snapshots/{A}"),
        ("me/safe", "me/safe"),
        ("/models/mine", "/models/mine"),
    ],
)
def test_a_folder_of_the_cache_has_a_name(path, name):
    assert hub.hub_name(path) == name


@pytest.mark.parametrize(
    ("trained_on", "base"),
    [
        ("unsloth/Qwen-bnb-4bit", "unsloth/Qwen"),
        (f"/c/models--unsloth--Qwen-unsloth-bnb-4bit/snapshots/{A}", "unsloth/Qwen"),
        (f"/c/models--me--safe/snapshots/{A}", f"/c/models--me--safe/snapshots/{A}"),
    ],
)
def test_the_16_bit_model_of_a_pinned_one_is_found(monkeypatch, trained_on, base):
    import peft
    import transformers

    monkeypatch.setattr(hub, "resolve_model", lambda name, source: name)
    read = SimpleNamespace(base_model_name_or_path=trained_on)
    monkeypatch.setattr(peft.PeftConfig, "from_pretrained", lambda folder: read)
    for kind in ("AutoTokenizer", "AutoModelForCausalLM"):
        monkeypatch.setattr(getattr(transformers, kind), "from_pretrained", lambda name, **_: None)
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", lambda *_: SimpleNamespace(merge_and_unload=lambda: None))
    assert export.load_16bit("adapter")[2] == base


def test_a_model_card_links_names_without_revisions(tmp_path):
    text = {"title": "T", "license": "mit", "text": "", "disclaimer": ""}
    pinned = f"/c/hub/models--me--safe/snapshots/{A}"
    for base in ("me/safe", f"me/safe@{A}", pinned):
        card = export.model_card(tmp_path, base_model=base, datasets=[f"me/rows@{A}"], **text).read_text("utf-8")
        assert 'base_model: "me/safe"\n' in card and 'datasets: ["me/rows"]\n' in card


def test_kaggles_token_reaches_the_hubs_client(monkeypatch):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("HF_TOKEN", "")
    client = lambda: SimpleNamespace(get_secret=lambda name: SECRETS[name])
    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=client))
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata", lambda *_, **__: (_ for _ in ()).throw(ConnectionError())
    )
    with pytest.raises(hub.ModelNotFound, match="cannot be reached"):
        hub.resolve_model("me/safe")
    from huggingface_hub import get_token

    assert get_token() == SECRETS["HF_TOKEN"]


def test_a_mirrors_password_is_not_shown(monkeypatch, capsys):
    mirror = "https://me:" + SECRETS["VLLM_API_KEY"].replace("/", "") + "@mirror.example:8443/hf"
    monkeypatch.setenv("HF_ENDPOINT", mirror)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", mirror)
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata", lambda *_, **__: (_ for _ in ()).throw(ConnectionError())
    )
    with pytest.raises(hub.ModelNotFound, match=r"and https://mirror\.example:8443/hf cannot be reached"):
        hub.resolve_model("me/safe")
    hub.find_datasets("alpaca", api=SimpleNamespace(list_datasets=lambda **_: 1 / 0))
    assert "https://mirror.example:8443/hf cannot" in capsys.readouterr().out
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no route")))
    assert "https://mirror.example:8443/hf" in checkup.hub().seen and "me:" not in checkup.hub().seen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@mirror.example:8443/hf", "https://mirror.example:8443/hf"),
        ("https://secret@mirror.example", "https://mirror.example"),
        ("https://me:sec@ret@mirror.example", "https://mirror.example"),
        ("me:secret@mirror.example", "mirror.example"),
        ("http://me:secret@[::1", "http://[::1"),
        (
            "Failed: `https://me:secret@a.example/x`\nand (http://:secret@b.example)",
            "Failed: `https://a.example/x`\nand (http://b.example)",
        ),
        *[
            (text, text)
            for text in ("https://a.example/me/model@main", "me/model@main", "model@main", "Error: a@b", "")
        ],
    ],
)
def test_a_login_is_cut_out_of_a_text(text, shown):
    assert runtime.without_login(text) == shown


MIRROR = "https://me:pa55word@mirror.example"


@pytest.mark.parametrize("load", [lambda: data.load_alpaca("me/rows"), lambda: data.load_corpus("me/texts", limit=5)])
def test_data_that_cannot_be_had_do_not_show_a_mirrors_password(monkeypatch, load):
    error = httpx.HTTPError(f"Server error '500' for url '{MIRROR}/api/datasets'")
    for module in ("rows", "corpus"):
        monkeypatch.setattr(f"helpers.data.{module}.load_dataset", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(data.DataError, match=r"url 'https://mirror\.example/api.*\n.*Check the spelling") as caught:
        load()
    assert "pa55word" not in "".join(traceback.format_exception(caught.value))


def test_nor_does_an_environment_that_could_not_be_made(monkeypatch):
    said = SimpleNamespace(returncode=1, stdout="", stderr=f"Failed to fetch: `{MIRROR}/simple/x/`")
    monkeypatch.setattr("helpers.environments.subprocess.run", lambda *_, **__: said)
    with pytest.raises(environments.EnvironmentFailed, match="set PIP_INDEX_URL") as caught:
        environments._run(["uv"])
    assert "https://mirror.example/simple" in str(caught.value) and "pa55word" not in str(caught.value)
