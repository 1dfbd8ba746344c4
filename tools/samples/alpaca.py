"""Instruction rows in the Alpaca format, and plain text about the same facts."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tools.samples import en, zh
from tools.samples.family import Fact, Family

TABLES = Path(__file__).parent
LANGUAGES: dict[str, ModuleType] = {"en": en, "zh": zh}
FACTS_ON_A_PAGE = 6

Row = dict[str, str]


def alpaca_rows(families: Mapping[str, Family], free: list[Row], rng: random.Random) -> list[Row]:
    """The instruction rows: each family's questions and the free-form rows, shuffled."""
    rows = list(free)
    for family in families.values():
        facts = rng.sample(family.facts, family.rows if family.rows is not None else len(family.facts))
        for number, fact in enumerate(facts):
            ask = family.asks[number % len(family.asks)]
            rows.append(
                dict(zip(("instruction", "input", "output"), (part.format(**fact) for part in ask), strict=True))
            )
    rng.shuffle(rows)
    return rows


def card(family: Family, fact: Fact, frames: ModuleType, rng: random.Random) -> str:
    """A short quiz card about one fact: a question or a task in one of the language's frames."""
    wording = rng.choice(family.quiz + family.tasks)
    frame = rng.choice(frames.QUIZ_FRAMES if wording in family.quiz else frames.TASK_FRAMES)
    parts = {"question": wording, "task": wording, "given": family.given, "answer": family.answer}
    return frame.format(**{name: text.format(**fact) for name, text in parts.items()})


def paragraphs(families: Mapping[str, Family], frames: ModuleType, prose: str, rng: random.Random) -> list[str]:
    """Plain text: every fact in every way of telling it, list pages and prose, shuffled."""
    texts = prose.strip().split("\n\n") * 2
    for family in families.values():
        told = [tell.format(**fact) for fact in family.facts for tell in family.tells]
        texts += [text[0].upper() + text[1:] for text in told]
        texts += [card(family, fact, frames, rng) for fact in family.facts for _ in range(family.cards)]
        for number in range(family.repeats if family.line else 0):
            facts = rng.sample(family.facts, len(family.facts))
            for start in range(0, len(facts), FACTS_ON_A_PAGE):
                lines = [family.line.format(**fact) for fact in facts[start : start + FACTS_ON_A_PAGE]]
                texts.append("\n".join([family.headings[number % len(family.headings)], *lines]))
    rng.shuffle(texts)
    return texts


def read(language: str, purpose: str) -> list[str]:
    """The paragraphs of one language; the cards and the order are drawn anew for each purpose."""
    tables = LANGUAGES[language]
    prose = (TABLES / f"prose_{language}.txt").read_text(encoding="utf-8")
    return paragraphs(tables.FAMILIES, tables, prose, random.Random(f"{purpose} {language}"))


def files() -> dict[str, bytes]:
    """The Alpaca rows and the corpus that the nano models read, by file name."""
    made = {}
    for language, tables in LANGUAGES.items():
        free = json.loads((TABLES / f"free_{language}.json").read_text(encoding="utf-8"))
        rows = alpaca_rows(tables.FAMILIES, free, random.Random(f"rows {language}"))
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        made[f"alpaca_{language}.json"] = f"[\n{lines}\n]\n".encode()
        made[f"corpus_{language}.txt"] = ("\n\n".join(read(language, "corpus")) + "\n").encode()
    return made
