"""A file that may not be read, for the tests of bad input: a mode would not stop root, who runs them in containers."""

from __future__ import annotations

from pathlib import Path

import pytest


def close(monkeypatch: pytest.MonkeyPatch, path: Path, function: str = "open") -> None:
    """Let this function of Path, such as `open` or `stat`, refuse `path` as the system would."""
    real = getattr(Path, function)

    def refuse(self, *args, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **options)

    monkeypatch.setattr(Path, function, refuse)
