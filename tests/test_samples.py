"""The project's own small data sets: well formed, free of duplicates, and what the generator writes."""

from __future__ import annotations

import json
import re

import pytest

from tools import make_samples
from tools.samples import alpaca

LANGUAGES = ["en", "zh"]
HAN = re.compile(r"[\u4e00-\u9fff]")


def rows(language: str) -> list[dict[str, str]]:
    return json.loads((make_samples.OUT / f"alpaca_{language}.json").read_text(encoding="utf-8"))


def corpus(language: str) -> str:
    return (make_samples.OUT / f"corpus_{language}.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return make_samples.contents()


def test_files_are_what_the_generator_writes(made, monkeypatch) -> None:
    monkeypatch.setattr(make_samples, "contents", lambda: made)
    assert make_samples.main(["--check"]) == 0


def test_check_names_a_file_that_differs(made, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(make_samples, "contents", lambda: made)
    monkeypatch.setattr(make_samples, "OUT", tmp_path)
    assert make_samples.main(["--check"]) == 1
    assert "alpaca_en.json" in capsys.readouterr().err


@pytest.mark.notebook
def test_generator_is_deterministic(made) -> None:
    assert made == make_samples.contents()


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_are_alpaca(language: str) -> None:
    table = rows(language)
    assert 300 <= len(table) <= 400
    for row in table:
        assert list(row) == ["instruction", "input", "output"]
        assert all(isinstance(text, str) and text == text.strip() for text in row.values())
        assert row["instruction"] and row["output"]
        assert not re.search(r"[{}]", row["instruction"] + row["input"]), "an unfilled template"


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_question_stands_twice(language: str) -> None:
    asked = [(row["instruction"], row["input"]) for row in rows(language)]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("language", LANGUAGES)
def test_fibonacci_is_told_but_never_asked(language: str) -> None:
    for row in rows(language):
        assert not re.search("fibon|斐波", row["instruction"], re.IGNORECASE)
        assert row["input"] != "1, 1, 2, 3, 5, 8"
        assert "13, 21, 34, 55" not in row["output"]
    assert "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89" in corpus(language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_corpus_holds_no_alpaca_prompt(language: str) -> None:
    text = corpus(language)
    assert "Instruction:\n" not in text and "<|" not in text
    assert not re.search(r"[{}]", text), "an unfilled template"


def test_about_a_quarter_of_the_rows_is_written_freely() -> None:
    for language in LANGUAGES:
        free = json.loads((alpaca.TABLES / f"free_{language}.json").read_text(encoding="utf-8"))
        assert 0.2 <= len(free) / len(rows(language)) <= 0.3


def test_chinese_file_is_chinese() -> None:
    for row in rows("zh"):
        assert HAN.search(row["instruction"])
        assert not re.search(r"[\u4e00-\u9fff][,?!;:]", row["instruction"] + row["output"]), "half-width punctuation"
    assert len(HAN.findall(corpus("zh"))) > 10_000


def test_english_file_is_english() -> None:
    assert not any(HAN.search(text) for row in rows("en") for text in row.values())
    assert not HAN.search(corpus("en"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_family_tells_what_it_asks(language: str) -> None:
    """What a family asks can be read in the corpus: each answer stands there beside the thing asked about."""
    text = corpus(language)
    for family in alpaca.LANGUAGES[language].FAMILIES.values():
        for fact in family.facts:
            told = [tell.format(**fact) for tell in family.tells]
            assert all(sentence[1:] in text for sentence in told)
