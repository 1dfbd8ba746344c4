import json
from pathlib import Path

import pytest
from nbclient.exceptions import DeadKernelError

from helpers import checkup, nano, runtime
from tools import cli, doctor, run
from tools.lessons import LessonError, load_course


@pytest.fixture
def in_tiny(tiny, monkeypatch):
    monkeypatch.setattr(cli, "load_course", lambda: load_course(tiny.root))
    return tiny


def test_list_shows_every_lesson(capsys):
    assert cli.main(["list", "--lang", "zh"]) == 0
    shown = capsys.readouterr().out
    for lesson in load_course().lessons:
        assert lesson.number in shown
        assert lesson.facts["title"]["zh"][:6] in shown


def test_build_and_check(in_tiny, capsys):
    assert cli.main(["build", "--check"]) == 1
    assert "01_tiny.ipynb: missing. Run: course build" in capsys.readouterr().err
    assert cli.main(["build"]) == 0
    assert cli.main(["build", "--check"]) == 0


@pytest.mark.notebook
def test_run_trimmed_shows_the_summary_and_where_to_look(in_tiny, capsys):
    assert cli.main(["run", "1", "--lang", "zh"]) == 0
    shown = capsys.readouterr().out
    folder = in_tiny.root / "runs/01_tiny-zh"
    assert "世界" in shown
    assert str(folder / "notebook.html") in shown
    assert "hello 世界: 3" in (folder / "notebook.html").read_text("utf-8")
    assert json.loads((folder / "outputs/summary.json").read_text("utf-8")) == {"name": "世界", "total": 3}


@pytest.mark.notebook
def test_run_full_with_a_setting(in_tiny):
    assert cli.main(["run", "01", "--full", "--set", "COUNT=10"]) == 0
    summary = json.loads((in_tiny.root / "runs/01_tiny-en/outputs/summary.json").read_text("utf-8"))
    assert summary == {"name": "world", "total": 55}


@pytest.mark.notebook
def test_a_failing_cell_is_shown_and_the_output_kept(in_tiny, capsys):
    source = in_tiny.root / "lessons/01_tiny/lesson.py"
    source.write_text(source.read_text("utf-8").replace("# ## The end", "# ## The end", 1) + "\n# %%\n1 / 0\n", "utf-8")
    assert cli.main(["run", "01"]) == 1
    shown = capsys.readouterr().out
    assert "1 / 0" in shown
    assert "ZeroDivisionError: division by zero" in shown
    folder = in_tiny.root / "runs/01_tiny-en"
    assert "hello world: 3" in (folder / "notebook.ipynb").read_text("utf-8")
    assert (folder / "notebook.html").is_file()


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("STEPS=3", "lesson 01 has NAME, COUNT, RATE, OUTPUT_DIR; write NAME=VALUE"),
        ("COUNT", "write NAME=VALUE"),
        ("COUNT=many", "is a str, the parameters cell has a int"),
        ("COUNT=1.5", "is a float, the parameters cell has a int"),
        ("RATE=nan", "is a str, the parameters cell has a float"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(tiny, setting, says):
    with pytest.raises(LessonError, match=says):
        run.parse_settings(tiny.lessons[0], [setting])


def test_settings_become_values_and_paths_absolute(tiny, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "rows.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    values = run.parse_settings(tiny.lessons[0], ["COUNT=3", "RATE=2", "NAME=sub/rows.json", "OUTPUT_DIR=a=b"])
    assert values == {"COUNT": 3, "RATE": 2, "NAME": str(tmp_path / "sub/rows.json"), "OUTPUT_DIR": "a=b"}
    (tmp_path / "rows.json").write_text("[]")
    assert run.parse_settings(tiny.lessons[0], ["NAME=rows.json"]) == {"NAME": str(tmp_path / "rows.json")}
    assert run.parse_settings(tiny.lessons[0], ["NAME=sub"]) == {"NAME": "sub"}  # a word, though a folder has it, too


@pytest.mark.interruption
def test_a_kernel_that_dies_is_a_failure_that_says_so(tiny, tmp_path, monkeypatch):
    def die(*_, **__):
        raise DeadKernelError("Kernel died")

    monkeypatch.setattr(run.papermill, "execute_notebook", die)
    result = run.run(tiny, tiny.lessons[0], "en", {}, tmp_path)
    assert "kernel died" in result.failure and result.summary == {} and not (tmp_path / "source.ipynb").exists()


def test_what_an_earlier_run_left_is_found_where_runs_leave_it(tiny):
    source = tiny.root / "lessons/01_tiny/lesson.py"
    text = source.read_text("utf-8").replace('NAME = "world"', 'NAME = "outputs/00_before/adapter"')
    source.write_text(text, "utf-8")
    assert run.left_by_runs(tiny, tiny.lessons[0], "en") == {}
    for language, model in (("en", "nano/qwen2"), ("zh", "owner/model")):
        folder = tiny.root / f"runs/00_before-{language}"
        (folder / "outputs/adapter").mkdir(parents=True)
        (folder / "notebook.ipynb").write_text(
            json.dumps({"metadata": {"papermill": {"parameters": {"MODEL": model}}}})
        )
    assert run.left_by_runs(tiny, tiny.lessons[0], "en") == {}  # of a trimmed run
    assert run.left_by_runs(tiny, tiny.lessons[0], "zh") == {
        "NAME": str(tiny.root / "runs/00_before-zh/outputs/adapter")
    }
    (tiny.root / "outputs/00_before/adapter").mkdir(parents=True)  # of the notebook itself, which comes first
    assert run.left_by_runs(tiny, tiny.lessons[0], "zh") == {}


def test_nano_builds_what_the_lessons_name_and_no_more(monkeypatch, capsys):
    monkeypatch.setattr(nano, "build_all", lambda names, workers: {name: Path(f"/c/{name}") for name in sorted(names)})
    assert cli.main(["nano", "--workers", "3"]) == 0
    said = capsys.readouterr().out
    assert "nano/qwen2: /c/nano/qwen2\n" in said and "nano/medical-judge" in said
    assert "nano/qwen2-math-reasoned" not in said  # of a reading alone


def test_an_unknown_lesson_lists_the_known(in_tiny, capsys):
    assert cli.main(["run", "77"]) == 1
    assert "No lesson '77'. There are: 01_tiny." in capsys.readouterr().err


# The doctor


def test_doctor_gives_every_line_that_is_not_ok_a_mend(monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("HF_TOKEN", raising=False)
    findings = list(doctor.examine(load_course()))
    assert {"Python", "memory", "disk", "GPU", "hub", "HF_TOKEN", "WANDB_API_KEY", "repository"} <= {
        f.subject for f in findings
    }
    assert all(finding.mend for finding in findings if finding.verdict != "ok")
    hub = next(finding for finding in findings if finding.subject == "hub")
    assert hub.verdict == "note"
    assert "not reachable" in hub.seen


def test_doctor_never_shows_a_secret(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    cli.main(["doctor"])
    shown = capsys.readouterr().out
    assert "HF_TOKEN: set" in shown
    assert "sesame" not in shown


def test_doctor_compares_with_the_lock(tmp_path):
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        "pytest==0.0.1 \\\n    --hash=sha256:00\n    # via x\n"
        "no-such-thing==1.0 \\\n    --hash=sha256:00\n"
        "elsewhere==1.0 ; sys_platform == 'plan9' \\\n    --hash=sha256:00\n"
    )
    seen = {finding.subject: finding for finding in doctor.packages(lock)}
    assert set(seen) == {"pytest", "no-such-thing"}
    assert seen["no-such-thing"].seen == "not installed, the lock has 1.0"
    assert "the lock has 0.0.1" in seen["pytest"].seen


def test_doctor_tells_a_blind_torch_from_no_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(runtime, "listed_gpus", lambda: ["Tesla T4, 15360 MiB, 440.33"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = checkup.gpu()
    assert finding.verdict == "bad"
    assert "Tesla T4" in finding.seen
    assert "driver" in finding.mend
