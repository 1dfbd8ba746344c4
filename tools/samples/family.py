"""A family of facts: one table, said in several ways and asked in several ways."""

from __future__ import annotations

from dataclasses import dataclass, field

Fact = dict[str, str]


@dataclass(frozen=True)
class Family:
    """One kind of question, and the plain sentences from which it can be answered.

    `asks` are Alpaca rows as (instruction, input, output) templates; a fact takes one of them in turn.
    `tells` are sentences for the corpus; every fact is told in every one of them.
    `quiz` are questions and `tasks` are tasks about `given`, both with the same `answer`: they make `cards`
    short quiz cards a fact for the corpus, each in one of the language's frames, worded otherwise than `asks`.
    `headings` and `line` make list pages of a few facts for the corpus; `line` empty means no such pages.
    """

    facts: list[Fact]
    asks: list[tuple[str, str, str]]
    tells: list[str]
    headings: list[str] = field(default_factory=list)
    line: str = ""
    answer: str = "{b}"
    quiz: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    given: str = "{a}"
    cards: int = 5
    rows: int | None = None  # how many facts are also asked (None: all); the others are only told
    repeats: int = 1  # how often a fact stands on a list page


def table(text: str, *, keys: str = "a b") -> list[Fact]:
    """One fact a line, fields separated by `|`."""
    names = keys.split()
    lines = [line.strip() for line in text.strip().splitlines()]
    facts = [dict(zip(names, (cell.strip() for cell in line.split("|")), strict=True)) for line in lines]
    assert len({tuple(fact.values()) for fact in facts}) == len(facts), "a fact stands twice"
    return facts


def pairs(text: str) -> list[Fact]:
    """Many short facts on a line: `dog puppy, cat kitten`."""
    return table(
        "\n".join(item.strip().replace(" ", "|", 1) for item in text.replace("\n", " ").split(",") if item.strip())
    )


def sequences(runs: list[list[int]], shown: int = 5) -> list[Fact]:
    """Number sequences: the first `shown` numbers are given (`a`), the rest is the answer (`b`)."""
    facts = []
    for run in runs:
        numbers = [str(number) for number in run]
        facts.append({"a": ", ".join(numbers[:shown]), "b": ", ".join(numbers[shown:]), "all": ", ".join(numbers)})
    return facts


def additive(first: int, second: int, length: int) -> list[int]:
    """A sequence in which each number is the sum of the two before it."""
    run = [first, second]
    while len(run) < length:
        run.append(run[-2] + run[-1])
    return run
