"""The page on data sets: its code runs on the samples, in both languages, and its table names loaders that exist."""

import re

import pytest

from helpers import data
from tools.lessons import ROOT

FOLDER = ROOT / "lessons" / "11_data_quality"
LANGUAGES = ["en", "zh"]
SETS = [
    "FreedomIntelligence/HuatuoGPT-sft-data-v1",
    "Toyhom/Chinese-medical-dialogue-data",
    "FreedomIntelligence/Huatuo26M-Lite",
    "Flmc/DISC-Med-SFT",
    "CMKRG/QiZhenGPT",
    "michaelwzhu/ShenNong_TCM_Dataset",
    "UCSD-AI4H/Medical-Dialogue-System",
    "shibing624/MedicalGPT/blob/main/data/reward/dpo_zh_500.jsonl",
    "shibing624/DPO-En-Zh-20k-Preference",
]


def page(language: str) -> str:
    return (FOLDER / f"datasets.{language}.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page(language), re.DOTALL)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_on_the_page_runs(language, tmp_path, monkeypatch):
    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks(language):
        exec(block, names)
    assert names["again"].to_list() == names["mine"].to_list() and len(names["mine"]) == 18
    assert (len(names["mixed"]), len(names["unique"])) == (47, 12)
    assert names["texts"][0]["text"].endswith(names["shennong"][0]["answer"])


def test_both_pages_hold_the_same_code():
    def bare(code):
        return re.sub(r"\s*#.*", "", code)

    assert [bare(block) for block in blocks("en")] == [bare(block) for block in blocks("zh")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_has_every_data_set_with_a_source_and_a_loader(language):
    rows = [line for line in page(language).splitlines() if line.startswith("| [")]
    assert len(rows) == len(SETS)
    for row, name in zip(rows, SETS, strict=True):
        assert name in row and row.count("|") == 6
        assert (loaders := re.findall(r"load_\w+", row))
        assert all(hasattr(data, loader) or loader == "load_preferences" for loader in loaders)
