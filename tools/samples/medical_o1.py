"""Medical questions with a chain of thought and an answer, and what a model reads before it meets them.

Everything comes from two tables of twenty conditions, `medical_en.txt` and `medical_zh.txt`: three findings, what
explains them, a test and its result. Harmless textbook knowledge, simplified; not medical advice.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from tools.samples import medical_wording
from tools.samples.medical_wording import Wording

TABLES = Path(__file__).parent
WORDINGS: dict[str, Wording] = {"en": medical_wording.EN, "zh": medical_wording.ZH}
KINDS = ("diagnosis", "test", "reason")
PAIRS = ((0, 1), (1, 2), (0, 2))  # which two of a condition's findings a question tells
VARIANTS = 6  # rows for each condition and kind
LONG = 8  # rows whose chain of thought goes through the whole table: too long for a small context
NEVER_ASKED = 0  # the first condition is read about, and never asked in the rows

Row = dict[str, str]


@dataclass(frozen=True)
class Condition:
    """One line of a table."""

    name: str
    who: str
    ages: tuple[int, int]
    findings: tuple[str, str, str]
    why: str
    test: str
    result: str

    def key(self, kind: str) -> str:
        """The answer to a question of this kind."""
        return {"diagnosis": self.name, "test": self.result, "reason": self.why}[kind]


def conditions(language: str) -> list[Condition]:
    """The table of one language; line n is the same condition in both."""
    table = []
    for line in (TABLES / f"medical_{language}.txt").read_text(encoding="utf-8").splitlines():
        name, who, ages, one, two, three, why, test, result = (part.strip() for part in line.split("|"))
        youngest, oldest = map(int, ages.split("-"))
        table.append(Condition(name, who, (youngest, oldest), (one, two, three), why, test, result))
    return table


class Teller:
    """Tells about the conditions of one language: questions, chains of thought, answers, notes, transcripts."""

    def __init__(self, language: str, purpose: str) -> None:
        self.words = WORDINGS[language]
        self.table = conditions(language)
        self.rng = random.Random(f"{purpose} {language}")

    def facts(self, condition: Condition, pair: tuple[int, int]) -> dict[str, str]:
        """What the templates may mention of one patient with the condition, and of another condition."""
        words, rng = self.words, self.rng
        other, third = rng.sample([c for c in self.table if c is not condition], 2)
        patient = rng.choice(words.anyone) if condition.who in words.any else condition.who
        one, two = (condition.findings[i] for i in pair)
        facts = {
            "age": str(rng.randint(*condition.ages)),
            "patient": patient,
            "he": words.pronouns.get(patient, ""),
            "one": one,
            "two": two,
            "name": condition.name,
            "why": condition.why,
            "test": condition.test,
            "result": condition.result,
            "other": other.name,
            "otherone": other.findings[rng.randrange(3)],
            "otherwhy": other.why,
            "otherresult": other.result,
            "third": third.name,
            "thirdone": third.findings[rng.randrange(3)],
        }
        return facts | {name.capitalize(): text[:1].upper() + text[1:] for name, text in facts.items()}

    def row(self, condition: Condition, kind: str, variant: int, long: bool = False) -> Row:
        """One row in the data set's format."""
        words = self.words
        facts = self.facts(condition, PAIRS[variant % len(PAIRS)])
        question = words.patients[variant % len(words.patients)] + words.asks[kind][variant % len(words.asks[kind])]
        thinking, answer = self.tidy(condition, kind, facts, long)
        return {"Question": question.format(**facts), "Complex_CoT": thinking, "Response": answer}

    def rows(self) -> list[Row]:
        """Every kind of question about every condition but one, in several variants, and some long ones; shuffled."""
        asked = [c for number, c in enumerate(self.table) if number != NEVER_ASKED]
        rows = [self.row(c, kind, variant) for c in asked for kind in KINDS for variant in range(VARIANTS)]
        rows += [self.row(c, "diagnosis", VARIANTS, long=True) for c in self.rng.sample(asked, LONG)]
        self.rng.shuffle(rows)
        return list({row["Question"]: row for row in rows}.values())

    def notes(self) -> str:
        """Plain text: each condition told in every sentence, and on quiz cards; shuffled."""
        paragraphs = []
        for condition in self.table:
            for pair in PAIRS:
                facts = self.facts(condition, pair)
                paragraphs += [tell.format(**facts) for tell in self.words.tells]
            for kind in KINDS:
                for card in self.words.cards[kind]:
                    paragraphs.append(card.format(**self.facts(condition, self.rng.choice(PAIRS))))
        self.rng.shuffle(paragraphs)
        return "\n\n".join(paragraphs) + "\n"

    def tidy(self, condition: Condition, kind: str, facts: dict[str, str], long: bool = False) -> tuple[str, str]:
        """A chain of thought that goes straight to the right answer, and the answer."""
        words, rng = self.words, self.rng
        thoughts = [rng.choice(words.openings), rng.choice(words.links)]
        if long:
            rest = [c for c in self.table if c is not condition]
            thoughts += [
                words.excluded.format(**self.facts(c, (0, 1))) for c in rng.sample(rest, rng.randint(14, len(rest)))
            ]
        elif rng.random() < 0.25:
            thoughts.append(rng.choice(words.checks))
        thoughts += [words.conclusions[kind], rng.choice(words.closings)]
        return "\n\n".join(thoughts).format(**facts), words.responses[kind].format(
            **facts | {"key": condition.key(kind)}
        )

    def wavering(self, condition: Condition, kind: str, facts: dict[str, str]) -> tuple[str, str]:
        """A chain of thought in R1's manner, and an answer that is right in two cases of five."""
        words, rng = self.words, self.rng
        believed = condition if rng.random() < 0.4 else rng.choice(self.table)
        thoughts = [rng.choice(words.r1_openings)]
        thoughts += rng.sample(words.r1_thoughts, rng.randint(3, 5))
        return "\n\n".join(thoughts).format(**facts), words.r1_answers[kind].format(
            **facts | {"key": believed.key(kind)}
        )

    def transcripts(self) -> list[Row]:
        """Chats as a reasoning model might have seen them: of eight, two are tidy; the others waver, and three never
        close their thoughts, two open them again for the answer, one ends as it should."""
        words, rng = self.words, self.rng
        chats = []
        for condition in self.table:
            for kind in KINDS:
                for ending in ("tidy", "tidy", "closed", "open", "open", "open", "again", "again"):
                    facts = self.facts(condition, rng.choice(PAIRS))
                    question = rng.choice(words.r1_patients) + rng.choice(words.r1_asks[kind])
                    tell = self.tidy if ending == "tidy" else self.wavering
                    thinking, answer = tell(condition, kind, facts)
                    written = {
                        "open": f"{thinking}\n\n{answer}\n\n{rng.choice(words.r1_thoughts)}\n\n{answer}",
                        "again": f"{thinking}\n</think>\n\n<think>\n{answer}",
                    }.get(ending, f"{thinking}\n</think>\n\n{answer}")
                    layout = rng.choice(words.layouts)
                    chats.append(
                        {"prompt": layout.format(question=question.format(**facts)), "written": written.format(**facts)}
                    )
        rng.shuffle(chats)
        return chats


def json_list(rows: list[Row]) -> bytes:
    """A JSON list with a row a line."""
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]\n".encode()


def files() -> dict[str, bytes]:
    """Rows in medical-o1's format, and the notes and transcripts that `nano/llama-r1` reads, by file name."""
    made = {}
    for language in WORDINGS:
        made[f"medical_o1_{language}.json"] = json_list(Teller(language, "rows").rows())
        made[f"medical_notes_{language}.txt"] = Teller(language, "notes").notes().encode()
        made[f"r1_chats_{language}.json"] = json_list(Teller(language, "chats").transcripts())
    return made
