"""A process that ends at the latest with the notebook that started it, however that went: servers, long stages.

This file is two things: `start` and `stop` for the notebook, and, run as a script, the guard between the two. The
notebook holds one end of a pipe, the guard reads the other (its standard input). When the notebook closes it, or dies
(a crash, `kill -9`, a laptop's out-of-memory killer), the pipe ends, and the guard ends the command with everything
that it has started.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

GUARD = [sys.executable, str(Path(__file__).resolve())]
GRACE = 10.0
"""Seconds between asking processes to end and ending them."""


def start(
    command: Sequence[str], log: Path, env: Mapping[str, str], cwd: Path | None = None, interruptible: bool = False
) -> subprocess.Popen[bytes]:
    """Start a command under a guard, in the folder `cwd`, all that it says into `log`.

    When the notebook is interrupted, an `interruptible` one ends; another, as a server, goes on.

    The process returned is the guard: it runs as long as the command, and has its exit code in the end (128 more than
    the number of the signal that ended it, as in a shell).
    """
    guarded = [*GUARD, *map(str, command)]
    with log.open("wb") as out:
        return subprocess.Popen(
            guarded, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=cwd,
            start_new_session=not interruptible,
        )  # fmt: skip


def command(process: subprocess.Popen[bytes]) -> list[str]:
    """What `start` was given."""
    return process.args[len(GUARD) :]


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what `start` has started, and all that it has started in turn; nothing happens when it has ended already."""
    process.stdin.close()
    process.terminate()  # the guard hears this also where a process forked from the notebook holds the pipe open
    try:
        process.wait(timeout=3 * GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def watch(command: list[str]) -> int:
    """Run `command` until it ends, standard input does, or a signal asks; its exit code.

    Ended from here, that is never 0: what was cut off is not done.
    """
    closed, asked = threading.Event(), [signal.SIGTERM]

    def ask(number: int, _: object) -> None:
        asked[:] = [number]
        closed.set()

    for number in (signal.SIGINT, signal.SIGTERM):  # before there is a command that they could leave behind
        signal.signal(number, ask)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait_for_the_end() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would hold up this Python's own end
            pass
        closed.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    family: dict[int, psutil.Process] = {}
    while child.poll() is None and not closed.wait(0.2):
        family |= descendants(child.pid)  # a child whose parent has died can no longer be found through it
    code = child.poll()
    family |= descendants(child.pid)
    end(list(family.values()))
    if code is None:
        code = -asked[0]
    return code if code >= 0 else 128 - code


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
            except psutil.Error:  # it has ended, or is another user's: the others are to end all the same
                pass
        deadline = time.monotonic() + grace
        while (processes := [process for process in processes if runs(process)]) and time.monotonic() < deadline:
            time.sleep(0.05)


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; one that has, and that nobody has asked for its exit code yet, does not run."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
