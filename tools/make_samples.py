"""Write the small data sets in `data_samples/` from the tables in `tools/samples/`.

    python -m tools.make_samples           write the files
    python -m tools.make_samples --check   say whether the files are what would be written

The same tables always give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from tools.samples import en, zh
from tools.samples.family import Fact, Family

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "data_samples"
TABLES = ROOT / "tools" / "samples"
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


def corpus(families: Mapping[str, Family], frames: ModuleType, prose: str, rng: random.Random) -> str:
    """Plain text: every fact in every way of telling it, list pages and prose, in paragraphs, shuffled."""
    paragraphs = prose.strip().split("\n\n") * 2
    for family in families.values():
        told = [tell.format(**fact) for fact in family.facts for tell in family.tells]
        paragraphs += [text[0].upper() + text[1:] for text in told]
        paragraphs += [card(family, fact, frames, rng) for fact in family.facts for _ in range(family.cards)]
        for number in range(family.repeats if family.line else 0):
            facts = rng.sample(family.facts, len(family.facts))
            for start in range(0, len(facts), FACTS_ON_A_PAGE):
                lines = [family.line.format(**fact) for fact in facts[start : start + FACTS_ON_A_PAGE]]
                paragraphs.append("\n".join([family.headings[number % len(family.headings)], *lines]))
    rng.shuffle(paragraphs)
    return "\n\n".join(paragraphs) + "\n"


def contents() -> dict[str, str]:
    """The text of every generated file by its name."""
    files = {}
    for language, tables in LANGUAGES.items():
        free = json.loads((TABLES / f"free_{language}.json").read_text(encoding="utf-8"))
        prose = (TABLES / f"prose_{language}.txt").read_text(encoding="utf-8")
        rows = alpaca_rows(tables.FAMILIES, free, random.Random(f"rows {language}"))
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        files[f"alpaca_{language}.json"] = f"[\n{lines}\n]\n"
        files[f"corpus_{language}.txt"] = corpus(tables.FAMILIES, tables, prose, random.Random(f"corpus {language}"))
    return files


def main(argv: list[str] | None = None) -> int:
    """Write the files, or with `--check` return 1 and name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    check = parser.parse_args(argv).check
    differing = []
    for name, text in contents().items():
        path = OUT / name
        if check:
            if not path.exists() or path.read_bytes() != text.encode():
                differing.append(name)
        else:
            path.write_bytes(text.encode())
            print(f"wrote {path.relative_to(ROOT)}: {len(text):,} characters")
    if differing:
        print(
            f"not what the generator writes: {', '.join(differing)}; run python -m tools.make_samples", file=sys.stderr
        )
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
