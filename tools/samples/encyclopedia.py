"""Encyclopedia entries on the symptoms of `medical.py`: plain text for continued pre-training, one JSON object a line.

The facts are those of the notes that the nano models have read; the form, with its headings, is new to them.
"""

from __future__ import annotations

import json
import random

from tools.samples.family import Fact
from tools.samples.medical import DEPARTMENTS

EACH = 6  # entries a symptom
ABOUT = [
    "{symptom}是{name}门诊里常见的情况，主要和{cause}有关。",
    "在{name}，{symptom}并不少见，背后往往是{cause}。",
    "{symptom}属于{name}的范围，医生首先会想到{cause}。",
]
CAUSES = ["最常见的原因是{cause}。", "临床上以{cause}最为多见。", "一般认为由{cause}造成。"]
CARE = ["日常护理以{advice}为主。", "患者在家可以{advice}。", "护理的要点是{advice}。"]
VISITS = ["需要就诊时，应选择{section}。", "对应的科室是{section}。", "持续不缓解者，由{section}进一步评估。"]
FORMS = [
    "词条：{symptom}\n一、概述\n{about}\n二、成因\n{why}\n三、护理\n{care}\n四、就诊\n{visit}",
    "《{symptom}》\n概述——{about}\n成因——{why}\n护理——{care}\n就诊——{visit}",
    "{symptom}（百科条目）\n{about}{why}{care}{visit}",
]


def entry(fact: Fact, form: str, rng: random.Random) -> str:
    """One entry on the symptom."""
    parts = {"about": ABOUT, "why": CAUSES, "care": CARE, "visit": VISITS}
    filled = {name: rng.choice(choices).format(**fact) for name, choices in parts.items()}
    return form.format(**fact, **filled)


def entries(rng: random.Random) -> list[str]:
    """Every symptom in every form, each as often as the others; shuffled, none twice."""
    texts = []
    for department in DEPARTMENTS:
        for fact in department.symptoms:
            named = fact | {"name": department.folder.split("_")[1]}
            own: set[str] = set()
            while len(own) < EACH:
                own.add(entry(named, FORMS[len(own) % len(FORMS)], rng))
            texts += sorted(own)
    rng.shuffle(texts)
    return texts


def files() -> dict[str, bytes]:
    """The entries in the form of shibing624/medical's `pretrain` files, by file name."""
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in entries(random.Random("encyclopedia"))]
    return {"encyclopedia_zh.jsonl": "".join(f"{row}\n" for row in rows).encode()}
