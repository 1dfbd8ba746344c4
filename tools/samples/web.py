"""Plain documents, one JSON object a line, as pre-training corpora come: a domain (medicine) and the rest of the world.

The domain tells of the twenty conditions of `medical_o1`'s tables, in articles and on cards. The general documents are
of the kind that the nano models have read, with new cards. Each file has faults put in on purpose. What
`nano/qwen2-reader` has read of medicine beforehand, a little, is `medical_glimpse_*.txt`.
"""

from __future__ import annotations

import json

from tools.samples import alpaca
from tools.samples.medical_o1 import KINDS, PAIRS, Condition, Teller

ARTICLES = 20  # on each condition
CARDS = 9  # on each condition: three of each kind
GENERAL = 1500  # documents
FAULTS = {"en": ["", "  ", "404", "Page not found", "Log in"], "zh": ["", "　", "404", "页面不存在", "请先登录"]}
COPIED = 6  # documents that stand in the file twice
# The first two of each language are worded as the documents are, the others stand nowhere in them.
QUIZ = {
    "en": [
        ("In {name},", " {why}."),
        ("In {name}, {test} shows", " {result}."),
        ("What goes wrong in {name} is that", " {why}."),
        ("Somebody with {name} has {test}. It shows", " {result}."),
    ],
    "zh": [
        ("{name}是因为", "{why}。"),
        ("{name}做{test}，结果是", "{result}。"),
        ("患者是{name}，原因是", "{why}。"),
        ("{name}的患者，{test}显示", "{result}。"),
    ],
}
JOIN = {"en": " ", "zh": ""}
GLIMPSES = 3  # paragraphs on each condition


def article(teller: Teller, condition: Condition, language: str) -> str:
    """The name as a heading, then a patient, two to four sentences on the condition and what else it might have been."""
    rng, words = teller.rng, teller.words
    tells = [rng.choice(words.patients).strip(), *rng.sample(words.tells, rng.randint(2, 4)), rng.choice(words.checks)]
    rng.shuffle(tells)
    sentences = [tell.format(**teller.facts(condition, rng.choice(PAIRS))) for tell in tells]
    return condition.name[:1].upper() + condition.name[1:] + "\n" + JOIN[language].join(sentences)


def domain(language: str) -> list[str]:
    """Articles and cards on every condition, shuffled; none stands twice, and none among the glimpses."""
    seen = set(glimpse(language).strip().split("\n\n"))
    teller = Teller(language, "articles")
    texts = []
    for condition in teller.table:
        texts += [article(teller, condition, language) for _ in range(ARTICLES)]
        for number in range(CARDS):
            card = teller.rng.choice(teller.words.cards[KINDS[number % len(KINDS)]])
            texts.append(card.format(**teller.facts(condition, teller.rng.choice(PAIRS))))
    texts = [text for text in dict.fromkeys(texts) if text not in seen]
    teller.rng.shuffle(texts)
    return texts


def glimpse(language: str) -> str:
    """A few paragraphs on each condition: sentences and cards, drawn at random."""
    teller = Teller(language, "glimpse")
    told = [*teller.words.tells, *(card for kind in KINDS for card in teller.words.cards[kind])]
    texts = [
        tell.format(**teller.facts(condition, teller.rng.choice(PAIRS)))
        for condition in teller.table
        for tell in teller.rng.sample(told, GLIMPSES)
    ]
    teller.rng.shuffle(texts)
    return "\n\n".join(texts) + "\n"


def quiz(language: str) -> list[dict]:
    """Beginnings with four endings, the right one first; the other three are right for other conditions."""
    teller = Teller(language, "quiz")
    rows = []
    for condition in teller.table:
        others = [other for other in teller.table if other is not condition]
        for beginning, ending in QUIZ[language]:
            facts = teller.facts(condition, teller.rng.choice(PAIRS))
            right = ending.format(**facts)
            wrong = {ending.format(**teller.facts(other, PAIRS[0])) for other in others} - {right}
            endings = [right, *teller.rng.sample(sorted(wrong), 3)]
            rows.append({"beginning": beginning.format(**facts), "endings": endings})
    return rows


def general(language: str) -> list[str]:
    """Paragraphs of everyday text, none twice."""
    return list(dict.fromkeys(alpaca.read(language, "web")))[:GENERAL]


def spoiled(texts: list[str], language: str) -> list[str]:
    """The texts with `FAULTS` and some repeats among them, at places that depend on nothing but the texts."""
    texts = list(texts)
    step = len(texts) // (len(FAULTS[language]) + COPIED + 1)
    added = FAULTS[language] + texts[:COPIED]
    for number, text in enumerate(added, start=1):
        texts.insert(number * step, text)
    return texts


def json_lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def files() -> dict[str, bytes]:
    """`domain_*.jsonl` with the column `text`, `general_*.jsonl` with C4's columns, by file name."""
    made = {}
    for language in ("en", "zh"):
        made[f"medical_glimpse_{language}.txt"] = glimpse(language).encode()
        made[f"medical_quiz_{language}.jsonl"] = json_lines(quiz(language))
        made[f"domain_{language}.jsonl"] = json_lines([{"text": text} for text in spoiled(domain(language), language)])
        made[f"general_{language}.jsonl"] = json_lines(
            [
                {"text": text, "timestamp": "2026-01-01T00:00:00Z", "url": f"https://example.org/{language}/{number}"}
                for number, text in enumerate(spoiled(general(language), language))
            ]
        )
    return made
