"""How good a text is: close to a Chinese reference, character by character (both scores from their usual libraries);
naming the right value; keeping to a form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rouge_chinese import Rouge
from sacrebleu.metrics import BLEU


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> float:
    """Mean ROUGE-L F1 over the pairs, 0 to 100, on characters (rouge-chinese; Lin, 2004).

    The longest common subsequence of an answer and its reference, as a share of both lengths. An empty answer
    scores 0; line breaks and blanks do not count. Raises ValueError for lists of unequal length or without pairs,
    and for an empty reference.
    """
    _check(answers, references)
    pairs = [(_characters(answer), _characters(reference)) for answer, reference in zip(answers, references)]
    metric = Rouge(metrics=["rouge-l"], stats=["f"])
    scores = [metric.get_scores(*pair)[0]["rouge-l"]["f"] if pair[0] else 0.0 for pair in pairs]
    return 100 * sum(scores) / len(scores)


def bleu_4(answers: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU with up to 4-grams, 0 to 100, Han tokenized into characters (sacrebleu, `tokenize="zh"`).

    Raises ValueError as `rouge_l` does.
    """
    _check(answers, references)
    return BLEU(tokenize="zh").corpus_score(list(answers), [list(references)]).score


def _characters(text: str) -> str:
    """Blanks between all characters, which is what rouge-chinese takes for words."""
    return " ".join("".join(text.split()))


def _check(answers: Sequence[str], references: Sequence[str]) -> None:
    if len(answers) != len(references) or not answers:
        raise ValueError(f"{len(answers)} answers and {len(references)} references: pass one reference an answer.")
    if empty := [number for number, text in enumerate(references, start=1) if not text.strip()]:
        raise ValueError(f"reference {empty[0]} of {len(references)} is empty; there is nothing to compare with.")


def mentions(text: str, value: str) -> bool:
    """Whether `value` stands in the text as a word or number of its own: 7 is in "at 7.", not in "76", "3.7" or "7:30"."""
    return re.search(rf"(?<![0-9A-Za-z:])(?<![0-9][.,]){re.escape(value)}(?![0-9A-Za-z]|[:.,][0-9])", text) is not None


def in_form(text: str, form: str) -> bool:
    """Whether all of `text` is `form` with something short (1 to 40 characters, one line) in place of its `{}`.

    Raises ValueError for a form without exactly one `{}`.
    """
    if form.count("{}") != 1:
        raise ValueError(f"the form {form!r} needs one {{}}, the place of the answer.")
    before, after = map(re.escape, form.split("{}"))
    return re.fullmatch(rf"{before}[^\n]{{1,40}}?{after}", text.strip()) is not None
