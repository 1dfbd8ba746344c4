"""What the lessons need, as their own lesson.toml files say it, beside what this machine has."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from helpers import runtime

WORDS = {
    "en": {
        "columns": ("lesson", "GPU memory", "disk", "minutes (GPU / trimmed)", "here"),
        "fits": "fits",
        "trimmed": "trimmed: course run {number}",
        "vram": "GPU too small ({have:.0f} GB): take a smaller MODEL, or {trimmed}",
        "disk": "disk too full ({have:.0f} GB free): make room, or {trimmed}",
    },
    "zh": {
        "columns": ("课程", "显存", "磁盘", "分钟（GPU / 精简版）", "在这台机器上"),
        "fits": "能跑",
        "trimmed": "精简版：course run {number} --lang zh",
        "vram": "显存不够（{have:.0f} GB）：换小一点的 MODEL，或者{trimmed}",
        "disk": "磁盘不够（剩 {have:.0f} GB）：腾点地方，或者{trimmed}",
    },
}


def lessons(root: Path | None = None) -> list[dict[str, Any]]:
    """The lessons in the order of course.toml: `number`, and what lesson.toml says."""
    root = root or runtime.root()
    slugs = tomllib.loads((root / "course.toml").read_text(encoding="utf-8"))["lessons"]
    read = [tomllib.loads((root / "lessons" / slug / "lesson.toml").read_text(encoding="utf-8")) for slug in slugs]
    return [{"number": slug.split("_", 1)[0]} | facts for slug, facts in zip(slugs, read)]


def against_this_machine(language: str = "en", root: Path | None = None) -> list[dict[str, str]]:
    """One row a lesson: what it needs, how long it takes, and whether it fits here as it stands or trimmed."""
    words, here = WORDS[language], runtime.gpu()
    rows = []
    for lesson in lessons(root):
        needs, minutes = lesson["needs"], lesson["minutes"]
        trimmed = words["trimmed"].format(number=lesson["number"])
        verdict = words["fits"]
        if needs["vram_gb"] and here is None:
            verdict = trimmed
        elif here and here.vram_gb < needs["vram_gb"]:
            verdict = words["vram"].format(have=here.vram_gb, trimmed=trimmed)
        elif lacking := runtime.lacking_disk(needs["disk_gb"], own=root):
            verdict = words["disk"].format(have=lacking[0][2], trimmed=trimmed)
        cells = (
            f"{lesson['number']} {lesson['title'][language]}",
            f"{needs['vram_gb']} GB" if needs["vram_gb"] else "–",
            f"{needs['disk_gb']} GB" if needs["disk_gb"] else "–",
            f"{minutes['gpu']} / {minutes['cpu']}",
            verdict,
        )
        rows.append(dict(zip(words["columns"], cells)))
    return rows
