"""The benches' records and what is worked out from them; the measuring itself needs a GPU."""

import json
from dataclasses import asdict

import pytest

from tools.bench import sft, vram
from tools.lessons import ROOT

RECORDS = ROOT / "benchmarks" / "records"


def test_the_sft_record_is_of_the_sides_that_the_bench_has():
    record = json.loads((RECORDS / "sft_h200.json").read_text(encoding="utf-8"))
    names = asdict(next(sft.sides()))
    assert [{name: row[name] for name in names} for row in record["rows"]] == [asdict(side) for side in sft.sides()]
    assert record["ratios"] == sft.ratios(record["rows"])


def test_packed_sides_did_the_same_work():
    record = json.loads((RECORDS / "sft_h200.json").read_text(encoding="utf-8"))
    first, *others = (row for row in record["rows"] if row["packing"])
    for other in others:
        assert other["useful_tokens_per_step"] == first["useful_tokens_per_step"]
        assert other["losses"] == pytest.approx(first["losses"], abs=2e-3)


def test_ratios_take_the_best_side_that_keeps_checkpointing():
    def row(engine, speed, packing=True, checkpointing=True):
        return {"engine": engine, "useful_tokens_per_s": speed, "packing": packing, "checkpointing": checkpointing}

    rows = [row("trl", 10, packing=False), row("trl", 40), row("unsloth", 50), row("unsloth", 90, checkpointing=False)]
    assert sft.ratios(rows) == {"course / tutorial": 5.0, "course / TRL's best": 1.25}


def test_the_memory_record_holds_every_case():
    record = json.loads((RECORDS / "vram_h200.json").read_text(encoding="utf-8"))
    names = asdict(next(vram.cases()))
    assert [{name: row[name] for name in names} for row in record["rows"]] == [asdict(case) for case in vram.cases()]


def test_rows_have_the_recorded_lengths_and_one_end_each():
    rows = sft.rows(end=2, repeat=1)
    lengths = json.loads((ROOT / "benchmarks" / "alpaca_lengths.json").read_text(encoding="utf-8"))["lengths"]
    assert [len(row) for row in rows] == lengths
    assert all(row[-1] == 2 and 2 not in row[:-1] for row in rows)
