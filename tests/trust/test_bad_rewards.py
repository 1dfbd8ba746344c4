"""The rewards and the splitter against what a model may write, or a data set hold: never an exception on a text,
never a reward that was not earned, never more time than the text is long."""

import math
import time
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import rewards
from helpers.reasoning import Split, agrees, final_answer, key_of, same_answer, split_thinking
from helpers.rewards import REWARD_FUNCS, RewardError

MOST = dict(zip(REWARD_FUNCS, (0.5, 0.5, 0.5, 0.5, 2.0), strict=True))
FULL = sum(MOST.values())
MEGABYTE = 2**20


def form(answer: str, reasoning: str = "48 + 24 = 72") -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{answer}\n</answer>\n"


def earned(text: str, target: str = "72") -> float:
    """All five rewards of one completion together; each is checked for its range."""
    total = 0.0
    for func, most in MOST.items():
        (value,) = func(prompts=["q"], completions=[text], target=[target])
        assert isinstance(value, float) and 0 <= value <= most, (func.__name__, value)
        total += value
    return total


# What a completion earns: its text, and the sum of the five rewards where 72 is right
HONEST = earned(form("72"))
ATTEMPTS = {
    "the honest answer": (form("72"), FULL),
    "full-width digits": (form("７２"), FULL),
    "Arabic digits": (form("٧٢"), FULL - 2.5),
    "Devanagari digits": (form("७२"), FULL - 2.5),
    "Chinese numerals": (form("七十二"), FULL - 2.5),
    "a circled number": (form("㊆②"), FULL - 2.5),
    "a superscript": (form("72²"), FULL - 0.5),
    "the right one and another": (form("72 or 50"), FULL - 2.5),
    "all numbers from 0 to 99": (form(" ".join(map(str, range(100)))), FULL - 2.5),
    "infinity": (form("Infinity"), FULL - 2.5),
    "not a number": (form("NaN"), FULL - 2.5),
    "an exponent": (form("7.2e1"), FULL - 2.5),
    "hexadecimal": (form("0x48"), FULL - 2.5),
    "an underscore": (form("7_2"), FULL - 2.5),
    "leading zeros": (form("0" * 1000 + "72"), FULL),
    "trailing zeros": (form("72." + "0" * 1000), FULL - 0.5),
    "a hair beside": (form("72." + "0" * 1000 + "1"), FULL - 2.5),
    "5,000 digits": (form("7" * 5000), FULL - 2),
    "wrong thousands": (form("0,072"), FULL),
    "NUL around": (form("\0" + "72\0"), FULL - 0.5),
    "zero width around": (form("\u200b72\u200b"), FULL - 0.5),
    "right to left": (form("\u202e27"), FULL - 2.5),
    "half a character behind": (form("72\ud83d"), FULL - 0.5),
    "a closing tag injected": (form("72</answer>"), 2.0 + 0.5 + 0.5 + 0.375 - 0.0),
    "the right answer, then a wrong one": (form("72") + form("50"), 0.5 + 0.5),
    "a wrong answer, then the right one": (form("50") + form("72"), 0.5 + 0.5 + 2),
    "a hundred answers, the right one among them": ("".join(form(str(n)) for n in range(100)), 0.5 + 0.5),
    "the right answer inside the reasoning": (form("50", "<answer>72</answer>"), 0.25 + 0.5 + 0.5),
    "an answer inside the answer": (form("50<answer>72</answer>"), 0.25 + 0.5 + 0.5 + 2),
    "an answer in a torn answer": ("<answer>72<answer>50</answer></answer>", 0.5),
    "only the closing tag": ("72</answer>", 0.0),
    "upper case": (form("72").upper(), 0.0),
    "blanks inside the tags": (form("72").replace("<", "< "), 0.0),
    "entities": (form("72").replace("<", "&lt;"), 0.0),
    "full-width brackets": (form("72").replace("<", "＜").replace(">", "＞"), 0.0),
    "carriage returns": (form("72").replace("\n", "\r\n"), 0.125 + 0.5 + 0.5 + 2),
    "the form of the system prompt itself": (form("...", "..."), FULL - 2.5),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ATTEMPTS)
def test_what_an_attempt_earns(name):
    text, wanted = ATTEMPTS[name]
    assert earned(text) == pytest.approx(wanted)
    assert earned(text) <= HONEST == FULL


@pytest.mark.bad_input
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.integers() | st.integers(-(10**60), 10**60), st.text(max_size=20))
def test_an_exact_answer_gets_everything_and_its_neighbour_nothing(number, thought):
    honest = form(f"{number:,}", f"so {thought}".replace("<", "("))
    assert earned(honest, str(number)) == FULL
    for wrong in (number + 1, number - 1, number * 10):
        if wrong != number:
            (right,) = rewards.correctness_reward_func([honest], answer=[f"…\n#### {wrong:,}"])
            assert right == 0.0


# What is no list of completions, or no column for them

NO_COMPLETIONS = {
    "one text": ("72", "completions is one str, not a list"),
    "bytes": (b"72", "completions is one bytes, not a list"),
    "None": (None, "completions is one NoneType, not a list"),
    "a number": (72, "completions is one int, not a list"),
    "a message": ({"role": "assistant", "content": "72"}, "completions is one dict, not a list"),
    "None among them": (["72", None], "completion 2 is None (NoneType)"),
    "a number among them": (["72", 72], "completion 2 is 72 (int)"),
    "nan among them": ([float("nan")], "completion 1 is nan (float)"),
    "bytes among them": ([b"72"], "completion 1 is b'72' (bytes)"),
    "token ids": ([[1, 2, 3]], "completion 1 is [1, 2, 3] (list)"),
    "texts in a list": ([["72"]], "completion 1 is ['72'] (list)"),
    "a message without its list": ([{"role": "assistant", "content": "72"}], "completion 1 is {"),
    "a number for content": ([[{"role": "assistant", "content": 72}]], "completion 1 is [{"),
    "1 MB of token ids": ([[1] * MEGABYTE], "completion 1 is [1, 1, 1"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", NO_COMPLETIONS)
def test_what_is_no_completion_is_named(name):
    completions, says = NO_COMPLETIONS[name]
    for func in REWARD_FUNCS:
        with pytest.raises(RewardError) as caught:
            func(prompts=["q"], completions=completions, target=["72"])
        assert isinstance(caught.value, ValueError) and says in str(caught.value) and len(str(caught.value)) < 300


TWO = [form("72"), form("72")]
COLUMNS = {
    "no target and no answer": ({}, "neither a column 'target' nor a column 'answer'"),
    "a target too few": ({"target": ["72"]}, "target is shorter than completions: 1 for 2"),
    "a target too many": ({"target": ["72"] * 3}, "target is longer than completions: 3 for 2"),
    "no targets": ({"target": []}, "target is shorter than completions: 0 for 2"),
    "an answer too few": ({"answer": ["#### 72"]}, "answer is shorter than completions: 1 for 2"),
    "one text for all": ({"target": "72"}, "target is one str, not a list"),
    "one number for all": ({"target": 72}, "target is one int, not a list"),
    "numbers": ({"target": ["72", 72]}, "target 2 is 72 (int), not a text. Make the column text: rows.map(lambda row: {'target'"),
    "decimals": ({"answer": [72.0, 72.0]}, "answer 1 is 72.0 (float), not a text"),
    "None": ({"target": ["72", None]}, "target 2 is None (NoneType), not a text"),
    "an empty cell": ({"target": ["72", math.nan]}, "target 2 is nan (float), not a text"),
    "a yes": ({"target": ["72", True]}, "target 2 is True (bool), not a text"),
    "messages": ({"answer": [[{"content": "72"}]] * 2}, "answer 1 is [{'content': '72'}] (list), not a text"),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_does_not_fit_is_named(name):
    columns, says = COLUMNS[name]
    with pytest.raises(RewardError) as caught:
        rewards.correctness_reward_func(TWO, **columns)
    assert says in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("completion", "wanted"),
    [
        ([], 0.0),
        ([{"role": "assistant"}], 0.0),
        ([{"role": "assistant", "content": None, "tool_calls": []}], 0.0),
        ([{"role": "assistant", "content": []}], 0.0),
        ([{"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": form("72")}]}], FULL),
        ([{"role": "assistant", "content": [{"type": "text", "text": None}]}], 0.0),
        (({"role": "assistant", "content": form("72")},), FULL),
        ([{"role": "assistant", "content": form("50")}, {"role": "assistant", "content": form("72")}], FULL),
    ],
)
def test_the_last_messages_text_counts(completion, wanted):
    assert sum(func(completions=[completion], target=["72"])[0] for func in REWARD_FUNCS) == wanted


@pytest.mark.bad_input
@pytest.mark.parametrize("func", REWARD_FUNCS, ids=lambda func: func.__name__)
def test_no_completions_get_no_rewards(func):
    assert func(completions=[], target=[], prompts=[], anything=None) == []


# Long texts: each piece is repeated to 1 MB, with something before and behind it

LONG = {
    "digits": ("", "9", ""),
    "digits in an answer": ("<answer>", "9", "</answer>"),
    "thousands in an answer": ("<answer>1", ",000", "</answer>"),
    "thousands that end wrong": ("<answer>1", ",000", "0</answer>"),
    "thousands that do not begin": ("<answer>", ",000", "</answer>"),
    "numbers of a digit": ("<answer>", "7 ", "</answer>"),
    "decimal points": ("<answer>", ".", "</answer>"),
    "dots and digits": ("<answer>", ".1", "</answer>"),
    "minus signs": ("<answer>", "-", "72</answer>"),
    "equals signs": ("<answer>", "=", "72</answer>"),
    "currency and blanks": ("<answer>", "$ ", "72</answer>"),
    "blanks after a currency": ("<answer>$", " ", "x</answer>"),
    "full-width digits": ("<answer>", "７", "</answer>"),
    "marks of a solution": ("", "#### ", "72"),
    "blank lines": ("<reasoning>", "\n", "</reasoning>"),
    "reasoning opened": ("", "<reasoning>", ""),
    "reasoning closed": ("<reasoning>", "</reasoning>", ""),
    "reasoning opened and closed": ("", "<reasoning></reasoning>", ""),
    "reasoning and blanks": ("", "<reasoning></reasoning> ", "<answer>"),
    "blanks before an answer": ("<reasoning></reasoning>", " ", "<answer"),
    "turns without an end": ("<reasoning>", "</reasoning><answer>", ""),
    "turns in form without an end": ("<reasoning>\n", "a\n</reasoning>\n<answer>\n", ""),
    "forms": ("", form("72"), ""),
    "forms without an end": ("", form("72")[:-11], ""),
    "answers opened": ("", "<answer>", ""),
    "answers closed": ("<answer>", "</answer>", ""),
    "answers": ("", "<answer>7</answer>", ""),
    "answers nested": ("", "<answer>7", "</answer>" * 1000),
    "text in an answer that is not closed": ("<answer>", "word ", ""),
    "text in an answer": ("<answer>\n", "word ", "\n</answer>"),
    "text behind the answer": (form("72"), "word ", ""),
    "blanks behind the answer": (form("72"), " ", ""),
    "lines that nearly close": (form("72")[:-10], "\n</answer", ""),
    "opening brackets": ("", "<", ""),
    "closing brackets": ("<", ">", ""),
    "a bracket and blanks": ("<", " ", ">"),
    "a bracket, blanks and a name": ("<", " ", "think"),
    "a slash and blanks": ("< /", " ", ">"),
    "a name and blanks": ("<think", " ", "x"),
    "brackets and blanks": ("", "< ", "think>"),
    "thinking opened": ("", "<think>", ""),
    "thinking closed": ("", "</think>", ""),
    "thinking in halves": ("</think>" + "<" * 150_000, "think>", ""),
    "halves that do not fit": ("</think>" + "<thi" * 10_000, "nk>", ""),
    "thoughts": ("", "<think>hm</think>gout", ""),
    "boxes": ("", "\\boxed{", ""),
    "boxes in one another": ("", "\\boxed{", "}" * 10_000),
    "braces": ("\\boxed{", "{}", "}"),
    "digits in a box": ("\\boxed{", "9", "}"),
    "stars": ("", "*", ""),
    "one bold text not closed": ("**", "a", ""),
    "bars": ("", "|", ""),
    "ligatures": ("", "ﷺ", ""),
    "NUL": ("", "\0", ""),
    "half characters": ("", "\ud83d", ""),
}
HARDEST = {"turns in form without an end", "reasoning opened and closed", "a bracket and blanks", "thinking in halves"}
READERS = {
    **{func.__name__: lambda text, func=func: func(completions=[text], target=[text]) for func in REWARD_FUNCS},
    "correctness of a solution": lambda text: rewards.correctness_reward_func([text], answer=[text]),
    "extract_gsm8k_answer": rewards.extract_gsm8k_answer,
    "split_thinking": split_thinking,
    "split_thinking, opened": lambda text: split_thinking(text, opened=True),
    "final_answer": final_answer,
    "key_of": key_of,
}


@pytest.mark.notebook
@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", LONG)
def test_a_megabyte_is_read_within_a_second(name):
    before, piece, behind = LONG[name]
    size = MEGABYTE if name in HARDEST else MEGABYTE // 8  # enough to tell linear time from quadratic
    text = before + piece * ((size - len(before) - len(behind)) // len(piece)) + behind
    for reader, read in READERS.items():
        began = time.thread_time()  # threads that other tests left are none of its business
        read(text)
        assert time.thread_time() - began < 1, reader


@pytest.mark.bad_input
def test_a_number_of_a_million_digits_is_compared_to_the_last():
    number = "7" * MEGABYTE
    wanted = [2.0, 0.0]
    assert rewards.correctness_reward_func([form(number)] * 2, target=[number, number[:-1] + "8"]) == wanted
    assert rewards.extract_gsm8k_answer(f"#### {number}") == number
    assert same_answer(number, number + ".000") is True and same_answer(number, number[:-1] + "8") is False


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<<think>think>hm</think>gout", "gout"),
        ("a</think><<<think>think>think>gout", "gout"),
        ("a</think><</think>/think>gout", "/think>gout"),
        ("a</think>x<y>z<think>", "x<y>z"),
        ("a</think>1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("a</think><x<think>>", "<x>"),
        ("a</think><think<think>>", ""),
        ("a</think>><think<", "><think<"),
        ("a</think>" + "<" * 1000 + "think>" * 1000, ""),
        ("a</think>" + "<" * 1000 + "think>" * 999, "<"),
        ("a</think>" + "<" * 999 + "think>" * 1000, "think>"),
    ],
)
def test_tags_put_together_from_halves_are_taken_out(text, answer):
    assert split_thinking(text).answer == answer


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "solution", "same"),
    [
        ("1" * 40, "1" * 39 + "2", False),  # more digits than Python's decimals keep by themselves
        ("1" * 40 + ".50", "1" * 40 + ".5", True),
        ("\\boxed{" + "1,000,000" + ".0}", "so it is 1000000", True),
        ("\\boxed{" * 50 + "72" + "}" * 50, "72", True),
        ("\\boxed{72", "72", True),
        ("\\boxed{}", "72", False),
        ("٧٢", "72", False),
        ("72", "no number", None),
        ("", "", None),
    ],
)  # fmt: skip
def test_final_answers_are_compared_exactly(given, solution, same):
    assert same_answer(given, solution) is same


# Texts made of what breaks parsers, ten thousand of them

TAGS = [
    *rewards.TAGS,
    "<answer",
    "answer>",
    "</answer",
    "< answer >",
    "<ANSWER>",
    "</ answer>",
    "<<answer>>",
    "<answer/>",
]
THOUGHTS = [
    "<think>",
    "</think>",
    "<思考>",
    "</思考>",
    "< / THINK >",
    "<",
    ">",
    "/",
    "think>",
    "<|im_end|>",
    "\\boxed{",
]
NUMBERS = [
    "72",
    "7",
    "-72",
    "72.0",
    "1,000",
    "1,0000",
    ",",
    "-",
    "−",
    ".",
    "=",
    "$",
    "%",
    "７２",
    "٧٢",
    "७२",
    "²",
    "①",
    "七十二",
]
HUGE = [
    "1e400",
    "9" * 400,
    "-" * 50,
    "0" * 300 + "72",
    "1" + ",000" * 90,
    "Infinity",
    "-inf",
    "NaN",
    "sNaN",
    "0x48",
    "1_000",
]
BLANKS = [
    "\n",
    "\n\n",
    " ",
    "\t",
    "\u3000",
    "\0",
    "\ud83d",
    "\u202e",
    "\u200b",
    "\r\n",
    "#### ",
    "**",
    "|",
    "}",
    "<answer>\n72\n</answer>",
]
fragments = st.sampled_from([*TAGS, *THOUGHTS, *NUMBERS, *HUGE, *BLANKS, form("72"), form("50")])
strings = st.lists(fragments, max_size=12).map("".join) | st.text(max_size=30)


@pytest.mark.bad_input
@pytest.mark.notebook
@pytest.mark.timeout(120)
@settings(max_examples=10_000, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(strings)
def test_ten_thousand_strings(text):
    for target in ("72", text):
        total = earned(text, target)
        assert math.isfinite(total)
    # What a hedge with this text before the answer earns, the honest answer alone earns too.
    assert earned(text + form("72")) <= earned(form("72")) == FULL
    assert earned(text + form("50")) <= FULL - 2
    # Whoever ends with a wrong answer was not right, whatever stood inside the reasoning.
    (right,) = rewards.correctness_reward_func([form("50", text)], target=["72"])
    assert right == 0.0
    for number in (rewards.parse_number(text), *map(rewards.parse_number, [rewards.extract_xml_answer(text)])):
        assert number is None or number.is_finite()
    solution = rewards.extract_gsm8k_answer(text)
    assert solution is None or Decimal(solution).is_finite()
    for opened in (False, True):
        split = split_thinking(text, opened=opened)
        assert split.well_formed is (split.fault is None)
        assert split_thinking(split.answer) == Split("", split.answer, split_thinking("").fault)  # no tag is left
    for value in (final_answer(text), key_of(text)):
        assert value is None or isinstance(value, str)
    assert same_answer(text, text) in (True, None) and agrees(text, text) in (True, False)
