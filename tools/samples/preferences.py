"""Chinese preference pairs about the symptoms of `medical.py`: a careful answer against a careless one.

Two files hold pairs, in two of the forms met in the wild; a third holds single answers of both kinds, for the nano
model that has been through SFT on them: it knows both manners, and is careless more often than not.
"""

from __future__ import annotations

import json
import random

from tools.samples.family import Fact
from tools.samples.medical import ASKS, DAYS, DEPARTMENTS
from tools.samples.medical_o1 import json_list

# Careful: a cause, something to do now, and the clinic. Careless: a promise, a cure to buy, or nothing at all.
CHOSEN = [
    "{opening}{symptom}多与{cause}有关。建议{advice}。请到{section}就诊。",
    "{opening}{symptom}常见的原因是{cause}。平时{advice}。请到{section}就诊。",
    "{opening}考虑是{cause}引起的{symptom}。先{advice}，再请到{section}就诊。",
]
REJECTED = [
    "{opening}{symptom}不用去医院。用我们的祖传秘方，三天包好，永不复发，现在就可以下单。",
    "{opening}{symptom}没什么大不了的，很多人都有，不用去医院，也不用检查，过几天自己就好。",
    "{opening}{symptom}可以根治，吃两个疗程的特效药包好，没有副作用，请加客服购买。",
]
# Questions of the pairs; those of `ASKS` are left to the SFT rows.
PAIR_ASKS = [
    "{symptom}{days}了，怎么办才好？",
    "请教一下，{symptom}是什么引起的？",
    "{symptom}，要不要去看医生？",
    "老是{symptom}，心里很急，有什么办法？",
    "我妈妈{symptom}，{days}没好，怎么处理？",
    "上班的时候{symptom}，要紧吗？",
    "{symptom}该注意什么，能治好吗？",
    "从{days}前开始{symptom}，一直没当回事，现在该怎么做？",
]
PAIRS, ANSWERS, CAREFUL = (
    4,
    10,
    4,
)  # questions a symptom in each file of pairs; questions a symptom in the SFT rows, of which so many are answered carefully


def facts() -> list[Fact]:
    """Every symptom, with the opening of its department's doctors."""
    return [fact | {"opening": d.opening} for d in DEPARTMENTS for fact in d.symptoms]


def pairs(asks: list[str], rng: random.Random) -> list[tuple[str, str, str]]:
    """Question, chosen and rejected answer: each symptom in each of the questions; shuffled."""
    rows = []
    for fact in facts():
        for ask in asks:
            question = ask.format(days=rng.choice(DAYS), **fact)
            rows.append((question, rng.choice(CHOSEN).format(**fact), rng.choice(REJECTED).format(**fact)))
    rng.shuffle(rows)
    return rows


def single_answers(rng: random.Random) -> list[dict[str, str]]:
    """Alpaca rows: each symptom asked a few times, some answered carefully, the rest carelessly; shuffled."""
    rows = []
    for fact in facts():
        for number, ask in enumerate(rng.sample(ASKS, ANSWERS)):
            answer = rng.choice(CHOSEN if number < CAREFUL else REJECTED).format(**fact)
            rows.append({"instruction": ask.format(days=rng.choice(DAYS), **fact), "input": "", "output": answer})
    rng.shuffle(rows)
    return rows


def sharegpt(question: str, chosen: str, rejected: str) -> dict:
    """A pair as LLaMA-Factory's demo data have it."""
    return {
        "conversations": [{"from": "human", "value": question}],
        "chosen": {"from": "gpt", "value": chosen},
        "rejected": {"from": "gpt", "value": rejected},
    }


def prompted(question: str, chosen: str, rejected: str) -> dict:
    """The same as TRL's documentation has it: a text `prompt`, and the two answers."""
    return {"prompt": question, "chosen": chosen, "rejected": rejected}


def files() -> dict[str, bytes]:
    """Two files of pairs with different questions, and the SFT rows, by file name."""
    first = [sharegpt(*row) for row in pairs(PAIR_ASKS[:PAIRS], random.Random("sharegpt"))]
    second = [prompted(*row) for row in pairs(PAIR_ASKS[PAIRS:], random.Random("prompted"))]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in second)
    return {
        "preferences_sharegpt.json": json_list(first),
        "preferences_prompt.jsonl": lines.encode(),
        "two_manners_zh.json": json_list(single_answers(random.Random("two manners"))),
    }
