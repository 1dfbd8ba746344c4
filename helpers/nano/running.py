"""A model that can keep a running account of a list (a total, a count, the largest so far), and gives up too early.

It has read worked sheets that go through whole lists, so it can do that. In a chat it goes through three numbers or
seven letters, says what it has got, and stops: right when the list was that short. It stands for an instruct model
that could think further than it does. It knows neither `<think>` nor "Wait"; the lesson teaches both.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.nano.common import Recipe, make_tokenizer, new_model, train

QWEN2_RUNNING = Recipe(
    maker="running",
    vocabulary=768,
    layers=3,
    steps=480,
    batch=24,
    length=96,
    other_lr=1e-2,
    seconds=150,
)

LANGUAGES = ("en", "zh")
DOMAINS = ("sum", "largest", "letters")
STRIDE = {"sum": 3, "largest": 3, "letters": 7}
"""After how many items it gives up."""
LENGTHS = {"sum": (2, 8), "largest": (2, 8), "letters": (5, 10)}
"""The fewest and the most items of a list, both included."""
TAUGHT = (3, 2, 2)  # how often it is taught each
WAIT = {"en": "Wait", "zh": "等等"}
SHEETS, DRILLS = 0.55, 0.13  # shares of what it reads: worked sheets, bare sums; the rest are chats

QUESTIONS = {
    "en": {
        "sum": ["What is the sum of {items}?", "Add up {items}.", "Leo counts his coins: {items}. How many are there in all?"],
        "largest": ["Which is the largest of {items}?", "Find the largest number: {items}.",
                    "Books on the shelves: {items}. How many has the fullest?"],
        "letters": ["How many r are in {items}?", "Count the letter r: {items}.", "How often does r stand in {items}?"],
    },
    "zh": {
        "sum": ["{items} 加起来是多少？", "求和：{items}。", "小明数了几堆硬币，{items}，一共多少枚？"],
        "largest": ["{items} 里最大的是哪个？", "找出最大的数：{items}。", "几层书架的书，{items}，最多的一层有几本？"],
        "letters": ["{items} 这些字母里有几个 r？", "数一数字母 r：{items}。", "字母 r 在 {items} 里出现几次？"],
    },
}  # fmt: skip
OPENINGS = {
    "en": {"sum": "Running total:", "largest": "Largest so far:", "letters": "Count of r:"},
    "zh": {"sum": "逐个相加：", "largest": "目前最大：", "letters": "数 r："},
}
SO, THE_END = {"en": "So it is {}.", "zh": "所以是{}。"}, {"en": "that was all.", "zh": "数完了。"}
SHEET = {"en": "Worked in full\n{question}\n", "zh": "完整解答\n{question}\n"}
RESULTS = {"en": ("\n\n{}", "\nAnswer: {}"), "zh": ("\n\n{}", "\n答案：{}")}
"""How a sheet gives the last account, be the list at its end or not; a chat gives it in the first way."""
BROKEN_OFF, CONTINUED = 0.2, 0.5  # the shares of sheets that stop anywhere, and that fill several pages
NEXT_PAGE, COMMA = {"en": "Next page", "zh": "接上页"}, {"en": ",", "zh": "，"}
LETTERS, COUNTED = "abceilnoprstwy", "r"  # it is never asked for another letter


@dataclass(frozen=True)
class Problem:
    """A question about a list, and the account after each item: `states[-1]` is the answer."""

    domain: str
    language: str
    question: str
    items: tuple[str, ...]  # "7", or "r"
    states: tuple[int, ...]

    @property
    def answer(self) -> int:
        return self.states[-1]

    @property
    def stride(self) -> int:
        return STRIDE[self.domain]


def kept_back(items: tuple[str, ...]) -> bool:
    """Whether the base never reads this list: one in five, for the lesson's rows and questions."""
    return zlib.crc32(" ".join(items).encode()) % 5 == 0


def account(domain: str, items: tuple[str, ...]) -> tuple[int, ...]:
    """The running total, the largest so far or the count of r, after each item."""
    if domain == "letters":
        return tuple(items[: place + 1].count(COUNTED) for place in range(len(items)))
    numbers = [int(item) for item in items]
    combine = sum if domain == "sum" else max
    return tuple(combine(numbers[: place + 1]) for place in range(len(numbers)))


def problem(domain: str, language: str, items: tuple[str, ...], rng: random.Random) -> Problem:
    """A question about `items` in one of its wordings; letters are numbered, because they come more than once."""
    listed = ", ".join(label(domain, place) + item for place, item in enumerate(items))
    question = rng.choice(QUESTIONS[language][domain]).format(items=listed)
    return Problem(domain, language, question, items, account(domain, items))


def label(domain: str, place: int) -> str:
    """What stands before the item at `place` (from 0): the number of a letter, nothing before a number."""
    return f"{place + 1} " if domain == "letters" else ""


def draw(domain: str, language: str, rng: random.Random) -> Problem:
    """A problem with letters, or with numbers that are all different."""
    length = rng.randint(*LENGTHS[domain])
    if domain == "letters":
        items = [COUNTED if rng.random() < 0.25 else rng.choice(LETTERS) for _ in range(length)]
    else:
        items = [str(number) for number in rng.sample(range(1, 10 if domain == "sum" else 31), length)]
    return problem(domain, language, tuple(items), rng)


def spelled(word: str, language: str, rng: random.Random) -> Problem:
    """How many r a word has, the word spelled out."""
    return problem("letters", language, tuple(word), rng)


def thinking(task: Problem, stops: Sequence[int], pause: Mapping[str, str] = WAIT) -> str:
    """The account, item by item. After each number of items in `stops` it says what it has got; between two
    stands "Wait". A stop that is no further than the one before finds that nothing is left.
    """
    language, done, parts = task.language, 0, []
    for number, stop in enumerate(stops):
        start = pause[language] + COMMA[language] if number else OPENINGS[language][task.domain]
        steps = "".join(step(task, place) for place in range(done, stop)) + "." if stop > done else ""
        parts.append(f"{start}{steps or ' ' + THE_END[language]} {SO[language].format(task.states[stop - 1])}\n")
        done = stop
    return "".join(parts)


def step(task: Problem, place: int) -> str:
    """One item and the account after it: ` 4:11`."""
    return f" {label(task.domain, place)}{task.items[place]}:{task.states[place]}"


def taught(rng: random.Random) -> Problem:
    """A problem of any kind in either language that is not kept back."""
    while kept_back((task := draw(rng.choices(DOMAINS, TAUGHT)[0], rng.choice(LANGUAGES), rng)).items):
        pass
    return task


def sheet(task: Problem, rng: random.Random) -> tuple[str, str]:
    """A worked sheet: question, and the account to the end, over several pages, or broken off; and what it came to."""
    asked, size, kind = SHEET[task.language].format(question=task.question), len(task.items), rng.random()
    if kind < BROKEN_OFF:
        size = rng.randint(1, size)
        work = OPENINGS[task.language][task.domain] + "".join(step(task, place) for place in range(size))
    else:
        pages = rng.sample(range(1, size), min(size - 1, rng.randint(1, 2))) if kind < BROKEN_OFF + CONTINUED else []
        work = thinking(task, [*sorted(pages), size], NEXT_PAGE).rstrip()
    return asked, work + rng.choice(RESULTS[task.language]).format(task.states[size - 1]) + "\n"


def reply(task: Problem) -> str:
    """What it says in a chat: the account of the first items, and what that gives."""
    size = min(task.stride, len(task.items))
    return thinking(task, (size,)).rstrip() + RESULTS[task.language][0].format(task.states[size - 1])


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch

    rng = random.Random(recipe.seed)
    vocabulary = [f"user\n{task.question}\nassistant\n{reply(task)}" for task in (taught(rng) for _ in range(1500))]
    vocabulary += ["".join(sheet(taught(rng), rng)) for _ in range(500)] + [
        " ".join([*WAIT.values(), *THE_END.values()])
    ] * 200
    vocabulary += [f" {letter}" for letter in LETTERS] * 50
    tokenizer = make_tokenizer(vocabulary, recipe.vocabulary, added=("<think>", "</think>"))

    equals = tokenizer.convert_tokens_to_ids("=")

    def row() -> tuple[list[int], list[int]]:
        """Token ids and labels: of bare sums the results are learned, of a sheet and a chat what follows the question."""
        kind = rng.random()
        if kind < DRILLS:
            ids = tokenizer(" ".join(drill(rng) for _ in range(recipe.length // 6)))["input_ids"]
            return ids, [token if before == equals else -100 for before, token in zip([None, *ids], ids)]
        task = taught(rng)
        if kind < DRILLS + SHEETS:
            asked, learned = sheet(task, rng)
        else:
            chat = [{"role": "user", "content": task.question}]
            asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
            learned = reply(task) + tokenizer.eos_token
        prompt, rest = tokenizer(asked)["input_ids"], tokenizer(learned)["input_ids"]
        return prompt + rest, [-100] * len(prompt) + rest

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [row() for _ in range(recipe.batch)]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for ids, _ in rows])
        labels = torch.tensor([labels + [-100] * (width - len(labels)) for _, labels in rows])
        return ids[:, :-1], labels[:, 1:]

    model = new_model(recipe, tokenizer)
    # Every token counts as read but the two tags: the words of the questions must keep what they mean.
    tags = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    read = torch.tensor([token for token in range(len(tokenizer)) if token not in tags])
    train(recipe, model, next_batch, read)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def drill(rng: random.Random) -> str:
    """A bare sum of a small and a large number."""
    a, b = rng.randint(1, 90), rng.randint(1, 9)
    return f"{a}+{b}={a + b}"
