"""A model behind OpenAI's HTTP API on this machine, in a process of its own that always ends.

    server = Server("outputs/10/gptq", engine="vllm")
    OpenAI(base_url=server.base_url, api_key=server.api_key)
    server.stop()

The server is stopped when a cell of the notebook fails, when the kernel restarts, ends or is killed, and by `stop`.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from helpers import guard, runtime
from helpers.runtime import Words, say

WORDS: Words = {
    "en": {
        "no key asked": "{engine} asks nobody for the key: whoever works on this machine may ask this server. It listens "
        "on 127.0.0.1 alone, so nobody else can reach it.",
    },
    "zh": {
        "no key asked": "{engine} 不检查密钥：这台机器上谁都可以向它提问。它只监听 127.0.0.1，别的机器连不上。",
    },
}

ENGINES = ("vllm", "transformers")
INSTALL = (
    f"In a cell: !uv venv -q .vllm && uv pip install -q --python .vllm vllm=={runtime.VLLM}  (8 GB, once). "
    "A server is a program of its own, so it may have packages of its own."
)
NO_KEY = "none"  # OpenAI's client wants one, also where nobody checks it
NOT_FOR_A_SERVER = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD)$")  # variables whose names end so
_running: weakref.WeakSet[Server] = weakref.WeakSet()


class ServerFailed(runtime.Stop):
    """The server did not start, or ended by itself; the text holds the end of its log."""


class Server:
    """One model, served by `engine` at `url` (only for this machine) until `stop`.

    `engine` is "vllm" (on a GPU), "transformers" (`transformers serve`, anywhere), or the path of a vllm program in
    another environment. `options` are the engine's own command-line options: {"max-model-len": 2048}; True is a flag.
    A running server of the same engine, model and options is stopped first: the cell that started it runs again. Raises
    ServerFailed, with the log's end, when it does not answer within `timeout` seconds.
    """

    def __init__(
        self,
        model: str | Path,
        engine: str = "vllm",
        options: Mapping[str, Any] | None = None,
        *,
        api_key: str | None = None,
        port: int = 0,
        timeout: float = 600,
        log: str | Path | None = None,
    ) -> None:
        self.port = port or runtime.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.base_url = f"{self.url}/v1"
        self.model = str(Path(model).resolve()) if Path(model).is_dir() else str(model)
        self.api_key = api_key or NO_KEY
        self.engine = engine
        self.log = Path(log or f"outputs/servers/{self.port}.log").resolve()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._guard: subprocess.Popen[bytes] | None = None
        self._what = engine, self.model, dict(options or {})
        for twin in [server for server in _running if server._what == self._what]:
            twin.stop()
        if answers(self.url):
            raise ServerFailed(
                f"port {self.port} is taken: something answers there. Leave `port` out to get a free one."
            )
        _watch_cells()
        _running.add(self)
        began = time.perf_counter()
        line = command(engine, self.model, self.port, options or {})
        self._guard = guard.start(line, self.log, environment(engine, self.model, api_key))
        try:
            self._wait(timeout)
        except BaseException:  # also when the student interrupts the waiting
            self.stop()
            raise
        self.seconds = time.perf_counter() - began
        print(f"{Path(self.model).name}: {Path(engine).name} answers at {self.base_url} after {self.seconds:.0f} s")
        if api_key and engine == "transformers":  # `transformers serve` knows no key
            print(say(WORDS, "no key asked", engine=engine))

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not answers(self.url):
            if not self.alive:
                raise ServerFailed(f"{self.engine} ended before it answered. The end of its log:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"{self.engine} did not answer in {timeout:.0f} s. The end of its log:\n{self.tail()}"
                )
            time.sleep(0.2)

    @property
    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self._guard is not None and self._guard.poll() is None

    def tail(self, lines: int = 25) -> str:
        """The last lines of the server's log, without the key."""
        return "\n".join(self._without_key(self._said()).splitlines()[-lines:])

    def _said(self) -> str:
        """What the log holds; nothing when somebody has deleted it."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.is_file() else ""

    def _without_key(self, text: str) -> str:
        """What is written into the log is up to a program of others, which may well tell its environment."""
        if len(self.api_key) < 8:  # no secret, and perhaps a word of every second line
            return text
        key = str(self.api_key)
        for form in {key, repr(key)[1:-1], json.dumps(key)[1:-1]}:
            text = text.replace(form, "***")
        return text

    def stop(self) -> None:
        """End the server and all that it started; a second call does nothing."""
        if self._guard is None:
            return
        guard.stop(self._guard)
        self._guard = None
        _running.discard(self)
        said = self._said()
        if (clean := self._without_key(said)) != said:
            self.log.write_text(clean, encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def stop_all() -> list[str]:
    """Stop every server that this Python has started; returns their addresses.

    What goes wrong with one (its log cannot be written, say) is raised when all have been stopped.
    """
    stopped = [server.url for server in list(_running) if server.alive]
    faults = []
    for server in list(_running):
        try:
            server.stop()
        except Exception as error:
            faults.append(error)
    if faults:
        raise faults[0]
    return stopped


def command(engine: str, model: str, port: int, options: Mapping[str, Any]) -> list[str]:
    """The command line that serves `model`; raises ServerFailed for an engine that is not there, or a key among
    `options`.
    """
    if {"api-key", "api_key"} & options.keys():
        raise ServerFailed(
            "A command line can be read by everyone on a machine. Take the key out of the options and give it as "
            'Server(…, api_key=runtime.secret("VLLM_API_KEY")).'
        )
    if engine == "transformers":  # by itself it computes as the weights are stored: bfloat16, where no hardware has it
        program = [sys.executable, "-m", "transformers.cli.transformers"]
        options = {"dtype": str(runtime.dtype()).removeprefix("torch."), **options}
    else:
        program = [find_vllm(engine)]
    given = [part for name, value in options.items() for part in _option(name, value)]
    return [*program, "serve", model, "--host", "127.0.0.1", "--port", str(port), *given]


def _option(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", str(value)]


def find_vllm(engine: str = "vllm") -> str:
    """The vllm program: `engine` if it is a path, else `.vllm/bin/vllm` in the course, this Python's, or PATH's."""
    if engine != "vllm":
        if shutil.which(engine):
            return str(Path(shutil.which(engine)).absolute())
        raise ServerFailed(f"ENGINE {engine!r} is no program. Use {', '.join(map(repr, ENGINES))} or the path of vllm.")
    places = [str(runtime.root() / ".vllm" / "bin"), str(Path(sys.executable).parent)]
    places += filter(None, os.environ.get("PATH", "").split(os.pathsep))  # an empty one would be the current folder
    found = shutil.which("vllm", path=os.pathsep.join(places))
    if not found:
        raise ServerFailed(f"vLLM is not installed. {INSTALL} Or set ENGINE = 'transformers', which needs no GPU.")
    return found


def environment(engine: str, model: str, api_key: str | None) -> dict[str, str]:
    """The server's environment: the key goes here, because a command line can be read by everyone on a machine.

    Other secrets stay with the notebook; the Hub's token goes along where the model is a name on the Hub.
    """
    env = {name: value for name, value in os.environ.items() if not NOT_FOR_A_SERVER.search(name)}
    if Path(model).is_dir():
        env |= {"HF_HUB_OFFLINE": "1"}  # nothing is to be looked up
    elif "HF_TOKEN" in os.environ:
        env["HF_TOKEN"] = os.environ["HF_TOKEN"]
    if engine == "transformers":
        return env
    env.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")  # with it 0.26 waits for a download where there is no network
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    if api_key:
        env["VLLM_API_KEY"] = api_key
    return env


def answers(url: str, page: str = "/health") -> bool:
    """Whether a healthy server answers at `url`; proxies are not asked."""
    try:
        return httpx.get(url + page, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def refused(url: str) -> bool:
    """Whether nothing listens at `url` any more."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def _after_cell(result: Any) -> None:
    if not result.success and (stopped := stop_all()):
        print(
            f"The cell failed, so the server is stopped ({', '.join(stopped)}). Mend it, then start the server again."
        )


def _watch_cells() -> None:
    """Once: have IPython call `_after_cell`, and the interpreter `stop_all` when it ends."""
    atexit.unregister(stop_all)
    atexit.register(stop_all)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    for callback in list(shell.events.callbacks["post_run_cell"]):
        if callback.__name__ == _after_cell.__name__ and callback.__module__ == __name__:
            shell.events.unregister("post_run_cell", callback)
    shell.events.register("post_run_cell", _after_cell)
