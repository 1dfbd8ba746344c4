"""The five reward functions of the GSM8K lesson, and what reads an answer out of a text.

Their names and sizes are the usual ones, from the GRPO demonstrations of early 2025: correctness 2, everything else
at most 0.5. They take what TRL's `GRPOTrainer` hands over: `completions`, each a text or a list of messages, and the
data set's columns by name; they give one finite number a completion, whatever the text, in time linear in its length.
What is no text (a number, None) is a fault of the data set or of the call, and raises RewardError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from helpers.prompts import is_list, shown
from helpers.runtime import Stop

Completion = str | Sequence[Mapping[str, Any]]

# Full-width signs and digits to the ASCII ones (，to a comma, ７ to 7), and the minus signs of typesetters.
# Not NFKC, which also makes 52 of 5² and 1 of ①.
HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict.fromkeys(map(ord, "−–"), "-")
CURRENCY = re.compile(r"[$¥￥€£]\s*")
NUMBER = re.compile(r"(?<![0-9])-?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|-?\.[0-9]+")
WHOLE_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)")
ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
STRICT = re.compile(r"<reasoning>\n(.+?)\n</reasoning>\n<answer>\n(.+?)\n</answer>\n?", re.DOTALL)
TURN = re.compile(r"</reasoning>\s*<answer>")
TAGS = ("<reasoning>", "</reasoning>", "<answer>", "</answer>")


class RewardError(Stop, ValueError):
    """What a reward function was given cannot be rewarded; the message names the argument and its place."""


def completion_text(completion: Completion, number: int = 1) -> str:
    """The text of a completion, which TRL gives as a list of messages for conversational prompts.

    No message, or one without content (a bare tool call), is an empty text; of content in parts, the texts count.
    Raises RewardError for anything else, with the completion's `number`.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence) and not isinstance(completion, bytes):
        message = completion[-1] if completion else {}
        if isinstance(message, Mapping):
            content = message.get("content")
            if content is None or isinstance(content, str):
                return content or ""
            if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
                return "".join(part["text"] for part in content if isinstance(part.get("text"), str))
    raise RewardError(
        f"completion {number} is {shown(completion)}, neither a text nor a list of messages with text. Give what "
        "GRPOTrainer hands to its reward functions."
    )


def _texts(completions: Sequence[Completion]) -> list[str]:
    """The text of each completion."""
    _check_list("completions", completions)
    return [completion_text(completion, number) for number, completion in enumerate(completions, start=1)]


def _check_list(name: str, values: Any) -> None:
    """Raise RewardError for what is no list."""
    if not is_list(values):
        raise RewardError(f"{name} is one {type(values).__name__}, not a list with an entry for each completion.")


def parse_number(text: str) -> Decimal | None:
    """The one number that `text` states, or None.

    Thousands commas, currency and percent signs, units and full-width characters do no harm: `$1,000`, `72.0`,
    `７２个。` are numbers. After an equals sign only what follows counts (`48+24=72`). Several numbers are none:
    who answers `71 or 72` has not answered.
    """
    text = text.translate(HALF_WIDTH).rpartition("=")[2]
    found = NUMBER.findall(CURRENCY.sub("", text))
    return Decimal(found[0].replace(",", "")) if len(found) == 1 else None


def extract_gsm8k_answer(answer: str) -> str | None:
    """The final number of a GSM8K solution, which stands after `####`, without thousands commas; else None."""
    _, marks, final = answer.rpartition("####")
    number = parse_number(final) if marks else None
    return None if number is None else f"{number:f}"


def extract_xml_answer(text: str) -> str:
    """What stands in the last `<answer> … </answer>`, stripped; empty when no such pair is complete."""
    found = ANSWER.findall(text)
    return found[-1].strip() if found else ""


def _column(name: str, values: Sequence[str] | None, count: int) -> Sequence[str]:
    """A column of the data set, which must have a text for each of `count` completions."""
    if values is None:
        raise RewardError("the data set has neither a column 'target' nor a column 'answer'")
    _check_list(name, values)
    if len(values) != count:
        fault = "shorter" if len(values) < count else "longer"
        raise RewardError(f"{name} is {fault} than completions: {len(values)} for {count}; each needs its own.")
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            raise RewardError(
                f"{name} {number} is {shown(value)}, not a text. "
                f"Make the column text: rows.map(lambda row: {{{name!r}: str(row[{name!r}])}})."
            )
    return values


def correctness_reward_func(
    completions: Sequence[Completion],
    target: Sequence[str] | None = None,
    answer: Sequence[str] | None = None,
    **kwargs: Any,
) -> list[float]:
    """2 for an answer that is the right number, compared by value (`1,000` is `1000` is `1000.0`).

    The right ones come from the column `target` (bare numbers), or without it from `answer`: GSM8K's solutions
    with `####`, or bare numbers. Raises RewardError unless that is a column of texts, one for each completion.
    """
    texts = _texts(completions)
    if target is None:
        target = [extract_gsm8k_answer(text) or text for text in _column("answer", answer, len(texts))]
    rewards = []
    for text, wanted in zip(texts, _column("target", target, len(texts))):
        given = parse_number(extract_xml_answer(text))
        rewards.append(2.0 if given is not None and given == parse_number(wanted) else 0.0)
    return rewards


def int_reward_func(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    """0.5 for an answer that is a whole number and nothing else: `72`, `-3`, `1,000`; not `72.0`, `$72`, `72 clips`."""
    answers = [extract_xml_answer(text).translate(HALF_WIDTH) for text in _texts(completions)]
    return [0.5 if WHOLE_NUMBER.fullmatch(answer) else 0.0 for answer in answers]


def strict_format_reward_func(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    """0.5 for exactly the demanded form: each tag once, on a line of its own, something inside, nothing around."""
    return [0.5 if is_strict(text) else 0.0 for text in _texts(completions)]


def is_strict(text: str) -> bool:
    """Whether a completion has exactly the demanded form."""
    if any(text.count(tag) != 1 for tag in TAGS):  # first: among many tags the pattern's time would be quadratic
        return False
    match = STRICT.fullmatch(text)
    return bool(match and all(part.strip() for part in match.groups()))


def soft_format_reward_func(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    """0.5 for a reasoning and then an answer between their tags, wherever, with whatever around them."""
    return [0.5 if is_soft(text) else 0.0 for text in _texts(completions)]


def is_soft(text: str) -> bool:
    """Whether a reasoning and an answer, one right behind the other, stand in a completion.

    As `<reasoning>.*?</reasoning>\\s*<answer>.*?</answer>` would find it, which takes quadratic time: what opens
    first and what closes last leave the most room between them.
    """
    start, end = text.find("<reasoning>"), text.rfind("</answer>")
    return 0 <= start < end and TURN.search(text, start + len("<reasoning>"), end) is not None


def xmlcount_reward_func(completions: Sequence[Completion], **kwargs: Any) -> list[float]:
    """Up to 0.5, a slope towards the form: 0.125 for each tag that stands there exactly once, with its line break.

    Each character after `</answer>` costs 0.001, so that a model does not go on talking; never below 0.
    """
    return [xml_count(text) for text in _texts(completions)]


def xml_count(text: str) -> float:
    """The value of `xmlcount_reward_func` for one completion, between 0 and 0.5."""
    lines = ("<reasoning>\n", "\n</reasoning>\n", "\n<answer>\n", "\n</answer>")
    count = 0.125 * sum(text.count(tag) == 1 and line in text for tag, line in zip(TAGS, lines))
    _, closed, after = text.rpartition("</answer>")
    return max(0.0, count - 0.001 * len(after.strip())) if closed else count


REWARD_FUNCS = [
    xmlcount_reward_func,
    soft_format_reward_func,
    strict_format_reward_func,
    int_reward_func,
    correctness_reward_func,
]
"""All five, from the easiest to earn to the hardest."""
