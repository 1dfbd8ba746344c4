"""Starts a server and ends it when the notebook's Python is gone, however it went. Run by `helpers.serve`, as a script.

The notebook holds one end of a pipe, the guard reads the other (its standard input). When the notebook closes it, or
dies (a crash, `kill -9`, a closed laptop's out-of-memory killer), the pipe ends, and the guard ends the server with
everything that it has started.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import psutil

GRACE = 10.0
"""Seconds between asking processes to end and ending them."""


def guard(command: list[str]) -> int:
    """Run `command` until it ends or standard input does; returns its exit code, or 0 when it was ended from here."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    closed = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.buffer.read()
        closed.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while server.poll() is None and not closed.wait(0.2):
        pass
    end(list(descendants(server.pid).values()))
    return 0 if closed.is_set() else server.wait()


def descendants(pid: int) -> dict[int, psutil.Process]:
    """The process `pid`, all that it has started, and what is left of its session; by process id."""
    found = {}
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid:  # also a child whose parent has died
                found[process.pid] = process
        except (OSError, AttributeError):  # gone, or a system without sessions
            continue
    try:
        top = psutil.Process(pid)
        return found | {process.pid: process for process in (top, *top.children(recursive=True))}
    except psutil.NoSuchProcess:
        return found


def end(processes: list[psutil.Process], grace: float = GRACE) -> None:
    """Ask the processes to end, then make them; psutil tells a process from a later one with the same id."""
    for act in ("terminate", "kill"):
        for process in processes:
            try:
                getattr(process, act)()
            except psutil.NoSuchProcess:
                pass
        deadline = time.monotonic() + grace
        while (processes := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one that has, and that nobody has asked for its exit code yet, does not run."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
