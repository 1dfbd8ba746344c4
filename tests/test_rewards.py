"""The reward functions: what they pay for and what not, one finite number a completion, whatever the text."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import rewards


def form(answer: str, reasoning: str = "48 / 2 = 24\n48 + 24 = 72") -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"),
        ("1,000", "1000"),
        ("1000", "1000"),
        ("1,234,567.50", "1234567.5"),
        ("-3", "-3"),
        ("−3", "-3"),  # the typesetter's minus
        ("－３", "-3"),
        ("72.0", "72"),
        (".5", "0.5"),
        ("72.", "72"),
        ("$72", "72"),
        ("-$1,000", "-1000"),
        ("$-3", "-3"),
        ("￥72", "72"),
        ("72%", "72"),
        ("７２％", "72"),
        ("１，０００", "1000"),
        ("72 clips", "72"),
        ("72个。", "72"),
        ("共７２个！", "72"),
        ("48+24=72", "72"),
        ("x＝-3", "-3"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_one_number_is_read_by_its_value(text, number):
    assert rewards.parse_number(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    ["", "seventy-two", "七十二", "71 or 72", "71、72", "1/2", "5-3", "1,00", "10,000,00", "1,0000", "72 = 48+24", "①"],
)
def test_no_number_or_several_are_none(text):
    assert rewards.parse_number(text) is None


def test_a_power_is_not_two_digits():
    assert rewards.parse_number("5²") == 5


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("48+24 = <<48+24=72>>72 clips.\n#### 72", "72"),
        ("#### 1,000", "1000"),
        ("####-3", "-3"),
        ("2 #### 3\n#### 4\n", "4"),
        ("#### $5", "5"),
        ("72", None),
        ("####", None),
        ("#### 1 or 2", None),
    ],
)
def test_the_final_number_of_a_solution(answer, target):
    assert rewards.extract_gsm8k_answer(answer) == target


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (form("72"), "72"),
        ("<answer>72</answer>", "72"),
        ("<answer> 72\n</answer> and so on", "72"),
        ("<answer>1</answer> no: <answer>72</answer>", "72"),
        ("<answer>1 <answer>72</answer>", "72"),
        ("<answer>72</answer><answer>", "72"),
        ("<answer></answer>", ""),
        ("72", ""),
        ("<answer>72", ""),
        ("72</answer>", ""),
        ("", ""),
    ],
)
def test_the_last_complete_answer_counts(text, answer):
    assert rewards.extract_xml_answer(text) == answer


# text: xmlcount, soft, strict, int, correctness, where 72 is right
TABLE = {
    "the form, right": (form("72"), (0.5, 0.5, 0.5, 0.5, 2.0)),
    "no line break at the end": (form("72").strip(), (0.5, 0.5, 0.5, 0.5, 2.0)),
    "several lines of reasoning": (form("72", "a\n\nb\nc"), (0.5, 0.5, 0.5, 0.5, 2.0)),
    "wrong": (form("50"), (0.5, 0.5, 0.5, 0.5, 0.0)),
    "with a unit": (form("72 clips"), (0.5, 0.5, 0.5, 0.0, 2.0)),
    "dollars": (form("$72"), (0.5, 0.5, 0.5, 0.0, 2.0)),
    "a decimal": (form("72.0"), (0.5, 0.5, 0.5, 0.0, 2.0)),
    "full width": (form("７２"), (0.5, 0.5, 0.5, 0.5, 2.0)),
    "Chinese full stop": (form("72。"), (0.5, 0.5, 0.5, 0.0, 2.0)),
    "hedged": (form("72 or 50"), (0.5, 0.5, 0.5, 0.0, 0.0)),
    "nothing in the answer": (form(" "), (0.5, 0.5, 0.0, 0.0, 0.0)),
    "nothing in the reasoning": (form("72", " "), (0.5, 0.5, 0.0, 0.5, 2.0)),
    "on one line": ("<reasoning>a</reasoning> <answer>72</answer>", (0.0, 0.5, 0.0, 0.5, 2.0)),
    "words before": ("Sure!\n" + form("72"), (0.5, 0.5, 0.0, 0.5, 2.0)),
    "100 characters after": (form("72") + "x" * 100, (0.4, 0.5, 0.0, 0.5, 2.0)),
    "talks on and on": (form("72") + "x" * 9999, (0.0, 0.5, 0.0, 0.5, 2.0)),
    "answer first": ("<answer>\n72\n</answer>\n<reasoning>\na\n</reasoning>\n", (0.349, 0.0, 0.0, 0.5, 2.0)),
    "twice": (form("50") + form("72"), (0.0, 0.5, 0.0, 0.5, 2.0)),
    "end of reasoning missing": (form("72").replace("</reasoning>\n", ""), (0.375, 0.0, 0.0, 0.5, 2.0)),
    "never closed": (form("72").replace("</answer>\n", ""), (0.375, 0.0, 0.0, 0.0, 0.0)),
    "no tags": ("The answer is 72.", (0.0, 0.0, 0.0, 0.0, 0.0)),
    "empty": ("", (0.0, 0.0, 0.0, 0.0, 0.0)),
}


@pytest.mark.parametrize(("text", "wanted"), TABLE.values(), ids=TABLE)
def test_what_each_completion_earns(text, wanted):
    messages = [{"role": "assistant", "content": text}]
    for completion in (text, messages):
        earned = [func(prompts=["p"], completions=[completion], target=["72"]) for func in rewards.REWARD_FUNCS]
        assert [value for (value,) in earned] == pytest.approx(wanted)


@pytest.mark.parametrize("wrong", ["+1,000", "1,0000", "²", "٣", "1 000", "", "1.", "0x1"])
def test_only_plain_whole_numbers_are_int(wrong):
    wanted = [0.5 if wrong == "+1,000" else 0.0, 0.5, 0.5, 0.5]
    assert rewards.int_reward_func([form(text) for text in (wrong, "1,000", "-3", "007")]) == wanted


def test_correctness_takes_targets_or_solutions_and_compares_by_value():
    good = [form("1,000"), form("1000"), form("-3"), form("72.0")]
    assert rewards.correctness_reward_func(good, target=["1000", "1,000", "-3", "72"]) == [2.0] * 4
    assert rewards.correctness_reward_func(good, answer=["x\n#### 1,000", "1000", "#### -3", "72"]) == [2.0] * 4
    assert rewards.correctness_reward_func(good, target=["100", "10000", "3", "7.2"]) == [0.0] * 4


def test_correctness_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="neither a column 'target' nor a column 'answer'"):
        rewards.correctness_reward_func(["72"])
    with pytest.raises(ValueError, match="shorter"):
        rewards.correctness_reward_func(["72", "73"], target=["72"])


def test_an_unreadable_target_is_nobodys_reward():
    assert rewards.correctness_reward_func([form("many"), form("")], target=["many", ""]) == [0.0, 0.0]


def test_a_message_without_text_is_empty():
    for completion in ([], [{"role": "assistant", "content": None}], [{"role": "assistant"}]):
        assert rewards.completion_text(completion) == ""


parts = st.sampled_from([*rewards.TAGS, "\n", "72", "7", ",", "-", "=", "$", "７", "²", " ", "\ud800", "#### "])
texts = st.text() | st.lists(parts, max_size=40).map("".join) | st.builds(form, st.text(), st.text())
completions = texts | texts.map(lambda text: [{"role": "assistant", "content": text}])


@given(st.lists(st.tuples(completions, texts), max_size=5))
def test_any_completion_gets_one_finite_reward_of_each_kind(pairs):
    given_completions, targets = [c for c, _ in pairs], [t for _, t in pairs]
    highest = dict(zip(rewards.REWARD_FUNCS, (0.5, 0.5, 0.5, 0.5, 2.0), strict=True))
    for func, most in highest.items():
        earned = func(prompts=[""] * len(pairs), completions=given_completions, target=targets)
        assert len(earned) == len(pairs)
        assert all(isinstance(value, float) and math.isfinite(value) and 0 <= value <= most for value in earned)


@given(texts)
def test_exact_form_implies_rough_form_and_all_tags(text):
    if rewards.strict_format_reward_func([text]) == [0.5]:
        assert rewards.soft_format_reward_func([text]) == [0.5]
        assert rewards.xmlcount_reward_func([text]) == [0.5]


@given(st.integers(-(10**15), 10**15))
def test_an_integer_is_read_however_it_is_written(number):
    written = [str(number), f"{number:,}", f"{number}.0", f"${number:,}", f"{number} apples", f"{number}。"]
    wide = "".join(chr(ord(c) + 0xFEE0) for c in f"{number:,}")
    assert {rewards.parse_number(text) for text in [*written, wide]} == {Decimal(number)}
    for text in (written[0], written[1], wide):
        assert rewards.int_reward_func([form(text)]) == [0.5]
