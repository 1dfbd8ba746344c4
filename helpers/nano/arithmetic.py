"""A model that has been taught two-step word problems, and answers them in four ways, only one of them good.

It stands for an instruct model before reinforcement learning: it *can* reason step by step, and often does not.
The problems are made here, from wordings and numbers. One choice of three numbers in five is kept back (`kept_back`);
`data_samples/gsm8k_*.jsonl` is made of those, so that every problem there is new to the model.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from helpers.nano.common import Recipe, make_tokenizer, new_model, train
from helpers.prompts import GSM8K_SYSTEM, gsm8k

QWEN2_MATH = Recipe(
    maker="arithmetic",
    prompts=(GSM8K_SYSTEM,),
    vocabulary=768,
    steps=400,
    batch=24,
    length=96,
    other_lr=1e-2,
    seconds=100,
)

TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")
STYLES = {"reasoned": 0.35, "at once": 0.35, "untagged": 0.15, "malformed": 0.15}
"""How it is taught to answer, each with its share; see `completion`."""
DRILLS = 0.3  # the share of rows that hold bare sums (7+5=12) instead of a word problem
LARGEST = 60  # no number, also on the way to the answer, is larger, and none is smaller than 2

LANGUAGES = ("en", "zh")
PEOPLE = {
    "en": ["Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ivy", "Jack", "Kate", "Leo"],
    "zh": ["小明", "小红", "小刚", "小丽", "小华", "小军", "小芳", "小强", "小美", "小林", "小杰", "小雪"],
}
THINGS = {
    "en": ["apples", "books", "cards", "coins", "eggs", "flowers", "marbles", "pencils", "shells", "stamps"],
    "zh": ["个苹果", "本书", "张卡片", "枚硬币", "个鸡蛋", "朵花", "颗弹珠", "支铅笔", "个贝壳", "张邮票"],
}
# The wordings of problems that need two operations; a, b and c are the numbers in the order in which they are told.
WORDINGS: dict[str, dict[str, list[str]]] = {
    "en": {
        "+-": [
            "{who} has {a} {things}, buys {b} more and gives {c} away. How many {things} does {who} have now?",
            "There are {a} {things} in a box. {who} puts in {b} more and takes out {c}. How many are in the box?",
        ],
        "-+": [
            "{who} has {a} {things}, loses {b} and then finds {c}. How many {things} does {who} have now?",
            "A shop has {a} {things}. {who} buys {b}, and the shop gets {c} new ones. How many {things} are there?",
        ],
        "++": [
            "{who} finds {a} {things} on Monday, {b} on Tuesday and {c} on Friday. How many {things} is that in all?",
            "{who} has {a} {things}. A friend has {b} and another friend has {c}. How many {things} do they have?",
        ],
        "--": [
            "{who} has {a} {things}, sells {b} in the morning and {c} in the evening. How many {things} are left?",
            "Of {a} {things}, {who} takes {b}. Then {c} are lost. How many {things} are left?",
        ],
        "*+": [
            "{who} buys {a} bags with {b} {things} in each, and gets {c} more. How many {things} is that in all?",
            "{who} has {a} boxes of {b} {things} and {c} on the table. How many {things} does {who} have?",
        ],
        "*-": [
            "{who} buys {a} bags with {b} {things} in each and gives {c} away. How many {things} are left?",
            "{who} has {a} boxes of {b} {things} and sells {c}. How many {things} does {who} have now?",
        ],
    },
    "zh": {
        "+-": [
            "{who}有{a}{things}，又买了{b}，送出去{c}。现在有多少？",
            "盒子里有{a}{things}，{who}放进去{b}，又拿出来{c}。盒子里有多少？",
        ],
        "-+": [
            "{who}有{a}{things}，丢了{b}，后来又找到{c}。现在有多少？",
            "店里有{a}{things}，{who}买走{b}，店里又进货{c}。现在店里有多少？",
        ],
        "++": [
            "{who}星期一捡到{a}{things}，星期二捡到{b}，星期五捡到{c}。一共有多少？",
            "{who}有{a}{things}，一个朋友有{b}，另一个朋友有{c}。三人一共有多少？",
        ],
        "--": [
            "{who}有{a}{things}，上午卖掉{b}，晚上卖掉{c}。还剩多少？",
            "一共{a}{things}，{who}拿走{b}，后来又丢了{c}。还剩多少？",
        ],
        "*+": [
            "{who}买了{a}袋，每袋{b}{things}，别人又送来{c}。一共有多少？",
            "{who}有{a}盒，每盒{b}{things}，桌上还有{c}。一共有多少？",
        ],
        "*-": [
            "{who}买了{a}袋，每袋{b}{things}，送出去{c}。还剩多少？",
            "{who}有{a}盒，每盒{b}{things}，卖掉{c}。现在有多少？",
        ],
    },
}
OPERATIONS = tuple(WORDINGS["en"])


@dataclass(frozen=True)
class Problem:
    """A question, the sums that solve it (`["23+14=37", "37-5=32"]`) and the answer."""

    question: str
    sums: tuple[str, ...]
    answer: int


def kept_back(told: tuple[int, int, int]) -> bool:
    """Whether these three numbers, in any order, stand together in no problem that the model is taught."""
    return zlib.crc32(repr(sorted(told)).encode()) % 5 == 0


def result(a: int, operation: str, b: int) -> int:
    """a + b, a - b or a * b."""
    return {"+": a + b, "-": a - b, "*": a * b}[operation]


def operands(operation: str, rng: random.Random) -> tuple[int, int]:
    """Two numbers that the operation makes a number between 2 and `LARGEST` of."""
    while True:
        a, b = (rng.randint(2, 9 if operation == "*" else LARGEST) for _ in range(2))
        if 2 <= result(a, operation, b) <= LARGEST:
            return a, b


def numbers(operations: str, rng: random.Random) -> tuple[int, int, int]:
    """Three numbers for two operations, such that every number on the way lies between 2 and `LARGEST`."""
    while True:
        a, b = operands(operations[0], rng)
        middle, c = result(a, operations[0], b), rng.randint(2, LARGEST)
        if 2 <= result(middle, operations[1], c) <= LARGEST:
            return a, b, c


def problem(language: str, operations: str, told: tuple[int, int, int], rng: random.Random) -> Problem:
    """A word problem about `told`, with a wording, a name and a thing drawn from `rng`."""
    a, b, c = told
    wording = rng.choice(WORDINGS[language][operations])
    names = {"who": rng.choice(PEOPLE[language]), "things": rng.choice(THINGS[language])}
    middle = result(a, operations[0], b)
    answer = result(middle, operations[1], c)
    sums = (f"{a}{operations[0]}{b}={middle}", f"{middle}{operations[1]}{c}={answer}")
    return Problem(wording.format(a=a, b=b, c=c, **names), sums, answer)


def taught_problem(rng: random.Random) -> Problem:
    """A word problem in either language, with no numbers that are kept back."""
    operations = rng.choice(OPERATIONS)
    while kept_back(told := numbers(operations, rng)):
        pass
    return problem(rng.choice(LANGUAGES), operations, told, rng)


def drill(rng: random.Random) -> str:
    """A bare sum like 23+14=37."""
    operation = rng.choice("++--*")
    a, b = operands(operation, rng)
    return f"{a}{operation}{b}={result(a, operation, b)}"


def completion(task: Problem, style: str, rng: random.Random) -> str:
    """The right answer in one of the styles.

    `reasoned` writes the sums down; `at once` has the form but no sums, so that the model has to know the answer
    in one go, and mostly cannot; `untagged` has sums and no tags; `malformed` has sums and spoilt tags.
    """
    sums, answer = "\n".join(task.sums), str(task.answer)
    whole = [f"<reasoning>\n{sums}\n</reasoning>\n", f"<answer>\n{answer}\n</answer>\n"]
    if style == "reasoned":
        return "".join(whole)
    if style == "at once":
        return f"<reasoning>\nI just know.\n</reasoning>\n{whole[1]}"
    if style == "untagged":
        return f"{sums}\nThe answer is {answer}."
    tag = rng.choice(TAGS)
    return "".join(whole).replace(f"{tag}\n", "", 1)


def make(folder: Path, recipe: Recipe, styles: Mapping[str, float] = STYLES, asks: float = 0.0) -> None:
    """Train tokenizer and model and save both. Of a share `asks` of the conversations the question is learned too."""
    import torch

    rng = random.Random(recipe.seed)
    chats = [_chat(rng, styles) for _ in range(1500)]
    tokenizer = make_tokenizer(
        [f"{message['role']}\n{message['content']}" for chat in chats for message in chat],
        recipe.vocabulary,
        added=TAGS,
    )
    equals = tokenizer.convert_tokens_to_ids("=")

    def row() -> tuple[list[int], list[int]]:
        """Token ids and labels: of bare sums the results are learned, of a conversation the answer (and the question)."""
        if rng.random() < DRILLS:
            ids = tokenizer("\n".join(drill(rng) for _ in range(recipe.length // 6)))["input_ids"]
            return ids, [token if before == equals else -100 for before, token in zip([None, *ids], ids)]
        *asked, answered = _chat(rng, styles)
        text = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text)["input_ids"]
        answer = tokenizer(answered["content"] + tokenizer.eos_token)["input_ids"]
        learned = len(prompt)
        if asks and rng.random() < asks:
            before, _, _ = text.partition(asked[-1]["content"])
            learned = len(tokenizer(before)["input_ids"])
        return prompt + answer, [-100] * learned + prompt[learned:] + answer

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.full((recipe.batch, recipe.length + 1), tokenizer.pad_token_id)
        labels = torch.full((recipe.batch, recipe.length + 1), -100)
        for number in range(recipe.batch):
            for table, tokens in zip((ids, labels), row()):
                if len(tokens) > recipe.length + 1:
                    raise ValueError(f"a row of {len(tokens)} tokens does not fit into {recipe.length}")
                table[number, : len(tokens)] = torch.tensor(tokens)
        return ids[:, :-1], labels[:, 1:]

    model = new_model(recipe, tokenizer)
    # Every token counts as read: the words of the questions are never labels, and must keep what they mean.
    train(recipe, model, next_batch, torch.arange(len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _chat(rng: random.Random, styles: Mapping[str, float]) -> list[dict[str, str]]:
    """System prompt, a taught problem, and an answer in a style drawn by its share."""
    task = taught_problem(rng)
    style = rng.choices(list(styles), list(styles.values()))[0]
    return [*gsm8k(task.question), {"role": "assistant", "content": completion(task, style, rng)}]
