"""A real browser for tests: Chromium without a window, driven over its DevTools protocol. No package of its own."""

from __future__ import annotations

import atexit
import base64
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """with Browser() as page: page.open(url); page.run("document.title")"""

    def __init__(self, seconds: float = 30) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("no Chromium here: apt install chromium")
        self.seconds, self._ids, self.hosts = seconds, itertools.count(1), set()
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={self._home.name}", "--window-size=1200,900"]
        log = Path(self._home.name, "log")  # not a pipe, which nobody would read on: it fills up, and Chromium waits
        with log.open("wb") as said:
            self._process = subprocess.Popen([program, *options, "about:blank"], stdout=said, stderr=said)
        atexit.register(self._process.kill)  # should what follows fail
        deadline = time.monotonic() + seconds
        while not (found := re.findall(r"ws://\S+(?=\s)", log.read_text(errors="replace"))):
            assert self._process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.05)
        self._opened = connect(found[0], max_size=None, proxy=None)
        self._socket = self._opened.__enter__()
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._send("Network.enable")

    _session: str | None = None

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            got = json.loads(self._socket.recv(timeout=self.seconds))
            if got.get("method") == "Network.requestWillBeSent":
                self.hosts.add(urlsplit(got["params"]["request"]["url"]).hostname)
            if got.get("id") == number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']}")
                return got["result"]

    def open(self, url: str) -> None:
        self._send("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self._send("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, script: str) -> None:
        """Ask until the expression is truthy."""
        deadline = time.monotonic() + self.seconds
        while not self.run(f"!!({script})"):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{script} stayed false; the page says:\n{self.run('document.body.innerText')}")
            time.sleep(0.1)

    def type(self, text: str) -> None:
        """Into whatever has the focus, as a keyboard does."""
        self._send("Input.insertText", text=text)

    def enter(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self._send(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
            )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot")["data"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)
        self._process.terminate()
        self._process.wait(timeout=20)
        self._home.cleanup()
