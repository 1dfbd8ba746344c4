"""Two records of one bench: what got worse by more than the spread, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import cli
from tools.bench import compare
from tools.bench.compare import report
from tools.lessons import LessonError

RECORDS = Path(__file__).parent.parent / "benchmarks" / "records"


def record(**changes):
    row = {"name": "a", "batch": 8, "tokens_per_s": 100.0, "peak_gib": 6.0, "seconds_per_step": 2.0, "losses": [1.0]}
    whole = {"subject": "s", "hardware": "H", "date": "2026-01-01", "rows": [row], "ratios": {"a / b": 3.0}}
    return whole | {"rows": [row | changes]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tokens_per_s": 90.0}, ["a, batch 8: tokens_per_s 100 → 90, 10% worse"]),
        ({"tokens_per_s": 130.0}, ["a, batch 8: tokens_per_s 100 → 130, 30% better"]),
        ({"peak_gib": 6.6}, ["a, batch 8: peak_gib 6 → 6.6, 10% worse"]),
        ({"seconds_per_step": 1.0}, ["a, batch 8: seconds_per_step 2 → 1, 50% better"]),
        ({"tokens_per_s": 97.0, "peak_gib": 6.2}, []),  # within the spread
        ({"losses": [9.0]}, []),
        ({"peak_gib": 12.0, "tokens_per_s": 50.0, "seconds_per_step": 1.0}, ["peak_gib", "tokens_per_s", "seconds"]),
    ],
)
def test_what_changed_is_said_the_worst_first(changes, says) -> None:
    found, alone = compare.compare(record(), record(**changes))
    assert len(found) == len(says) and not alone
    assert all(text in str(change) for text, change in zip(says, found))


def test_a_record_may_say_its_own_spread() -> None:
    slow = record(tokens_per_s=90.0)
    assert compare.compare(record() | {"spread": 0.2}, slow) == ([], [])


def test_a_figure_has_the_spread_that_its_side_was_measured_with() -> None:
    slow = record(tokens_per_s=90.0, seconds_per_step=2.2, spread={"tokens_per_s": 0.12})
    (change,), _ = compare.compare(record(spread={"tokens_per_s": 0.01, "seconds_per_step": 0.02}), slow)
    assert change.figure == "seconds_per_step"  # 10 %; of the other the wider of both spreads counts
    (change,), _ = compare.compare(record(), record(tokens_per_s=97.0, spread={}) | {"ratios": {"a / b": 2.0}})
    assert change.figure == "a / b"
    wide = record() | {"ratios": {"a / b": 2.0}, "spread": 0.5}
    assert compare.compare(record(), wide) == ([], [])


def test_on_other_hardware_only_ratios_count() -> None:
    slow = record(tokens_per_s=10.0) | {"hardware": "other", "ratios": {"a / b": 2.0, "memory, a / b": 9.0}}
    (change,), _ = compare.compare(record(), slow)
    assert str(change) == "ratio: a / b 3 → 2, 33% worse"
    more = record() | {"ratios": {"memory, a / b": 0.4}}
    (change,), _ = compare.compare(more | {"ratios": {"memory, a / b": 0.2}}, more)
    assert change.worse == 1.0
    share = [record() | {"ratios": {"share of a": value}} for value in (0.5, 0.6)]
    (change,), _ = compare.compare(*share)
    assert change.worse == pytest.approx(0.2)


def test_a_side_that_only_one_record_has_is_named() -> None:
    found, alone = compare.compare(record(), record(name="b"))
    assert found == [] and alone == ["only in the new record: b, batch 8", "only in the old record: a, batch 8"]
    _, alone = compare.compare(record(), record() | {"ratios": {"a / c": 3.0}})
    assert alone == ["only in the new record: ratio a / c", "only in the old record: ratio a / b"]


def test_a_setting_that_only_one_record_knows_keeps_no_side_from_its_like() -> None:
    (change,), alone = compare.compare(record(), record(profiled=False, model="m", tokens_per_s=50.0))
    assert str(change) == "a, batch 8: tokens_per_s 100 → 50, 50% worse" and not alone
    new = record(model="m")
    new["rows"].append(new["rows"][0] | {"model": "n", "tokens_per_s": 1.0})  # only the new setting tells them apart
    found, alone = compare.compare(record(), new)
    assert found == [] and len(alone) == 3


def test_other_versions_and_settings_are_said(tmp_path) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(record() | {"versions": {"torch": "2.11", "polars": "2.1"}, "settings": {"steps": 3}}))
    new.write_text(json.dumps(record() | {"versions": {"torch": "2.12"}, "settings": {"steps": 3}}))
    said = report(old, new)
    assert "other versions: torch 2.11 → 2.12, polars 2.1 → none" in said and "other settings" not in said
    new.write_text(json.dumps(record() | {"versions": {"torch": "2.12"}, "settings": {"steps": 4}}))
    assert "other settings: steps 3 → 4" in report(old, new)
    assert report(old, old).endswith("nothing changed by more than the spread")


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_every_record_equals_itself_and_each_side_stands_alone(path) -> None:
    whole = json.loads(path.read_text("utf-8"))
    assert compare.compare(whole, whole) == ([], [])
    assert len({compare._name(row, None) for row in whole["rows"]}) == len(whole["rows"])
    slower = json.loads(json.dumps(whole))
    for row in slower["rows"]:
        row["a_setting_to_come"] = True
        for name, sign in compare._figures(row):
            row[name] *= 2 if sign > 0 else 0.5
    changes, alone = compare.compare(whole, slower)
    assert not alone and len(changes) >= len(whole["rows"]) // 2 and all(change.worse > 0 for change in changes)


def test_what_is_no_record_is_refused(tmp_path) -> None:
    good, other = RECORDS / "sft_h200.json", RECORDS / "dpo_memory.json"
    with pytest.raises(LessonError, match="not one subject"):
        report(good, other)
    for text, says in (("[]", "not a record"), ("{", "r.json: "), ("{}", "not a record")):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(LessonError, match=says):
            report(good, tmp_path / "r.json")
    with pytest.raises(LessonError, match=r"none\.json"):
        report(good, tmp_path / "none.json")


def test_the_command_lists_compares_and_runs(capsys) -> None:
    path = str(RECORDS / "sft_h200.json")
    assert cli.main(["bench", "--compare", path, path]) == 0
    assert "nothing changed by more than the spread" in capsys.readouterr().out
    assert cli.main(["bench"]) == 0
    assert "medical" in capsys.readouterr().out
    assert cli.main(["bench", "medical", "--side", "nobody"]) == 2
