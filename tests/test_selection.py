"""Choosing rows: what MinHash promises, what each score and choice does, and the faults planted on purpose."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import selection as S

TEXTS = st.lists(st.text("头晕咳嗽发热胃痛 ", min_size=1, max_size=60), min_size=2, max_size=8)


def edited(text: str, edits: int, rng: random.Random) -> str:
    signs = list(text)
    for place in rng.sample(range(len(signs)), edits):
        signs[place] = chr(rng.randrange(0x4E00, 0x9FFF))
    return "".join(signs)


def han(length: int, rng: random.Random) -> str:
    return "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(length))


def test_shingles_are_runs_of_characters_without_blanks() -> None:
    assert S.shingles("头 晕咳嗽\n") == {"头晕咳", "晕咳嗽"}
    assert S.shingles("晕") == {"晕"} and S.shingles("") == {""}
    assert S.jaccard("头晕咳嗽", "头晕咳嗽了") == pytest.approx(2 / 3)


def test_minhash_estimates_jaccard_within_its_error() -> None:
    rng = random.Random(0)
    pairs = []
    for edits in range(40):
        text = han(120, rng)
        pairs.append((text, edited(text, edits, rng)))
    one, other = (S.minhash(column, hashes=256) for column in zip(*pairs, strict=True))
    truth = np.array([S.jaccard(*pair) for pair in pairs])
    errors = (one == other).mean(axis=1) - truth
    bound = np.sqrt(np.maximum(truth * (1 - truth), 1e-9) / 256)
    assert (np.abs(errors) <= 4 * bound + 1e-6).all()
    assert abs(errors.mean()) < 0.02  # no bias
    assert truth.min() < 0.3 and truth.max() == 1


@given(TEXTS, st.integers(0, 3))
def test_minhash_of_a_text_is_its_own(texts: list[str], seed: int) -> None:
    """A signature depends on the text alone, not on its neighbours; equal shingles give equal signatures."""
    together = S.minhash(texts, hashes=16, seed=seed)
    assert all((S.minhash([text], hashes=16, seed=seed)[0] == row).all() for text, row in zip(texts, together))
    assert (S.minhash([" ".join(texts[0])], hashes=16, seed=seed)[0] == together[0]).all()


def test_near_duplicates_finds_edited_copies_and_no_strangers() -> None:
    rng = random.Random(1)
    texts = [han(100, rng) for _ in range(200)]
    texts += [edited(text, 2, rng) for text in texts[:100]]  # Jaccard about 0.89
    pairs = S.near_duplicates(S.minhash(texts), threshold=0.75)
    assert {(i, j) for i, j, _ in pairs} <= {(i, i + 200) for i in range(100)}
    assert len(pairs) >= 98
    assert S.later_copies(pairs).tolist() == [j for _, j, _ in sorted(pairs)]
    assert all(s >= 0.75 for *_, s in pairs)


def test_near_duplicates_threshold_and_bands() -> None:
    signatures = S.minhash(["头晕咳嗽发热", "头晕咳嗽发热", "胃痛反酸便秘"], hashes=32)
    assert S.near_duplicates(signatures, threshold=0.9, bands=8) == [(0, 1, 1.0)]
    assert S.near_duplicates(signatures[1:], threshold=0.9, bands=8) == []
    with pytest.raises(ValueError, match="bands"):
        S.near_duplicates(signatures, bands=5)


def test_groups_are_chains_and_the_first_row_stays() -> None:
    pairs = [(4, 5, 0.9), (1, 4, 0.9), (2, 7, 0.8), (5, 9, 0.9)]
    assert S.first_of_group(pairs) == {1: 1, 2: 2, 4: 1, 5: 1, 7: 2, 9: 1}
    assert S.later_copies(pairs).tolist() == [4, 5, 7, 9]
    assert S.later_copies([]).tolist() == []


def test_length_outliers_are_the_far_ones_only() -> None:
    rng = np.random.default_rng(0)
    lengths = [*rng.normal(100, 10, 200).astype(int), 3, 5000]
    assert S.length_outliers(lengths).tolist() == [200, 201]
    assert S.length_outliers([50] * 20).tolist() == []
    assert S.length_outliers([50] * 20 + [51]).tolist() == [20]


class Tokens:
    """A character is a token, numbered by its code."""

    pad_token_id = 0

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(sign) for sign in text] for text in texts]}


class Copier:
    """Says with 8 to 1 that the next token is the last one again; counts the rows that it was given."""

    device = "cpu"

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, input_ids, attention_mask, use_cache):
        import torch

        self.widths.append(input_ids.shape[1])
        assert ((input_ids != 0) == attention_mask.bool()).all()
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 128).float() * np.log(8))


def test_answer_losses_count_the_answer_but_its_first_token() -> None:
    again, other = np.log((8 + 127) / 8), np.log(8 + 127)
    model = Copier()
    prompts, answers = ["question", "", "q", ""], ["aab", "aab", "a", "bbbbbb"]
    got = S.answer_losses(model, Tokens(), prompts, answers, batch_size=2)
    assert got[0] == pytest.approx((again + other) / 2) and got[1] == pytest.approx(got[0])
    assert np.isnan(got[2])  # one token: nothing is left
    assert got[3] == pytest.approx(again)
    assert model.widths == sorted(model.widths)


def test_answer_losses_are_cut_at_max_length() -> None:
    got = S.answer_losses(Copier(), Tokens(), ["ppp"] * 2, ["aabbbb", "aabbbb"], max_length=5)
    assert got[0] == pytest.approx(np.log((8 + 127) / 8))  # of the answer only "aa" is left
    assert np.isnan(S.answer_losses(Copier(), Tokens(), ["p" * 9], ["aab"], max_length=5)[0])


def test_k_means_finds_separate_groups() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    truth = np.repeat([0, 1, 2], 30)
    labels = S.k_means(centres[truth] + rng.normal(0, 0.3, (90, 2)), k=3)
    assert len({(t, c) for t, c in zip(truth, labels)}) == 3
    with pytest.raises(ValueError, match="k=4"):
        S.k_means(np.zeros((3, 2)), k=4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 5))
def test_k_means_leaves_no_cluster_empty(k: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(0, 3, (12, 2)).astype(float)  # many equal rows
    assert set(S.k_means(vectors, k, seed=seed)) == set(range(k))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 20))
def test_k_center_greedy_is_within_twice_the_best(k: int, seed: int) -> None:
    """Gonzalez' bound, against every choice of k rows."""
    from itertools import combinations

    vectors = np.random.default_rng(seed).normal(size=(9, 2))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    best = min(distances[:, list(rows)].min(axis=1).max() for rows in combinations(range(9), k))
    chosen = S.k_center_greedy(vectors, k)
    assert len(set(chosen.tolist())) == k
    assert distances[:, chosen].min(axis=1).max() <= 2 * best + 1e-9


def test_k_center_greedy_among_equal_rows_repeats_none() -> None:
    assert sorted(S.k_center_greedy(np.ones((4, 2)), 9).tolist()) == [0, 1, 2, 3]


def test_top_leaves_out_what_has_no_score() -> None:
    assert S.top(np.array([0.2, np.nan, 0.9, 0.9]), 3).tolist() == [2, 3, 0]
    assert S.top(np.array([np.nan, 1.0]), 5).tolist() == [1]


def test_car_takes_the_best_and_then_every_cluster_in_turn() -> None:
    scores = np.array([9, 8, 7, 6, 1, 0.5, 0.1])
    clusters = np.array([0, 0, 0, 0, 1, 1, 2])
    assert S.cluster_and_rank(scores, clusters, size=5, overall=2).tolist() == [0, 1, 4, 6, 5]
    assert S.cluster_and_rank(scores, clusters, size=3, overall=0).tolist() == [0, 4, 6]
    assert sorted(S.cluster_and_rank(scores, clusters, size=99, overall=1).tolist()) == list(range(7))


def test_precision_and_recall() -> None:
    assert S.found([1, 2, 3, 4], [3, 4, 5]) == (0.5, pytest.approx(2 / 3))
    assert S.found([], [1]) == (0.0, 0.0) and S.found([1], []) == (0.0, 0.0)


def test_planted_faults_are_what_they_say() -> None:
    questions = [f"问题{i}" for i in range(100)]
    answers = [f"回答{i:03}" * 6 for i in range(100)]
    asked, told, faults = S.plant_faults(questions, answers, share=0.4, seed=3)
    assert {fault: faults.count(fault) for fault in ("", *S.FAULTS)} == {"": 60} | dict.fromkeys(S.FAULTS, 10)
    for row, fault in enumerate(faults):
        if fault == "":
            assert (asked[row], told[row]) == (questions[row], answers[row])
        if fault == "other answer":
            assert asked[row] == questions[row] and told[row] in answers and told[row] != answers[row]
        if fault == "cut off":
            assert told[row] == answers[row][: len(answers[row]) // 3]
        if fault == "says nothing":
            assert told[row] == "请到医院就诊。"
        if fault == "copy":
            source = questions.index(asked[row].removeprefix("请问，"))
            assert faults[source] == "" and told[row] == answers[source]


def test_no_faults_without_a_share_and_never_all() -> None:
    asked, told, faults = S.plant_faults(["问"] * 5, ["答"] * 5, share=0.0)
    assert (asked, told, faults) == (["问"] * 5, ["答"] * 5, [""] * 5)
    with pytest.raises(ValueError, match="share"):
        S.plant_faults(["问"], ["答"], share=1.0)
    with pytest.raises(ValueError, match="5 rows is 1 a fault: give more rows"):
        S.plant_faults(["问"] * 5, ["答"] * 5, share=0.8)
    assert S.plant_faults([*"零一二三四五六七八九十冬"], [*"abcdefghijkl"], share=0.9)[2].count("") == 4


@pytest.mark.notebook
@pytest.mark.nano
def test_the_judge_prefers_answers_that_it_was_not_shown() -> None:
    """On rows of the sample outside its lessons: the row's own answer above another's, and above a third of it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from helpers import data, nano
    from helpers.nano import judge

    folder = nano.build("nano/medical-judge")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = data.load_medical_dialogues(Path(__file__).parent.parent / judge.FILES)
    unseen = [row for number, row in enumerate(rows) if number % judge.EVERY][::8]
    questions, answers = ([row[name] for row in unseen] for name in ("question", "answer"))
    own = S.rewards(model, tokenizer, questions, answers)
    assert (own > S.rewards(model, tokenizer, questions, [a[: len(a) // 3] for a in answers])).mean() > 0.95
    assert (own > S.rewards(model, tokenizer, questions, answers[30:] + answers[:30])).mean() > 0.65
    again = S.rewards(model, tokenizer, questions[::-1], answers[::-1], batch_size=3)[::-1]
    assert np.allclose(own, again, atol=1e-3)  # neither order nor padding matters


@pytest.mark.nano
def test_a_real_model_finds_the_answer_easier_after_its_question() -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

    from helpers import nano

    folder = nano.build("nano/medical-judge")
    vectors = S.embed(
        AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), ["头晕", "胃痛怎么办？"]
    )
    assert vectors.shape == (2, 192) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    base = nano.build("nano/qwen2-medical")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    texts = ["头晕多与血压波动有关。", "胃痛多与饮食不规律有关。"]
    together = S.answer_losses(model, tokenizer, ["头晕，", "胃痛，"], texts)
    alone = [S.answer_losses(model, tokenizer, [p], [t])[0] for p, t in zip(["头晕，", "胃痛，"], texts)]
    assert np.allclose(together, alone, atol=1e-4)
    import torch

    ids = torch.tensor([tokenizer("头晕，")["input_ids"] + tokenizer(texts[0])["input_ids"]])
    first = len(tokenizer("头晕，")["input_ids"]) + 1
    labels = ids.clone()
    labels[:, :first] = -100
    assert together[0] == pytest.approx(model(ids, labels=labels).loss.item(), abs=1e-4)


def test_of_a_bucket_every_pair_is_compared() -> None:
    rng = np.random.default_rng(0)
    signatures = rng.integers(0, 1 << 31, (4, 128), dtype=np.uint32)
    signatures[:, :8] = 7  # one band in common, so one bucket
    signatures[3, 8:] = signatures[1, 8:]  # the second and the fourth are alike, and neither first nor neighbours
    assert S.near_duplicates(signatures) == [(1, 3, 1.0)]
