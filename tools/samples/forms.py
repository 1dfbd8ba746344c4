"""A dozen rows in each form that Chinese medical data sets come in, told from the table of `tools.samples.medical`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from tools.samples.family import Fact
from tools.samples.medical import ANSWERS, ASKS, DAYS, DEPARTMENTS, REPLIES

ROWS = 12
Turn = tuple[str, str]  # a question and its answer


def facts(rng: random.Random) -> list[Fact]:
    """Two symptoms of each department, with its name and how a doctor there opens an answer."""
    chosen = []
    for department in DEPARTMENTS:
        name = department.folder.split("_")[1]
        for fact in rng.sample(department.symptoms, ROWS // len(DEPARTMENTS)):
            chosen.append(fact | {"opening": department.opening, "department": name})
    return chosen


def dialogue(fact: Fact, turns: int, rng: random.Random) -> list[Turn]:
    """One or two questions about a symptom, answered."""
    asks = rng.sample(ASKS, turns)
    answers = [rng.choice(ANSWERS), rng.choice(REPLIES)][:turns]
    return [(ask.format(days=rng.choice(DAYS), **fact), answer.format(**fact)) for ask, answer in zip(asks, answers)]


def lines(rows: Sequence[object]) -> bytes:
    """One row a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: Sequence[object]) -> bytes:
    """A JSON list, one row a line."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()


def objects(turns: Sequence[Turn], names: tuple[str, str], keys: tuple[str, str]) -> list[dict[str, str]]:
    """The turns as objects with a speaker and a text."""
    said = [text for turn in turns for text in turn]
    return [{keys[0]: names[place % 2], keys[1]: text} for place, text in enumerate(said)]


def consultation(number: int, fact: Fact, turns: Sequence[Turn]) -> str:
    """A consultation as MedDialog's raw files have it; every fourth time the doctor answers the form directly."""
    (question, answer), *rest = turns
    said = [("医生", answer)] if number % 4 == 0 else [("病人", question), ("医生", answer)]
    said += [one for question, answer in rest for one in (("病人", question), ("医生", answer))]
    if number % 5 == 0:
        said.append(("病人", question))  # never answered
    form = f"疾病：\n{fact['symptom']}\n病情描述：\n{question}"
    spoken = "\n\n".join(f"{speaker}：\n{text}" for speaker, text in said)
    faculty = f"{fact['department']} {fact['section']}"
    return (
        f"id={number}\nhttps://example.org/{number}\nDoctor faculty\n{faculty}\n\n"
        f"Description\n{form}\n\nDialogue\n{spoken}\n\n"
    )


def files() -> dict[str, bytes]:
    """A file a form, by name."""
    rng = random.Random("forms")
    told = facts(rng)
    single = [dialogue(fact, 1, rng) for fact in told]
    several = [dialogue(fact, 1 + number % 2, rng) for number, fact in enumerate(told)]
    pairs = [turns[0] for turns in single]
    made = {
        "sharegpt.jsonl": lines(
            [{"conversations": objects(turns, ("human", "gpt"), ("from", "value"))} for turns in single]
        ),
        "disc.jsonl": lines(
            [
                {
                    "_id": str(n),
                    "source": "sample",
                    "conversation": objects(t, ("user", "assistant"), ("role", "content")),
                }
                for n, t in enumerate(several)
            ]
        ),
        "huatuo_v1.jsonl": lines(
            [{"data": [f"问：{q}", f"答：{a}"]} for q, a in pairs[:-1]] + [{"data": ["问：", "答："]}]
        ),
        "huatuo_lite.jsonl": lines(
            [
                {"id": n, "answer": a, "label": fact["department"], "question": q, "related_diseases": fact["cause"]}
                for n, ((q, a), fact) in enumerate(zip(pairs, told))
            ]
        ),
        "query_response.jsonl": lines([{"query": q, "response": a} for q, a in pairs]),
        "alpaca.json": array([{"instruction": q, "input": "", "output": a} for q, a in pairs]),
        "meddialog.txt": "".join(
            consultation(number, fact, turns) for number, (fact, turns) in enumerate(zip(told, several), start=1)
        ).encode(),
        "meddialog_processed.json": array(
            [[text for q, a in turns for text in (f"病人：{q}", f"医生：{a}")] for turns in several]
        ),
    }
    return {f"forms/{name}": content for name, content in made.items()}
