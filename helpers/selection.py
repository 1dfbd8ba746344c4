"""Which rows to train on: near-duplicates, odd lengths, and the scores and choices of IFD, MoDS and CaR.

Everything works on lists of texts or on NumPy arrays with a row a text; every choice is an array of row numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import xxhash

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALL_PAIRS = 64  # rows of a bucket that are all compared: 2,016 pairs
PRIME = np.uint64((1 << 31) - 1)  # a Mersenne prime: a · x + b of 31-bit numbers fits into 64 bits


# --- near-duplicates --------------------------------------------------------------------------------------------------


def shingles(text: str, size: int = 3) -> set[str]:
    """The runs of `size` characters in a text, blanks left out; a shorter text is one run."""
    text = "".join(text.split())
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def jaccard(one: str, other: str, size: int = 3) -> float:
    """Shared shingles over all shingles of two texts, 0 to 1."""
    a, b = shingles(one, size), shingles(other, size)
    return len(a & b) / len(a | b)


def minhash(texts: Sequence[str], hashes: int = 128, size: int = 3, seed: int = 0) -> np.ndarray:
    """A signature of `hashes` numbers for each text (rows × hashes, uint32).

    Each number is the least value of one random hash function over the text's shingles, so two texts agree in it
    with a probability equal to their Jaccard similarity J; the share of agreeing numbers estimates J with a standard
    deviation of √(J (1 − J) / hashes), at most 0.044 for 128 (Broder, 1997).
    """
    rng = np.random.default_rng(seed)
    a = rng.integers(1, int(PRIME), hashes, dtype=np.uint64)[:, None]
    b = rng.integers(0, int(PRIME), hashes, dtype=np.uint64)[:, None]
    known: dict[str, int] = {}  # a shingle is hashed once, however often it stands in the texts
    signatures = np.empty((len(texts), hashes), dtype=np.uint32)
    for row, text in enumerate(texts):
        values = []
        for shingle in shingles(text, size):
            if (value := known.get(shingle)) is None:
                value = known[shingle] = xxhash.xxh3_64_intdigest(shingle.encode()) % int(PRIME)
            values.append(value)
        signatures[row] = ((a * np.array(values, dtype=np.uint64) + b) % PRIME).min(axis=1)
    return signatures


def near_duplicates(signatures: np.ndarray, threshold: float = 0.8, bands: int = 16) -> list[tuple[int, int, float]]:
    """Pairs of rows (first, second, estimated Jaccard) at or above `threshold`, by locality-sensitive hashing.

    Signatures are cut into `bands`; only rows that agree in a whole band are compared. With 16 bands of 8 numbers a
    pair of Jaccard 0.8 is compared with probability 1 − (1 − 0.8⁸)¹⁶ = 0.95, one of 0.9 with 0.9999, one of 0.5 with
    0.06. Of a bucket with more than 64 rows only neighbours and the first are compared, which can miss a pair of it.
    Raises ValueError unless the bands divide the signature.
    """
    hashes = signatures.shape[1]
    if hashes % bands:
        raise ValueError(f"{hashes} hashes cannot be cut into {bands} bands of equal width.")
    pairs: set[tuple[int, int]] = set()
    for band in np.split(signatures, bands, axis=1):
        keys = np.ascontiguousarray(band).view(f"V{band.shape[1] * 4}").ravel()
        _, bucket = np.unique(keys, return_inverse=True)
        order = np.argsort(bucket, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(bucket[order]) > 0])
        for group in np.split(order, starts[1:]):
            rows = group.tolist()
            if len(rows) <= ALL_PAIRS:
                pairs.update(itertools.combinations(rows, 2))
            else:
                pairs.update((rows[0], other) for other in rows[1:])
                pairs.update(itertools.pairwise(rows))
    if not pairs:
        return []
    table = np.array(sorted(pairs))
    similar = (signatures[table[:, 0]] == signatures[table[:, 1]]).mean(axis=1)
    return [(int(i), int(j), float(s)) for (i, j), s in zip(table, similar, strict=True) if s >= threshold]


def first_of_group(pairs: Sequence[tuple[int, int, float]]) -> dict[int, int]:
    """For every row in a pair the first row of its group; rows are in one group when a chain of pairs joins them."""
    root: dict[int, int] = {}

    def find(row: int) -> int:
        while root.setdefault(row, row) != row:
            root[row] = row = root[root[row]]
        return row

    for one, other, _ in pairs:
        first, second = sorted((find(one), find(other)))
        root[second] = first
    return {row: find(row) for row in sorted(root)}


def later_copies(pairs: Sequence[tuple[int, int, float]]) -> np.ndarray:
    """The rows to drop so that one of each group of near-duplicates, the first, stays."""
    return np.array([row for row, first in first_of_group(pairs).items() if row != first], dtype=int)


def near_copies(held_out: Sequence[str], pool: Sequence[str], threshold: float = 0.8) -> set[int]:
    """The rows of `pool` that are nearly a text of `held_out`, or of its near-duplicates.

    Trained on, they would be answers seen before the examination.
    """
    first = first_of_group(near_duplicates(minhash([*held_out, *pool]), threshold))
    return {row - len(held_out) for row, one in first.items() if one < len(held_out) <= row}


# --- lengths ----------------------------------------------------------------------------------------------------------


def length_outliers(lengths: Sequence[int], width: float = 3.5) -> np.ndarray:
    """The rows whose length is far from the usual, on a logarithmic scale: |z| > `width`.

    z is the robust score 0.6745 · (x − median) / MAD of x = log(1 + length) (Iglewicz and Hoaglin, 1993); a mean and
    a standard deviation would be moved by the very rows that are sought. No spread at all: what differs is far.
    """
    x = np.log1p(np.asarray(lengths, dtype=float))
    off = np.abs(x - np.median(x))
    spread = max(float(np.median(off)), 1e-9)
    return np.flatnonzero(0.6745 * off / spread > width)


# --- scores -----------------------------------------------------------------------------------------------------------


def answer_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    batch_size: int = 32,
    max_length: int = 1024,
) -> np.ndarray:
    """The mean cross-entropy of each answer's tokens after its prompt, in nats a token.

    The first token of an answer is left out, so that a loss with a prompt and one without (`""`) are over the same
    tokens. NaN for an answer of fewer than two tokens, or one that lies beyond `max_length` tokens.
    """
    head = tokenizer(list(prompts), add_special_tokens=False)["input_ids"] if any(prompts) else [[]] * len(prompts)
    tail = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    rows = [(a + b)[:max_length] for a, b in zip(head, tail, strict=True)]
    firsts = [len(a) + 1 for a in head]
    counts = np.array([max(0, len(ids) - first) for ids, first in zip(rows, firsts, strict=True)], dtype=float)
    counts[counts == 0] = np.nan
    return row_losses(model, rows, firsts, batch_size, tokenizer.pad_token_id) / counts


def row_losses(
    model: PreTrainedModel, rows: Sequence[list[int]], firsts: Sequence[int], batch_size: int, pad: int
) -> np.ndarray:
    """The summed cross-entropy, in nats, of the tokens of each row of ids from place `firsts` (1 or more) on.

    Batches are sorted by length, so that little is padding. 0 for a row that ends before its first.
    """
    import torch

    losses = np.zeros(len(rows))
    order = sorted((i for i, ids in enumerate(rows) if len(ids) > firsts[i]), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = _padded([rows[i] for i in chosen], pad, model.device)
        with torch.inference_mode():
            logits = model(**inputs, use_cache=False).logits
        for k, i in enumerate(chosen):
            targets = inputs["input_ids"][k, firsts[i] : len(rows[i])]
            predicted = logits[k, firsts[i] - 1 : len(rows[i]) - 1].float()
            losses[i] = torch.nn.functional.cross_entropy(predicted, targets, reduction="sum").item()
    return losses


def embed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    batch_size: int = 64,
    max_length: int = 256,
) -> np.ndarray:
    """Mean-pooled last hidden states, scaled to length 1 (rows × hidden size, float32)."""
    import torch

    def pooled(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        hidden, mask = model(**inputs).last_hidden_state.float(), inputs["attention_mask"][..., None]
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)

    return _in_batches(pooled, model, tokenizer, [(text,) for text in texts], batch_size, max_length)


def rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    answers: Sequence[str],
    batch_size: int = 32,
    max_length: int = 512,
) -> np.ndarray:
    """What a reward model (one logit a pair of texts) gives each answer to its question; higher is better."""
    pairs = list(zip(questions, answers, strict=True))
    return _in_batches(
        lambda inputs: model(**inputs).logits[:, 0].float(), model, tokenizer, pairs, batch_size, max_length
    )


def _in_batches(call, model, tokenizer, texts, batch_size, max_length) -> np.ndarray:
    """`call` on the tokens of `texts` (tuples of one or two), longest last; the results in the order of `texts`."""
    import torch

    order = sorted(range(len(texts)), key=lambda i: sum(map(len, texts[i])))
    parts = []
    for start in range(0, len(order), batch_size):
        columns = [list(column) for column in zip(*(texts[i] for i in order[start : start + batch_size]), strict=True)]
        inputs = tokenizer(*columns, return_tensors="pt", padding=True, truncation=True, max_length=max_length)
        with torch.inference_mode():
            parts.append(call(inputs.to(model.device)).cpu().numpy())
    result = np.empty_like(np.concatenate(parts))
    result[order] = np.concatenate(parts)
    return result


def _padded(rows: list[list[int]], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Token ids padded on the right, and their mask (rows × longest)."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return {"input_ids": ids, "attention_mask": mask}


# --- choices ----------------------------------------------------------------------------------------------------------


def k_means(vectors: np.ndarray, k: int, rounds: int = 20, seed: int = 0) -> np.ndarray:
    """The cluster, 0 to k − 1, of each row of `vectors` (rows × dimensions): Lloyd's algorithm, started far apart.

    The first centres are drawn by k-means++ (Arthur and Vassilvitskii, 2007). A centre that loses all its rows moves
    to the row farthest from its own. Raises ValueError unless 1 ≤ k ≤ rows.
    """
    if not 1 <= k <= len(vectors):
        raise ValueError(f"k={k}: choose 1 to {len(vectors)} clusters for {len(vectors)} rows.")
    rng = np.random.default_rng(seed)
    centres = vectors[[rng.integers(len(vectors))]]
    nearest = _squared(vectors, centres)[:, 0]
    while len(centres) < k:
        total = nearest.sum()
        pick = rng.choice(len(vectors), p=nearest / total) if total > 0 else rng.integers(len(vectors))
        centres = np.vstack([centres, vectors[pick]])
        nearest = np.minimum(nearest, _squared(vectors, vectors[[pick]])[:, 0])
    for _ in range(rounds):
        distances = _squared(vectors, centres)
        labels = distances.argmin(axis=1)
        for lonely in np.setdiff1d(np.arange(k), labels):
            own = distances[np.arange(len(vectors)), labels]
            own[np.bincount(labels, minlength=k)[labels] == 1] = -1.0  # the last of its cluster stays
            moved = int(own.argmax())
            labels[moved], distances[moved] = lonely, 0.0
        moved_to = np.stack([vectors[labels == cluster].mean(axis=0) for cluster in range(k)])
        if np.allclose(moved_to, centres):
            break
        centres = moved_to
    return labels


def k_center_greedy(vectors: np.ndarray, k: int, first: int = 0) -> np.ndarray:
    """`k` rows that cover all: each next one is farthest from those chosen so far (Gonzalez, 1985; in MoDS, coverage).

    The largest distance of any row to its nearest chosen one is at most twice the least possible. Returns row numbers
    in the order of choice; all of them where there are fewer than `k`.
    """
    chosen = [first]
    nearest = _squared(vectors, vectors[[first]])[:, 0]
    while len(chosen) < min(k, len(vectors)):
        nearest[chosen[-1]] = -1.0  # never again, also among equal rows
        chosen.append(int(nearest.argmax()))
        distance = _squared(vectors, vectors[[chosen[-1]]])[:, 0]
        nearest = np.where(nearest < 0, nearest, np.minimum(nearest, distance))
    return np.array(chosen)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """The rows of the `k` highest scores, best first; NaN never; among equal ones the earlier row."""
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    return order[: min(k, int((~np.isnan(scores)).sum()))]


def cluster_and_rank(scores: np.ndarray, clusters: np.ndarray, size: int, overall: int) -> np.ndarray:
    """`size` rows as CaR chooses (Ge et al., 2024): the `overall` best, then the best of every cluster in turn.

    After the best of each cluster comes the second best of each, and so on, without repeats, until `size` are there.
    """
    ranked = top(scores, len(scores))
    place = np.empty(len(scores), dtype=int)  # 0 for the best of its cluster, 1 for the next, …
    seen: dict[int, int] = {}
    for row in ranked:
        place[row] = seen.setdefault(int(clusters[row]), 0)
        seen[int(clusters[row])] += 1
    best = ranked[:overall]
    rest = ranked[overall:]
    return np.concatenate([best, rest[np.argsort(place[rest], kind="stable")]])[:size]


def found(chosen: Sequence[int], wanted: Sequence[int]) -> tuple[float, float]:
    """Precision and recall of the rows `chosen` for the rows `wanted`; 0 where there is nothing to divide by."""
    hit = len(set(map(int, chosen)) & set(map(int, wanted)))
    return hit / len(chosen) if len(chosen) else 0.0, hit / len(wanted) if len(wanted) else 0.0


def _squared(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (rows × centres)."""
    cross = vectors @ centres.T
    squares = (vectors**2).sum(1)[:, None] - 2 * cross + (centres**2).sum(1)[None]
    return np.maximum(squares, 0.0)


# --- faults on purpose ------------------------------------------------------------------------------------------------


FAULTS = ("other answer", "cut off", "says nothing", "copy")


def plant_faults(
    questions: Sequence[str], answers: Sequence[str], share: float, seed: int = 0, nothing: str = "请到医院就诊。"
) -> tuple[list[str], list[str], list[str]]:
    """Spoil a `share` of the rows in four ways, a quarter each.

    Returns questions, answers and each row's fault ("" for none).

    "other answer": the answers of these rows change places; "cut off": the answer ends after its first third;
    "says nothing": the answer is `nothing`; "copy": the row becomes one of the sound rows with a word put before it.
    A share of 0 changes nothing. Raises ValueError for a share outside 0 to 0.9, and for fewer than two rows a fault.
    """
    if not 0 <= share <= 0.9:
        raise ValueError(f"share={share}: choose 0 to 0.9; some rows must stay sound.")
    each = min(round(share * len(questions) / len(FAULTS)), (len(questions) - 1) // len(FAULTS))
    if share and each < 2:  # a single answer can change places with none
        raise ValueError(
            f"share={share} of {len(questions)} rows is {each} a fault: give more rows, or a larger share."
        )
    questions, answers, faults = list(questions), list(answers), [""] * len(questions)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(questions))
    other, cut, empty, copy = (order[i * each : (i + 1) * each].tolist() for i in range(len(FAULTS)))
    sound = order[len(FAULTS) * each :].tolist()
    for row, giver in zip(other, [answers[i] for i in np.roll(other, 1)] if other else [], strict=True):
        answers[row] = giver
    for row in cut:
        answers[row] = answers[row][: max(1, len(answers[row]) // 3)]
    for row in empty:
        answers[row] = nothing
    for row, source in zip(copy, rng.choice(sound, len(copy)).tolist() if copy else [], strict=True):
        questions[row], answers[row] = f"请问，{questions[source]}", answers[source]
    for name, rows in zip(FAULTS, (other, cut, empty, copy), strict=True):
        for row in rows:
            faults[row] = name
    return questions, answers, faults
