"""Look at this machine and say, line by line, whether the course will run on it, and what to do if not.

What a student's notebook asks as well stands in `helpers.checkup`; here is what only a clone has: lock and repository.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from helpers import checkup, platform_setup
from helpers.checkup import Finding
from tools.lessons import ROOT, Course


def examine(course: Course) -> Iterator[Finding]:
    """All findings, cheap ones first; no line raises."""
    yield checkup.python()
    yield from packages()
    yield checkup.guarded("memory", checkup.memory)
    yield checkup.guarded("disk", lambda: checkup.disk(course.root))
    yield checkup.guarded("GPU", checkup.gpu)
    yield checkup.guarded("hub", checkup.hub)
    yield from map(checkup.secret, checkup.SECRETS)
    yield repository(course)


def packages(lock: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """Installed versions against the lock: one line when all agree, else one for each that does not."""
    pinned = locked(lock)
    wrong = 0
    for name, wanted in pinned.items():
        seen = platform_setup.version(name) or "not installed"
        if seen.split("+")[0] != wanted:
            wrong += 1
            yield Finding(name, "bad", f"{seen}, the lock has {wanted}", "run make setup (in a clone of the course)")
    if not wrong:
        yield Finding("packages", "ok", f"all {len(pinned)} as the lock has them")


def locked(lock: Path) -> dict[str, str]:
    """The lock's pins that apply to this interpreter and platform: name → version."""
    pins = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and line[0].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                pins[requirement.name] = next(iter(requirement.specifier)).version
    return pins


def repository(course: Course) -> Finding:
    if course.repository.startswith("your_account/"):
        return Finding("repository", "note", course.repository,
                       "badges and Colab need yours: set `repository` in course.toml, then course build")  # fmt: skip
    return Finding("repository", "ok", course.repository)
