"""BM25 against its definition, and on our own notes."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.retrieval import BM25, terms

TEXTS = st.lists(
    st.lists(st.sampled_from(["ant", "bee", "cow", "dog"]), min_size=1, max_size=6).map(" ".join),
    min_size=1,
    max_size=6,
)


def test_terms_are_words_numbers_and_pairs_of_han():
    assert terms("The Blue Heron, 7:30!") == ["the", "blue", "heron", "7", "30"]
    assert terms("“热闹石桥”几点开门？") == ["热闹", "闹石", "石桥", "几点", "点开", "开门"]
    assert terms("在 A座") == ["在", "a", "座"]
    assert terms("…") == []


@settings(max_examples=80, deadline=None)
@given(TEXTS, st.lists(st.sampled_from(["ant", "bee", "cow", "eel"]), min_size=1, max_size=4))
def test_scores_are_the_formula(texts, query):
    split = [text.split() for text in texts]
    mean = sum(map(len, split)) / len(split)
    for words, score in zip(split, BM25(texts).scores(" ".join(query))):
        expected = 0.0
        for term in query:
            having = sum(term in other for other in split)
            weight = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
            times = words.count(term)
            expected += weight * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(words) / mean))
        assert score == pytest.approx(expected)


def test_a_rare_word_beats_a_common_one_and_equals_keep_their_order():
    index = BM25(["the blue heron", "the blue kettle", "the red kettle"])
    assert [number for number, _ in index.top("blue heron", 3)] == [0, 1, 2]
    assert [number for number, _ in index.top("owl", 2)] == [0, 1]
    assert len(index.top("blue", 9)) == 3


def test_nothing_to_search_is_refused():
    with pytest.raises(ValueError, match="no texts"):
        BM25([])
