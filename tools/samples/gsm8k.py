"""Word problems in GSM8K's format, from the wordings that the nano model is taught and numbers that it is not."""

from __future__ import annotations

import json
import random

from helpers.nano import arithmetic

ROWS = 840  # a language, besides the written ones: 400 to hold out, the rest to train on
FIRST, THEN = {"en": "First, ", "zh": "先算"}, {"en": "Then ", "zh": "再算"}
STOP = {"en": ".", "zh": "。"}

# With answers that a careless reader of numbers gets wrong: thousands commas and negative ones.
WRITTEN = {
    "en": [
        ("A town has 12,400 people. 1,350 move in and 240 move away. How many people live there now?",
         ("12400+1350=13750", "13750-240=13510"), "13,510"),
        ("A library has 2,350 books and buys 180 more. How many books does it have?", ("2350+180=2530",), "2,530"),
        ("A concert sells 40 tickets at $30 each. How many dollars is that?", ("40*30=1200",), "1,200"),
        ("A truck carries 250 boxes of 12 bottles each. How many bottles is that?", ("250*12=3000",), "3,000"),
        ("It is 4 degrees at noon. The temperature falls by 11 degrees. How many degrees is it now?", ("4-11=-7",), "-7"),
        ("Leo has $15 and buys shoes for $40 on credit. What is his balance in dollars?", ("15-40=-25",), "-25"),
    ],
    "zh": [
        ("小镇有12,400人，今年搬来1,350人，搬走240人。现在有多少人？",
         ("12400+1350=13750", "13750-240=13510"), "13,510"),
        ("图书馆有2,350本书，又买了180本。现在有多少本？", ("2350+180=2530",), "2,530"),
        ("音乐会卖出40张票，每张30元。一共收入多少元？", ("40*30=1200",), "1,200"),
        ("一辆卡车装了250箱饮料，每箱12瓶。一共多少瓶？", ("250*12=3000",), "3,000"),
        ("中午气温是4度，夜里下降了11度。夜里是多少度？", ("4-11=-7",), "-7"),
        ("小林有15元，赊账买了一双40元的鞋。他的余额是多少元？", ("15-40=-25",), "-25"),
    ],
}  # fmt: skip


def solution(sums: tuple[str, ...], answer: str, language: str) -> str:
    """The sums with GSM8K's calculator marks, a line each, and the answer after `####`."""
    lines = []
    for start, one in zip((FIRST, THEN), sums):
        lines.append(f"{start[language]}{one.partition('=')[0]}=<<{one}>>{one.partition('=')[2]}{STOP[language]}")
    return "\n".join([*lines, f"#### {answer}"])


def rows(language: str) -> list[dict[str, str]]:
    """The problems of one language, shuffled; no two ask for the same two operations on the same numbers."""
    rng = random.Random(f"gsm8k {language}")
    made = [{"question": q, "answer": solution(sums, answer, language)} for q, sums, answer in WRITTEN[language]]
    seen = set()
    while len(seen) < ROWS:
        operations = rng.choice(arithmetic.OPERATIONS)
        told = arithmetic.numbers(operations, rng)
        if arithmetic.kept_back(told) and (operations, told) not in seen:
            seen.add((operations, told))
            task = arithmetic.problem(language, operations, told, rng)
            made.append({"question": task.question, "answer": solution(task.sums, str(task.answer), language)})
    rng.shuffle(made)
    return made


def files() -> dict[str, bytes]:
    """The problems by file name."""
    return {
        f"gsm8k_{language}.jsonl": "".join(
            json.dumps(row, ensure_ascii=False) + "\n" for row in rows(language)
        ).encode()
        for language in arithmetic.LANGUAGES
    }
