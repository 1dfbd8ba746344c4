"""helpers.checkup and helpers.catalog: verdicts with a mend, in either language, and nothing that raises."""

import base64
import re
import threading
import types
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from helpers import checkup, report, runtime
from helpers.catalog import against_this_machine, lessons
from tools import doctor
from tools.lessons import load_course

LANGUAGES = ["en", "zh"]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    for name in (*checkup.SECRETS, "COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(checkup.speed, "__defaults__", ("en", 0.02))  # a second is not needed here


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_line_that_is_not_ok_has_a_mend(language, tmp_path):
    findings = list(checkup.examine(language, tmp_path))
    assert len(findings) == 10 == len({finding.subject for finding in findings})
    assert all(finding.mend for finding in findings if finding.verdict != "ok")
    assert list(tmp_path.iterdir()) == []  # the file of the speed test is gone
    assert {f.subject: f.verdict for f in findings}["HF_TOKEN"] == "note"


def test_a_check_that_breaks_is_a_line_like_the_others(monkeypatch, tmp_path):
    def broken(*arguments):
        raise RuntimeError("the driver hangs")

    monkeypatch.setattr(checkup, "speed", broken)
    monkeypatch.setattr(checkup.psutil, "virtual_memory", broken)
    lines = {finding.subject: finding for finding in checkup.examine("en", tmp_path)}
    assert len(lines) == 10
    assert lines["multiplying"].seen == lines["memory"].seen == "could not be checked: RuntimeError: the driver hangs"
    assert lines["memory"].mend


def test_a_secret_is_never_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_sesame")
    findings = list(checkup.examine("en", tmp_path))
    assert "sesame" not in repr(findings) and "sesame" not in report.side_by_side(checkup.as_rows(findings)).data
    assert {f.subject: f.verdict for f in findings}["HF_TOKEN"] == "ok"


@pytest.mark.parametrize(("free", "verdict"), [(2, "bad"), (20, "note"), (80, "ok")])
def test_disk(monkeypatch, tmp_path, free, verdict):
    usage = types.SimpleNamespace(free=free * runtime.GB)
    monkeypatch.setattr(checkup.shutil, "disk_usage", lambda folder: usage)
    finding = checkup.disk(tmp_path)
    assert finding.verdict == verdict and finding.seen == f"{free} GiB free"


def test_gpu_memory_that_another_program_holds(monkeypatch):
    monkeypatch.setattr(runtime, "listed_gpus", lambda: ["Tesla T4, 15360 MiB, 550.54"])
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runtime, "gpu", lambda: runtime.Gpu("Tesla T4", 14.7, (7, 5)))
    for free, verdict in ((6, "note"), (14, "ok")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index, free=free: (free * runtime.GB, 14.7 * runtime.GB))
        finding = checkup.gpu()
        assert finding.verdict == verdict and f"{free}.0 of 14.7 GB free" in finding.seen
        assert "float16" in finding.seen and "550.54" in finding.seen


@contextmanager
def hub_that_answers(status, **headers):
    """A Hub on this machine that answers one request: its port, and what the request said of who asks."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Authorization"])
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    asked = []
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        yield server.server_port, asked


@pytest.mark.parametrize(("status", "verdict"), [(200, "ok"), (503, "note")])
def test_a_hub_that_answers(monkeypatch, status, verdict):
    with hub_that_answers(status) as (port, asked):
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}/")
        finding = checkup.hub()
    assert finding.verdict == verdict and asked == [None]
    assert ("answers after" if verdict == "ok" else "answers with 503") in finding.seen


def test_a_mirrors_login_goes_along_and_is_not_shown(monkeypatch):
    with hub_that_answers(200) as (port, asked):
        monkeypatch.setenv("HF_ENDPOINT", f"http://me:p%40ss@127.0.0.1:{port}")
        finding = checkup.hub()
    assert asked == ["Basic " + base64.b64encode(b"me:p@ss").decode()]
    assert finding.verdict == "ok" and "ss@" not in finding.seen


def test_a_mirrors_login_does_not_go_along_to_another_host(monkeypatch):
    with (
        hub_that_answers(200) as (other, asked_there),
        hub_that_answers(302, Location=f"http://localhost:{other}/") as (port, asked),
    ):
        monkeypatch.setenv("HF_ENDPOINT", f"http://me:password@127.0.0.1:{port}")
        assert checkup.hub().verdict == "ok"
    assert asked[0].startswith("Basic ") and asked_there == [None]


@pytest.mark.parametrize("endpoint", ["https://hf mirror.com", "https://[bad"])
def test_an_address_that_is_none_is_a_finding_of_the_doctor(tiny, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "could not be checked" in {found.subject: found for found in doctor.examine(tiny)}["hub"].seen


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(checkup.platform_setup, "unmet", lambda deep: {"trl": "trl is missing"})
    finding = checkup.packages()
    assert (finding.verdict, finding.seen) == ("bad", "trl is missing") and finding.mend


def test_a_slow_disk_is_noted(monkeypatch, tmp_path):
    times = iter([0.0, 10.0])
    monkeypatch.setattr(checkup.time, "perf_counter", lambda: next(times))
    finding = checkup.writing(tmp_path, megabytes=1)
    assert finding.verdict == "note" and finding.mend


# What the lessons need


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_row_a_lesson_in_the_order_of_the_course(monkeypatch, language):
    monkeypatch.setattr(runtime, "gpu", lambda: None)
    rows = against_this_machine(language)
    course = load_course()
    assert [next(iter(row.values())) for row in rows] == [
        f"{x.number} {x.facts['title'][language]}" for x in course.lessons
    ]
    assert all("course run" in list(row.values())[-1] for row in rows)  # without a GPU: trimmed
    assert [lesson["needs"] for lesson in lessons()] == [lesson.facts["needs"] for lesson in course.lessons]


def test_fits_or_not(tiny, monkeypatch):
    facts = tiny.root / "lessons/01_tiny/lesson.toml"
    needs = re.sub(r"\[needs\][^\[]*", "[needs]\nvram_gb = 12\ndisk_gb = 30\n\n", facts.read_text("utf-8"))
    facts.write_text(needs, "utf-8")

    def verdict(vram, disk):
        monkeypatch.setattr(runtime, "gpu", lambda: runtime.Gpu("card", vram, (8, 0)))
        usage = types.SimpleNamespace(total=100 * runtime.GB, free=disk * runtime.GB)
        monkeypatch.setattr(runtime.shutil, "disk_usage", lambda at: usage)
        (row,) = against_this_machine("en", Path(tiny.root))
        return row["here"]

    assert verdict(12, 30) == "fits"
    assert verdict(11.9, 30).startswith("GPU too small (12 GB)")
    assert verdict(80, 29).startswith("disk too full (29 GB free)")


def test_kaggles_small_folder_need_not_hold_the_downloads(tiny, monkeypatch):
    facts = tiny.root / "lessons/01_tiny/lesson.toml"
    needs = re.sub(r"\[needs\][^\[]*", "[needs]\nvram_gb = 0\ndisk_gb = 40\n\n", facts.read_text("utf-8"))
    facts.write_text(needs, "utf-8")
    monkeypatch.setenv("HF_HOME", "/")
    large = types.SimpleNamespace(total=8000 * runtime.GB, free=60 * runtime.GB)
    for total, free, here in (
        (19.5, 10, "fits"), (19.5, 9, "disk too full (9 GB free)"),
        (8000, 60, "fits"), (8000, 11, "fits"), (8000, 9, "disk too full (9 GB free)"),  # another disk of that size
    ):  # fmt: skip
        own = types.SimpleNamespace(total=total * runtime.GB, free=free * runtime.GB)
        monkeypatch.setattr(runtime.shutil, "disk_usage", lambda at, own=own: large if at == Path("/") else own)
        (row,) = against_this_machine("en", Path(tiny.root))
        assert row["here"].startswith(here)


def test_a_secret_that_cannot_be_sent_is_a_finding_and_no_error(monkeypatch):
    monkeypatch.setattr(checkup.runtime, "platform_name", lambda: "local")
    monkeypatch.setenv("HF_TOKEN", "hf_abc\ndef")
    found = checkup.secret("HF_TOKEN")
    assert found.verdict == "bad" and "HF_TOKEN" in found.seen and "abc" not in str(found)
