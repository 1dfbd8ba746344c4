"""Every parameter cell against values that a tired student types; the machine is never asked for anything before."""

import io
import re
from contextlib import redirect_stdout
from typing import NamedTuple

import numpy as np
import pytest

from helpers import export, parameters
from helpers.parameters import BadParameter, check
from tools.lessons import load_course

LESSONS = {lesson.slug: lesson for lesson in load_course().lessons}
GOOD = {"HELD_OUT": 40, "ASKED": 8, "MAX_STEPS": 60, "EPOCHS": 1, "BATCH_SIZE": 2, "GRADIENT_ACCUMULATION": 4}


@pytest.mark.parametrize("slug", LESSONS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_lessons_own_values_pass(slug, language):
    lesson = LESSONS[slug]
    within = {} if "within={}" in lesson.source.read_text("utf-8") else parameters.WITHIN
    check(lesson.parameters, within)
    check(lesson.parameters | lesson.trim(language), within)


@pytest.mark.parametrize("slug", LESSONS)
def test_every_parameter_of_a_lesson_has_a_rule(slug):
    assert LESSONS[slug].parameters.keys() - parameters.RULES.keys() == set()


def checking(slug: str) -> tuple[str, str]:
    """The code cells up to the one that checks, and that one."""
    cells = [cell.node.source for cell in LESSONS[slug].cells if cell.is_code]
    first = next(number for number, source in enumerate(cells) if "parameters.check(globals()" in source)
    return "\n".join(cells[:first]), cells[first]


# --- What each rule lets through, what it refuses, and the words for it -----------------------------------------------


class Cases(NamedTuple):
    says: str
    accepted: list
    refused: list


def alike(names: str, made: Cases) -> dict[str, Cases]:
    return dict.fromkeys(names.split(), made)


HUGE, NAN, INF = 10**400, float("nan"), float("inf")
OTHERS = [b"1", (), {}, {"en": 1}, [1], {1}, 2j, object(), np.array([1, 2])]  # of a type that hardly any name takes


def whole(low, high, *also):
    wrong = [
        low - 1,
        -1,
        -high,
        high + 1,
        HUGE,
        10**5000,
        low + 0.5,
        float(low),
        f"{low}",
        "",
        "many",
        None,
        True,
        NAN,
        INF,
    ]
    refused = [value for value in wrong if not any(value is one or value == one for one in also)]
    return Cases(f"from {low:,} to {high:,}", [low, high, np.int64(low), *also], refused + OTHERS)


def number(low, high, low_too=False):
    wrong = [low - 1e-9, -1, high + high / 1e6, high * 1000, HUGE, -INF, INF, NAN, f"{high}", "", "1e-4", None, True]
    accepted = [high, high / 2, np.float32(high / 2)]
    says = f"{'from' if low_too else 'above'} {low:g} {'to' if low_too else 'and at most'} {high:g}"
    return Cases(says, accepted + [low] * low_too, wrong + OTHERS + [low] * (not low_too))


def one_of(*values):
    near = [*map(str, values), *(str(value).upper() for value in values), "none such", " ", 4, 5, 4.0, 1, True, None]
    wrong = [one for one in near if not any(type(one) is type(value) and one == value for value in values)]
    return Cases(", ".join(map(repr, values)), list(values), [*wrong, [values[0]], *OTHERS])


def texts(says, accepted, refused):
    return Cases(says, accepted, [*refused, None, 0, 7, 2.5, True, ["a text"], *OTHERS])


def lists(good, bad, may_be_empty=False):
    single = [good[0], None, "", 0, True, {"en": good}, {1}, object(), b"ab", *([] if may_be_empty else [[], ()])]
    refused = single + [[value] for value in bad] + [[good[0], value] for value in bad]
    return Cases("a list", [good, good[:1], tuple(good)] + [[]] * may_be_empty, refused)


def in_both(good, bad):
    one = [{"en": good}, {"zh": good}, {"en": good, "zh": good, "fr": good}, {}, good, None, "", 0, [good, good]]
    return Cases("a dict with 'en' and 'zh'", [{"en": good, "zh": good}], one + [{"en": good, "zh": x} for x in bad])


TEXT = texts("not empty", ["a", " a ", "一", "a\nb"], ["", " ", "\n\t"])
MAY_BE_EMPTY = texts("may be empty", ["", " ", "a"], [])
PART = Cases("None", [None, "zh"], [value for value in TEXT.refused if value is not None])
COUNT, ROWS = whole(1, 1_000_000), whole(1, 1_000_000, None)
EXPRESSION = texts("a regular expression", ["a", "(?m)^1[.、]", " "], ["", "(", "[a-", "*", "(?P<n>", "a{99999999999}"])
OPTIONS = Cases(
    "command-line options",
    [{}, {"max-model-len": 2048, "a": 0.4, "b": True, "c": "d"}],
    [None, "", "--flag", 0, True, [], ["a"], {"": 1}, {1: 2}, {"a": None}, {"a": [1]}, {"a": {}}, {" ": 1}],
)
FORMATS = ["lora", "merged_16bit", "merged_4bit_forced", "f16", "q8_0", "q4_k_m"]
FILE = "README.md"  # of the course, where the tests run

CASES = (
    alike(
        "ASKED CALIBRATION_ROWS DPO_STEPS EVAL_STEPS HELD_OUT MAX_CHARS MAX_STEPS POOL PT_STEPS REQUESTS SELECT SERVED "
        "SFT_STEPS",
        COUNT,
    )
    | alike("DOMAIN_ROWS GENERAL_ROWS ROWS", ROWS)
    | alike("BATCH_SIZE EVAL_BATCH GRADIENT_ACCUMULATION SCORE_BATCH", whole(1, 4096))
    | alike(
        "CALIBRATION_LENGTH MAX_ANSWER_TOKENS MAX_COMPLETION_LENGTH MAX_NEW_TOKENS MAX_PLAIN_TOKENS",
        whole(1, 1_048_576),
    )
    | alike("CUTOFF MAX_SEQ_LENGTH", whole(16, 1_048_576))
    | alike("LORA_RANK PROCESSES RANK", whole(1, 1024))
    | alike("SAVE_STEPS SHORTEST TRAIN_PICTURES", whole(0, 1_000_000))
    | {
        "EXAMPLES": whole(1, 100),
        "GROUP_SIZE": whole(1, 65536, -1),
        "MAX_IMAGE_TOKENS": whole(8, 65536),
        "NUM_GENERATIONS": whole(2, 4096),
        "SEED": whole(0, 2**32 - 1),
        "TENSOR_PARALLEL": whole(0, 1024),
        "THREADS": whole(1, 4096, -1),
        "TOP_K": whole(1, 1000),
        "VOTES": whole(1, 10_000),
    }
    | alike(
        "DPO_LEARNING_RATE EMBEDDING_LEARNING_RATE LEARNING_RATE PT_LEARNING_RATE SFT_LEARNING_RATE", number(0, 0.1)
    )
    | alike("DISK_GB VRAM_GB", number(0, 1_000_000, low_too=True))
    | alike("SHARE VLLM_MEMORY", number(0, 1))
    | {
        "BETA": number(0, 100),
        "EPOCHS": number(0, 1000),
        "POLLUTED": number(0, 1, low_too=True),
        "TEMPERATURE": number(0, 2, low_too=True),
    }
    | alike(
        "BALANCED COMPARE_WITH_RANDOM DROP_TOO_LONG FAST_INFERENCE GRADIENT_CHECKPOINTING LOAD_IN_4BIT PACKING PRIVATE "
        "PUBLIC RESPONSES_ONLY UPLOAD",
        Cases(
            "True or False", [True, False], ["True", "False", "no", "unsloth", "", 0, 1, -1, 1.0, None, NAN, *OTHERS]
        ),
    )
    | {
        "BITS": one_of(2, 3, 4, 8),
        "DTYPE": one_of("", "float32", "bfloat16", "float16"),
        "LANGUAGE": one_of("en", "zh"),
        "MODEL_SOURCE": one_of("huggingface", "modelscope"),
        "QUANTIZATION_BIT": one_of("null", "4", "8"),
        "TRACKING": one_of("none", "tensorboard", "wandb", "trackio"),
    }
    | alike(
        "ADAPTER BEGIN DATASET DISCLAIMER DOMAIN DPO_DATA EMBEDDER END ENGINE EVAL_DATASET GENERAL INSTRUCTION KEEP "
        "KERNEL LICENSE LOSS MODEL NOTES OTHER_WORD PLAN PT_DATA QUESTION QUESTIONS QUIZ REWARD_MODEL SEARCH SFT_DATA "
        "TEMPLATE TENSOR_PARALLEL_MODEL TITLE WAIT",
        TEXT,
    )
    | alike("INPUT LLAMA_CPP TRUTH", MAY_BE_EMPTY)
    | alike("DATASET_CONFIG GENERAL_CONFIG", PART)
    | alike("UNWANTED WANTED", EXPRESSION)
    | alike("ONE_AT_A_TIME SERVER_OPTIONS", OPTIONS)
    | {
        "ANSWER_FORM": texts("{} in one place", ["{}", "So: {}."], ["", "no place", "{} {}", "{0}", "{a}", "{", "{}}"]),
        "AT_ONCE": lists([1, 4096], [0, -1, 4097, 2.5, "8", None, True]),
        "BEGINNINGS": lists(["a", "b"], ["", " ", None, 7]),
        "CAPS": lists([0, 64, 1_048_576], [-1, 1_048_577, 0.5, "64", None, True]),
        "CASE": in_both("a", ["", None, 7, ["a"]]),
        "CASE_KEYS": in_both(["a", "b|c"], [[], "a", [""], ["("], [None], None]),
        "DATASETS": lists(["a", "b"], ["", None, 7], may_be_empty=True),
        "FORMATS": lists(FORMATS, ["Q8_0", "gguf", "", None, 4]),
        "MIXTURES": lists(["1:0", "0:5", "10:1"], ["1-5", "0:0", "1:", "a:b", "", "1:5 ", 15, None]),
        "OUTPUT_DIR": texts(
            "a folder", ["out", "outputs", "/tmp/a/b"], ["", " ", FILE, f"{FILE}/out", "a\0b", "a" * 300]
        ),
        "UPLOAD_TO": texts(
            "'your_name/your_model'",
            ["", "me/model", "a-b/c_d.e"],
            [" ", "model", "me/", "/model", "a/b/c", "me/my model", "https://huggingface.co/me/model"],
        ),
        "WAITS": lists([1, 1000], [0, -1, 1001, 1.5, "1", None, True]),
    }
)
# The same where a lesson has another parameter, too: the other, its value, and the name.
BESIDE = {
    ("CASE", "ROWS"): in_both(500, [0, -1, 10**7, 1.5, "5", None, True]),
    ("EPOCHS", "MAX_STEPS"): whole(1, 1_000_000, -1),
    ("FORMATS", "ASKED"): lists(["f16", "q8_0", "q4_k_m"], ["lora", "merged_16bit", "Q8_0", "", None, 8]),
    ("FORMATS", "QUESTIONS"): lists(["a", "b"], ["", " ", None, 7]),
    ("LOSS", "TEMPLATE"): one_of("chat", "medical"),
    ("POLLUTED", "ROWS"): COUNT,
}
IN_COMPANY = [({}, name, cases) for name, cases in CASES.items()] + [
    ({other: CASES[other].accepted[0]}, name, cases) for (other, name), cases in BESIDE.items()
]


def fault(name: str, value: object, given: dict, language: str = "en") -> str:
    """What is said of this one value; nothing else is found wrong."""
    with pytest.raises(BadParameter) as caught:
        check(given | {name: value}, {}, language)
    assert isinstance(caught.value, ValueError) and caught.value.__cause__ is None, name
    line, where = str(caught.value).splitlines()
    assert line.startswith(f"{name} = ") and len(line) < 400, line
    assert ("parameters cell" if language == "en" else "参数那一格") in where
    return line


def test_every_rule_is_tried():
    assert CASES.keys() == parameters.RULES.keys()
    assert BESIDE.keys() == {(other, name) for other, names in parameters.BESIDE.items() for name in names}


@pytest.mark.parametrize(
    ("given", "name", "cases"), IN_COMPANY, ids=[f"{name}{[*given]}" for given, name, _ in IN_COMPANY]
)
def test_what_may_stand_there_passes(given, name, cases):
    for value in cases.accepted:
        check(given | {name: value}, {})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("given", "name", "cases"), IN_COMPANY, ids=[f"{name}{[*given]}" for given, name, _ in IN_COMPANY]
)
def test_a_bad_value_is_named_with_what_may_stand_there(given, name, cases):
    for value in cases.refused:
        line = fault(name, value, given)
        assert cases.says in line.partition(": must be ")[2], line
        assert "应为" in fault(name, value, given, "zh")


@pytest.mark.bad_input
@pytest.mark.parametrize("slug", LESSONS)
def test_every_parameter_of_every_lesson_is_refused_by_its_own_cell(slug):
    before, cell = checking(slug)
    code = compile(cell, slug, "exec")
    good: dict = {}
    exec(before, good)
    for name in LESSONS[slug].parameters:
        beside = (BESIDE[other, name] for other in LESSONS[slug].parameters if (other, name) in BESIDE)
        for value in next(beside, CASES[name]).refused:
            with pytest.raises(BadParameter) as caught, redirect_stdout(io.StringIO()) as said:
                exec(code, good | {name: value})
            line, _ = str(caught.value).splitlines()
            assert line.startswith(f"{name} = ") and not said.getvalue()


RELATED = {
    "ASKED": (50, "HELD_OUT = 40"),
    "NUM_GENERATIONS": (3, "BATCH_SIZE × GRADIENT_ACCUMULATION = 8"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", RELATED)
def test_a_value_that_does_not_go_with_another_is_named_with_it(name):
    value, says = RELATED[name]
    with pytest.raises(BadParameter) as caught:
        check(GOOD | {name: value})
    line, where = str(caught.value).splitlines()
    assert line.startswith(f"{name} = ") and says in line and "parameters cell" in where
    with pytest.raises(BadParameter, match="参数那一格"):
        check(GOOD | {name: value}, language="zh")


@pytest.mark.bad_input
def test_a_gguf_that_is_to_be_asked_is_made():
    assert tuple(export.BITS) == tuple(FORMATS) and parameters.GGUF == export.GGUF
    check({"FORMATS": ["lora", "q8_0"], "ASKED": ["q8_0"]})
    with pytest.raises(BadParameter, match=re.escape("ASKED = ['q8_0', 'f16']: FORMATS makes no f16. Add it there")):
        check({"FORMATS": ["lora", "q8_0"], "ASKED": ["q8_0", "f16"]})
    with pytest.raises(BadParameter, match="FORMATS 里没有 f16"):
        check({"FORMATS": ["lora"], "ASKED": ["f16"]}, language="zh")


@pytest.mark.bad_input
def test_all_faults_are_told_at_once():
    with pytest.raises(BadParameter) as caught:
        check({"MAX_STEPS": 0, "BATCH_SIZE": "2", "MODEL": "", "HELD_OUT": -1, "ASKED": 50})
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()[:-1]] == [
        "BATCH_SIZE", "HELD_OUT", "MAX_STEPS", "MODEL",
    ]  # fmt: skip


@pytest.mark.bad_input
def test_epochs_instead_of_steps_only_where_there_are_epochs():
    check({"MAX_STEPS": -1, "EPOCHS": 1})
    with pytest.raises(BadParameter, match=re.escape("MAX_STEPS = -1: must be a whole number from 1 to 1,000,000.")):
        check({"MAX_STEPS": -1})


@pytest.mark.bad_input
def test_a_list_in_place_of_a_count_is_held_against_no_count():
    check({"SERVED": 3, "FORMATS": ["f16", "q8_0"], "ASKED": ["f16", "q8_0"], "HELD_OUT": 1})


@pytest.mark.bad_input
def test_a_mixture_that_is_to_be_kept_is_one_of_them():
    with pytest.raises(BadParameter, match="KEEP = '2:1': is none of MIXTURES, 1:0, 1:1"):
        check({"KEEP": "2:1", "MIXTURES": ["1:0", "1:1"]})


@pytest.mark.bad_input
def test_a_very_long_value_is_shown_in_short():
    with pytest.raises(BadParameter) as caught:
        check({"LEARNING_RATE": "x" * 10**7})
    assert len(str(caught.value)) < 300


def test_numbers_of_numpy_and_names_of_ones_own_pass():
    check({"MAX_STEPS": np.int64(60), "LEARNING_RATE": np.float32(2e-4), "MY_NOTE": object(), "_": 1})
