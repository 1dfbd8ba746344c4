"""Two records of one subject: what got slower or larger by more than the spread.

    course bench --compare OLD.json NEW.json

Absolute figures are compared when both records come from the same hardware; ratios always, because both of their
sides ran on one machine. The spread is what a bench measured of a side in several rounds, and else taken for granted.
A report: it says what changed and decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.lessons import LessonError

SPREAD = 0.05  # of two runs of one side on one machine, where neither its row nor the record says
# What ends like this is a figure, and better when it is smaller or larger; all else says which side it is.
SMALLER = ("seconds", "seconds_per_step", "seconds_to_start", "seconds_to_first_loss", "_s", "_ms", "_gib")
LARGER = ("tokens_per_s", "_per_s", "_per_s_one", "_per_s_many", "_batch_1", "_batch_32", "efficiency")
NEITHER = ("losses", "wall_seconds", "useful_tokens_per_step", "tokens_per_step", "versions", "digest", "spread")


@dataclass(frozen=True)
class Change:
    """One figure of one side, before and now; `worse` by how much of the old figure (negative: better)."""

    side: str
    figure: str
    old: float
    new: float
    worse: float

    def __str__(self) -> str:
        word = "worse" if self.worse > 0 else "better"
        return f"{self.side}: {self.figure} {self.old:g} → {self.new:g}, {abs(self.worse):.0%} {word}"


def compare(old: dict[str, Any], new: dict[str, Any]) -> tuple[list[Change], list[str]]:
    """What changed by more than the spread, and which sides and ratios only one of the records has.

    Raises LessonError for records of two subjects.
    """
    if old["subject"] != new["subject"]:
        raise LessonError(f"not one subject: {old['subject']!r} and {new['subject']!r}; compare records of one bench.")
    before, after = _sides(old, new)
    alone = _alone("", before, after)
    changes = []
    if old["hardware"] == new["hardware"]:
        for side in before.keys() & after.keys():
            changes += _changes(side, (old, before[side]), (new, after[side]))
    ratios, now = (record.get("ratios", {}) for record in (old, new))
    alone += _alone("ratio ", ratios, now)
    spread = max(record.get("spread", SPREAD) for record in (old, new))
    for name in ratios.keys() & now.keys():
        sign = 1 if "memory" in name or "share" in name else -1  # less is better; all other ratios are of speed
        changes += _change("ratio", name, (ratios[name], now[name]), sign, spread)
    return sorted(changes, key=lambda change: -change.worse), alone


def report(old: Path, new: Path) -> str:
    """`compare` as text, with what the two records were measured on.

    Raises LessonError for a file that is not a record.
    """
    records = [_read(path) for path in (old, new)]
    changes, alone = compare(*records)
    facts = [f"{path}: {record['hardware']}, {record['date']}" for path, record in zip((old, new), records)]
    if records[0]["hardware"] != records[1]["hardware"]:
        facts.append("two kinds of hardware: only ratios are compared")
    for what in ("versions", "settings"):
        before, after = (record.get(what, {}) for record in records)
        changed = [name for name in before | after if before.get(name) != after.get(name)]
        if changed and before:
            told = (f"{name} {before.get(name, 'none')} → {after.get(name, 'none')}" for name in changed)
            facts.append(f"other {what}: {', '.join(told)}")
    return "\n".join([*facts, *alone, *(map(str, changes) if changes else ["nothing changed by more than the spread"])])


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LessonError(f"{path}: {error}. Give a record from benchmarks/records/.") from None
    if not isinstance(record, dict) or not {"subject", "hardware", "date", "rows"} <= record.keys():
        raise LessonError(f"{path}: not a record of a bench. Give one from benchmarks/records/.")
    return record


def _changes(
    side: str, old: tuple[dict[str, Any], dict[str, Any]], new: tuple[dict[str, Any], dict[str, Any]]
) -> Iterator[Change]:
    """What changed of one side; `old` and `new` are a record and that side's row."""
    for name, sign in _figures(old[1]):
        if isinstance(new[1].get(name), int | float):
            spread = max(_spread(record, row, name) for record, row in (old, new))
            yield from _change(side, name, (old[1][name], new[1][name]), sign, spread)


def _change(side: str, figure: str, values: tuple[float, float], sign: int, spread: float) -> Iterator[Change]:
    """The change from the first value to the second, where it is larger than the spread."""
    old, new = values
    if old and abs(new - old) / abs(old) > spread:
        yield Change(side, figure, old, new, sign * (new - old) / old)


def _spread(record: dict[str, Any], row: dict[str, Any], figure: str) -> float:
    """Half the range of a figure over its median; a figure that all rounds agreed on has the usual spread."""
    return row["spread"].get(figure, SPREAD) if "spread" in row else record.get("spread", SPREAD)


def _alone(what: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What only one of two records has, by name."""
    found = {name: "old" if name in before else "new" for name in before.keys() ^ after.keys()}
    return sorted(f"only in the {record} record: {what}{name}" for name, record in found.items())


def _figures(row: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The measured figures of a row, each with 1 when more is worse and −1 when more is better."""
    for name, value in row.items():
        if name in NEITHER or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if name.endswith(LARGER) or name.startswith("efficiency"):
            yield name, -1
        elif name.endswith(SMALLER):
            yield name, 1


def _sides(old: dict[str, Any], new: dict[str, Any]) -> list[dict[str, dict[str, Any]]]:
    """The rows of each record by what they are of: all of a row that was set and not measured.

    A setting that a bench has got since the older record was made would keep every side from its like; it counts only
    where sides could not be told apart without it.
    """
    both = set.intersection(*({name for row in record["rows"] for name in _set(row)} for record in (old, new)))
    for known in (both, None):
        found = [{_name(row, known): row for row in record["rows"]} for record in (old, new)]
        if all(len(sides) == len(record["rows"]) for sides, record in zip(found, (old, new))):
            break
    return found


def _set(row: dict[str, Any]) -> dict[str, Any]:
    measured = {name for name, _ in _figures(row)} | set(NEITHER)
    return {
        name: value
        for name, value in row.items()
        if name not in measured and not isinstance(value, float | list | dict)
    }


def _name(row: dict[str, Any], known: set[str] | None) -> str:
    """What was set, in words; of the settings in `known` alone, where it is given."""
    told = {name: value for name, value in _set(row).items() if known is None or name in known}
    return ", ".join(f"{value}" if name == "name" else f"{name} {value}" for name, value in told.items())
