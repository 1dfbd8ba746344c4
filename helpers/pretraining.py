"""Continued pre-training: documents packed into blocks, two corpora mixed, and perplexity."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers.selection import row_losses

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def pack(documents: Iterable[Sequence[int]], length: int, end: int) -> list[list[int]]:
    """Blocks of exactly `length` token ids: the documents one after another, each followed by the token `end`, cut.

    No block has padding, and a document may begin in one block and end in the next. What does not fill a last block
    is dropped: fewer than `length` tokens in all. Raises ValueError for a length below 2, where nothing is predicted.
    """
    if length < 2:
        raise ValueError(f"blocks of {length} tokens predict nothing; choose 2 or more.")
    stream = [token for ids in documents for token in (*ids, end)]
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]


def parts(mixture: str) -> tuple[float, float]:
    """The shares of domain and general text in a mixture such as "1:5"; they sum to 1.

    Raises ValueError for anything but two numbers of 0 or more with a colon between them, not both 0.
    """
    try:
        domain, general = (float(part) for part in mixture.split(":"))
    except ValueError:
        domain = general = math.nan
    total = domain + general
    if not (0 < total < math.inf and domain >= 0 and general >= 0):
        raise ValueError(f"{mixture!r} is no mixture; write domain:general, for example 1:5.")
    return domain / total, general / total


def mix(
    domain: Sequence[Sequence[int]], general: Sequence[Sequence[int]], mixture: str, size: int, seed: int = 0
) -> list[tuple[bool, Sequence[int]]]:
    """`size` blocks in the ratio of `mixture`, shuffled: (whether it is domain text, the block).

    Blocks are of one length, so a ratio of blocks is a ratio of tokens. Where more blocks are wanted than there are,
    all are taken before any is taken again, in a new order. Raises ValueError where blocks are wanted and none is
    there.
    """
    rng = random.Random(seed)
    wanted = round(size * parts(mixture)[0])
    chosen = []
    for is_domain, blocks, number in ((True, domain, wanted), (False, general, size - wanted)):
        if number and not blocks:
            kind = "domain" if is_domain else "general"
            raise ValueError(f"the mixture {mixture!r} wants {kind} text, and there is no {kind} block.")
        while number:
            taken = rng.sample(range(len(blocks)), min(number, len(blocks)))
            chosen += [(is_domain, blocks[i]) for i in taken]
            number -= len(taken)
    rng.shuffle(chosen)
    return chosen


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts some texts; each array has an entry a text."""

    nats: np.ndarray  # summed over its tokens
    tokens: np.ndarray  # predicted: all but the first
    bytes: np.ndarray  # of these tokens, in UTF-8

    @property
    def loss(self) -> float:
        """Nats a token: every token counts the same, so a long text counts more than a short one."""
        return float(self.nats.sum() / self.tokens.sum())

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many tokens the model might as well guess. Of one tokenizer only."""
        return math.exp(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """The same without tokens, so that models with different tokenizers can be compared."""
        return float(self.nats.sum() / math.log(2) / self.bytes.sum())


def perplexity(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 8,
    length: int = 1024,
) -> Perplexity:
    """Predict each text from its own beginning alone, in windows of at most `length` tokens.

    The first token of a text has nothing before it and is not predicted; every other one is, once. A later window
    begins with the last token of the one before it and sees no more of that, so a small `length` makes texts look
    harder. Texts of fewer than two tokens have nothing to predict: 0 nats, 0 tokens. Raises ValueError without any
    text of two tokens.
    """
    coded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rows, owners = [], []
    for number, ids in enumerate(coded["input_ids"]):
        for start in range(0, len(ids) - 1, length - 1):
            rows.append(ids[start : start + length])
            owners.append(number)
    if not rows:
        raise ValueError(f"none of the {len(texts)} texts has two tokens; there is nothing to predict.")
    nats = np.zeros(len(texts))
    np.add.at(nats, owners, row_losses(model, rows, [1] * len(rows), batch_size, tokenizer.pad_token_id))
    scored = [
        text[offsets[1][0] :] if len(offsets) > 1 else "" for text, offsets in zip(texts, coded["offset_mapping"])
    ]
    return Perplexity(
        nats,
        np.array([max(0, len(ids) - 1) for ids in coded["input_ids"]]),
        np.array([len(text.encode()) for text in scored]),
    )


def chosen_endings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    quiz: Sequence[Mapping[str, Any]],
    batch_size: int = 8,
) -> np.ndarray:
    """For each row of a quiz (`data.load_quiz`) the number of the ending that the model finds likeliest.

    The likeliest by the mean loss of its tokens, so that a long ending is not worse for being long.
    """
    heads = tokenizer([row["beginning"] for row in quiz], add_special_tokens=False)["input_ids"]
    tails = [tokenizer(list(row["endings"]), add_special_tokens=False)["input_ids"] for row in quiz]
    rows = [head + tail for head, several in zip(heads, tails, strict=True) for tail in several]
    firsts = [len(head) for head, several in zip(heads, tails, strict=True) for _ in several]
    nats = iter(row_losses(model, rows, firsts, batch_size, tokenizer.pad_token_id))
    return np.array([int(np.argmin([next(nats) / len(tail) for tail in several])) for several in tails])
