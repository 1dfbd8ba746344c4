"""The audit of the locks: what is vulnerable is named, and what was not looked up is not called clean."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools import audit
from tools.lessons import ROOT

pytestmark = pytest.mark.secrets
HASH = " \\\n    --hash=sha256:" + "0" * 64 + "\n"
LOCK = f"bad==1.0{HASH}good==2.0{HASH}elsewhere==3.0 ; python_version < '3'{HASH}"
KNOWN = {
    "id": "PYSEC-1",
    "summary": "runs what it reads",
    "aliases": ["CVE-1"],
    "affected": [{"package": {"name": "bad", "ecosystem": "PyPI"}, "ranges": [
        {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}
    ]}],
}  # fmt: skip


class Osv(BaseHTTPRequestHandler):
    """As much of osv.dev as is asked; names that it was asked for are kept on the server."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked["package"]["name"])
        found = self.server.known.get(asked["package"]["name"], [])
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"vulns": found} if found else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    server.known, server.status, server.asked = {}, 200, []
    server.options = ["-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}"]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def lock(tmp_path, monkeypatch) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(LOCK, encoding="utf-8")
    monkeypatch.setattr(audit, "LOCKS", (str(path),))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return path


@pytest.mark.notebook
def test_all_clean(service, capsys):
    assert audit.main(service.options) == 0
    assert "2 of 2 packages looked up" in capsys.readouterr().out
    assert sorted(service.asked) == ["bad", "good"]


@pytest.mark.notebook
def test_the_vulnerable_is_named_with_what_to_do(service, capsys):
    service.known["bad"] = [KNOWN]
    assert audit.main(service.options) == 1
    assert "bad 1.0: PYSEC-1 = CVE-1, mended in 1.1: make lock" in capsys.readouterr().out
    assert audit.main([*service.options, "--ignore-vuln", "PYSEC-1"]) == 0


@pytest.mark.notebook
@pytest.mark.parametrize("how", ["refused", "failing"])
def test_a_service_that_is_not_there_is_no_clean_bill(service, capsys, how):
    if how == "refused":
        service.server_close()
    service.status = 503
    assert audit.main(service.options) == 1
    said = capsys.readouterr().out
    assert "HTTPS_PROXY" in said and "No known" not in said and "Traceback" not in said


def test_packages_that_the_service_does_not_know_are_no_clean_bill(tmp_path, monkeypatch, capsys):
    """PyPI's answer through a mirror: pip-audit passes them all over and ends with 0."""
    packages = [{"name": name, "skip_reason": "not found on PyPI"} for name in "abcdef"]
    packages.append({"name": "g", "version": "1", "vulns": []})
    (tmp_path / "pip_audit.py").write_text(f"print({json.dumps({'dependencies': packages})!r})", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert audit.main([]) == 1
    said = capsys.readouterr().out
    assert (
        "1 of 7 packages looked up" in said and "6 of 7 packages (a, b, c, d, e, …)" in said and "HTTPS_PROXY" in said
    )


def test_every_lock_is_audited_and_the_documents_name_the_command(monkeypatch):
    monkeypatch.undo()
    locks = {
        str(path.relative_to(ROOT))
        for path in (*ROOT.glob("*.txt"), *ROOT.glob("tools/*.txt"), *ROOT.glob("lessons/*/*.txt"))
        if "--hash=sha256:" in path.read_text("utf-8")
    }
    assert set(audit.LOCKS) == locks
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (target,) = re.findall(r"^(\w+): setup\n\t.*python -m tools\.audit", makefile, re.MULTILINE)
    documents = [ROOT / name for name in ("README.md", "README.zh.md", ".github/workflows/weekly.yml")]
    for place in (makefile, *(path.read_text("utf-8") for path in documents)):
        assert f"make {target}" in place
