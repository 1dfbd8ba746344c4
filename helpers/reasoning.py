"""Texts that think aloud before they answer: `<think>…</think>` and its relatives."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal

from helpers.budget import Budgeted, generate_with_budget
from helpers.rewards import HALF_WIDTH, NUMBER

__all__ = [
    "Budgeted",
    "Split",
    "agrees",
    "final_answer",
    "generate_with_budget",
    "key_of",
    "same_answer",
    "split_thinking",
]

TAGS = ("think", "thinking", "thought", "reasoning", "思考")
"""The tag names that are taken for thinking, in any capitals: DeepSeek-R1 writes the first."""

EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)  # Python's own rounds to 28 digits


@dataclass(frozen=True)
class Split:
    """A completion taken apart. `fault` says why it is not well formed; None means that it is.

    Without a fault, `thinking` and `answer` are both there, and neither holds a tag.
    """

    thinking: str
    answer: str
    fault: str | None

    @property
    def well_formed(self) -> bool:
        return self.fault is None


def split_thinking(text: str, *, opened: bool = False, tags: Sequence[str] = TAGS) -> Split:
    """Take `<think>thinking</think>answer` apart; never raises, whatever the text holds.

    `opened=True` when the prompt ended with the opening tag, so that the completion begins inside the thinking.
    `tags` are the names to look for. Where the form is broken, the split is a best guess: what stands after the
    last closing tag is the answer; without one there is only thinking, or, when nothing was opened, only an answer.
    Both parts come without tags and without blanks around them.
    """
    pattern = re.compile(rf"<\s*(?:(/)\s*)?({'|'.join(map(re.escape, tags))})\s*>", re.IGNORECASE)
    found = list(pattern.finditer(text))
    opening, closing = [m for m in found if not m[1]], [m for m in found if m[1]]
    if closing:
        thinking, answer = text[: closing[-1].start()], text[closing[-1].end() :]
    elif opening or opened:
        thinking, answer = text, ""
    else:
        thinking, answer = "", text
    before = ""
    if opening and not opened and opening[0].start() < len(thinking):
        before, thinking = thinking[: opening[0].start()], thinking[opening[0].end() :]
    thinking, answer = _bare(thinking, pattern), _bare(answer, pattern)
    return Split(thinking, answer, _fault(opening, closing, opened, before, thinking, answer))


def _bare(text: str, pattern: re.Pattern[str]) -> str:
    """The text without tags, also without those that taking one out joins from halves (`<<think>think>`).

    In one pass, as brackets are matched: a tag is what stands between a `>` and the nearest `<` that is left.
    """
    pieces: list[str] = []
    opened: list[int] = []  # the pieces that begin with a < which may still become a tag
    for piece in re.split("(?=<)|(?<=>)", text):
        if piece.startswith("<"):
            opened.append(len(pieces))
        pieces.append(piece)
        if piece.endswith(">"):
            if opened and pattern.fullmatch("".join(pieces[opened[-1] :])):
                del pieces[opened.pop() :]
            else:
                opened.clear()  # this > stays, and no tag goes across one
    return "".join(pieces).strip()


def _fault(
    opening: list[re.Match[str]],
    closing: list[re.Match[str]],
    opened: bool,
    before: str,
    thinking: str,
    answer: str,
) -> str | None:
    """What is wrong with the form, the first thing that a reader would meet; None when nothing is."""
    times = len(opening) + opened
    if not times and not closing:
        return "no thinking: no opening tag, no closing tag"
    if not times:
        return "never opened (if the prompt ends with the opening tag, pass opened=True)"
    if times > 1:
        return f"opened {times} times"
    if not closing:
        return "never closed"
    if len(closing) > 1:
        return f"closed {len(closing)} times"
    if opening and closing[0].start() < opening[0].start():
        return "closed before it was opened"
    if opening and opening[0][2].lower() != closing[0][2].lower():
        return f"opened with {opening[0][0]}, closed with {closing[0][0]}"
    if before.strip():
        return "text before the thinking"
    if not thinking:
        return "nothing was thought"
    return None if answer else "no answer after the thinking"


def key_of(response: str) -> str | None:
    """What a reference answer marks as its key: its first text in bold (`**…**`), or None."""
    bold = re.search(r"\*\*(.+?)\*\*", response, re.DOTALL)
    return bold[1].strip() or None if bold else None


def agrees(answer: str, key: str) -> bool:
    """Whether `key` stands in the answer, whatever the case, punctuation and line breaks.

    `key` may name alternatives, `normal residual volume|residual volume is normal`. This finds words, not meaning:
    "not a stone" holds "a stone", and another wording of the same finding is missed.
    """
    said = f" {_words(answer)} "
    return any(words in said for part in key.split("|") if (words := _around(_words(part))).strip())


def _words(text: str) -> str:
    """Letters and digits in lower case, everything else one blank."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", text).lower()))


def _around(words: str) -> str:
    """With blanks around, so that "low" is not found in "slow"; Chinese writes no blanks between words."""
    return words if re.search(r"[\u3400-\u9fff]", words) else f" {words} "


def final_answer(text: str) -> str | None:
    r"""What a solution comes to: the content of its last `\boxed{…}`, else its last number, else None.

    Numbers come without thousands commas, so that `1,000` and `1000` are the same.
    """
    start = text.rfind(r"\boxed{")
    if start >= 0:
        depth, begin = 1, start + len(r"\boxed{")
        for place in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if not depth:
                return _bare_number(text[begin:place].strip()) or None
    numbers = NUMBER.findall(text.translate(HALF_WIDTH))
    return _bare_number(numbers[-1]) if numbers else None


def same_answer(answer: str, solution: str) -> bool | None:
    """Whether an answer comes to what the solution comes to; None when the solution has no short final answer."""
    wanted, given = final_answer(solution), final_answer(answer)
    return None if wanted is None else given is not None and given == wanted


def _bare_number(text: str) -> str:
    """A number in one spelling (`1,000.0` is `1000`); any other text as it is, without blanks and dollar signs."""
    text = re.sub(r"[\s$]", "", text)
    number = text.translate(HALF_WIDTH)
    if not NUMBER.fullmatch(number):
        return text
    return f"{EXACT.plus(Decimal(number.replace(',', '')).normalize(EXACT)):f}"  # plus: -0 is 0
