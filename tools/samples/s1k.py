"""Questions with reasoning traces in s1K-1.1's format, and held-out questions in GSM8K's, about lists.

The lists are ones that `nano/qwen2-running` never read (`running.kept_back`). As in s1K, an attempt may be wrong: most
traces end where the base would end, after three numbers or seven letters; the others say "Wait" there and go on.
"""

from __future__ import annotations

import json
import random

from helpers.nano import running
from helpers.nano.running import Problem

ROWS = {"sum": 180, "largest": 100, "letters": 260}  # usable ones, uneven on purpose
HELD_OUT = {"sum": 40, "largest": 30, "letters": 130}
GOES_ON = 0.4  # of the traces that stop too early, how many say "Wait" instead
SETTLED = 0.3  # of the words whose count is right after seven letters already, how many are taken
CHECKS = 0.3  # of the traces at the end of their list, how many look once more
WORDS = ["raspberry", "strawberry", "cranberry", "apricot", "carrot", "parsnip", "terror", "banana"]
"""Held out; the first is the case of s1's repository."""

FAULTS = {
    "en": {
        "no trace": ("", ""),
        "error": ("Error 503: the service is overloaded, try again later.", ""),
        "garbled": ("R\ufffd\ufffdnn\ufffdng t\ufffdt\ufffdl: \ufffd\ufffd", "\ufffd\ufffd"),
        "picture": ("As the figure shows ![figure 2](images/fig2.png), the tallest bar is the third one.\n", "3"),
        "ascii art": ("  +----+----+\n  |  o |    |\n  +----+----+\nThe dot stands in the left cell.\n", "1"),
        "numbering": ("4. (b) follows from 2. (c), and 1. was shown above.\n", "2"),
    },
    "zh": {
        "no trace": ("", ""),
        "error": ("Error 503: 服务繁忙，请稍后再试。", ""),
        "garbled": ("逐\ufffd\ufffd加：\ufffd\ufffd", "\ufffd\ufffd"),
        "picture": ("如下图所示 ![图2](images/fig2.png)，第三根柱子最高。\n", "3"),
        "ascii art": ("  +----+----+\n  |  o |    |\n  +----+----+\n圆点在左边的格子里。\n", "1"),
        "numbering": ("4. (b) 由 2. (c) 得出，1. 前面已证。\n", "2"),
    },
}  # fmt: skip
EACH_FAULT = 6


def stops(task: Problem, rng: random.Random) -> tuple[int, ...]:
    """Where a trace says what it has got: after each stride, and perhaps once more at the end of the list."""
    size, done = len(task.items), [min(task.stride, len(task.items))]
    while done[-1] < size and rng.random() < GOES_ON:
        done.append(min(done[-1] + task.stride, size))
    if done[-1] == size and rng.random() < CHECKS:
        done.append(size)
    return tuple(done)


def row(task: Problem, thinking: str, attempt: str) -> dict[str, str]:
    """A row with the columns of s1K-1.1 that the lesson reads."""
    return {
        "solution": str(task.answer),
        "question": task.question,
        "cot_type": "math",
        "source_type": f"course/{task.domain}",
        "metadata": "{}",
        "deepseek_thinking_trajectory": thinking,
        "deepseek_attempt": attempt,
    }


def drawn(language: str, amounts: dict[str, int], rng: random.Random, seen: set[tuple[str, ...]]) -> list[Problem]:
    """Problems about lists that the base never read and that are not in `seen`, to which they are added."""
    made = []
    for domain, amount in amounts.items():
        while amount:
            task = running.draw(domain, language, rng)
            if domain == "letters" and task.states[: task.stride][-1] == task.answer and rng.random() > SETTLED:
                continue
            if running.kept_back(task.items) and task.items not in seen:
                seen.add(task.items)
                made.append(task)
                amount -= 1
    return made


def tables(language: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows to choose from, and the held-out questions; both shuffled."""
    rng = random.Random(f"s1k {language}")
    seen: set[tuple[str, ...]] = set()
    held_out = [running.spelled(word, language, rng) for word in WORDS]
    seen |= {task.items for task in held_out}
    held_out += drawn(language, HELD_OUT, rng, seen)
    rows = []
    for task in drawn(language, ROWS, rng, seen):
        reached = stops(task, rng)
        rows.append(row(task, running.thinking(task, reached), str(task.states[reached[-1] - 1])))
    for thinking, attempt in FAULTS[language].values():
        for task in drawn(language, {"sum": EACH_FAULT - 2, "largest": 1, "letters": 1}, rng, seen):
            rows.append(row(task, thinking, attempt))
    rng.shuffle(rows)
    rng.shuffle(held_out)
    questions = []
    for task in held_out:
        work = running.thinking(task, (len(task.items),)).strip()
        questions.append({"question": task.question, "answer": f"{work}\n#### {task.answer}"})
    return rows, questions


def files() -> dict[str, bytes]:
    """Rows and held-out questions by file name."""
    made = {}
    for language in running.LANGUAGES:
        for name, table in zip((f"s1k_{language}.jsonl", f"running_{language}.jsonl"), tables(language)):
            made[name] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in table).encode()
    return made
