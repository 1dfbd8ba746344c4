import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import scores

HAN = st.text(st.sampled_from("头晕休息多喝水。，"), min_size=1, max_size=12)


def lcs(one: str, two: str) -> int:
    """The longest common subsequence, by its definition."""
    if not one or not two:
        return 0
    if one[0] == two[0]:
        return 1 + lcs(one[1:], two[1:])
    return max(lcs(one[1:], two), lcs(one, two[1:]))


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("头晕。水"), max_size=7), st.text(st.sampled_from("头晕。水"), min_size=1, max_size=7))
def test_rouge_l_is_f1_of_the_longest_common_subsequence(answer, reference):
    share = lcs(answer, reference)
    expected = 200 * share / (len(answer) + len(reference))
    assert scores.rouge_l([answer], [reference]) == pytest.approx(expected, abs=1e-4)


def test_rouge_l_is_the_mean_over_pairs_and_blanks_do_not_count():
    assert scores.rouge_l(["头 晕\n", "水"], ["头晕", "多喝"]) == pytest.approx(50)
    assert scores.rouge_l(["头晕", ""], ["头晕", "多喝"]) == pytest.approx(50)


def test_bleu_4_on_characters():
    assert scores.bleu_4(["请到神经内科就诊"], ["请到神经内科就诊"]) == pytest.approx(100)
    assert scores.bleu_4(["就诊科内经神到请"], ["请到神经内科就诊"]) < 20
    # 7 of 8 characters, 6 of 7 pairs, 5 of 6 threes, 4 of 5 fours: their geometric mean.
    expected = 100 * (7 / 8 * 6 / 7 * 5 / 6 * 4 / 5) ** 0.25
    assert scores.bleu_4(["请到神经内科就医"], ["请到神经内科就诊"]) == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(st.lists(HAN, min_size=1, max_size=4))
def test_both_are_whole_for_the_same_and_within_bounds(texts):
    assert scores.rouge_l(texts, texts) == pytest.approx(100)
    assert 0 <= scores.bleu_4(texts[::-1], texts) <= 100.0001


@pytest.mark.parametrize("score", [scores.rouge_l, scores.bleu_4])
def test_what_cannot_be_compared_is_refused(score):
    for answers, references in [([], []), (["头晕"], [])]:
        with pytest.raises(ValueError, match="one reference an answer"):
            score(answers, references)
    with pytest.raises(ValueError, match="reference 2 of 2 is empty"):
        score(["头", "晕"], ["头", " "])
