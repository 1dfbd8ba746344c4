"""Every parameter cell against values that a tired student types; the machine is never asked for anything before."""

import io
import re
from contextlib import redirect_stdout

import numpy as np
import pytest

from helpers import parameters
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
def test_every_number_and_switch_of_a_lesson_has_a_rule(slug):
    plain = {name for name, value in LESSONS[slug].parameters.items() if isinstance(value, bool | int | float)}
    assert plain - parameters.RULES.keys() == set()


# Per name: what is refused, and a word that the message says about it.
REFUSED = {
    "MAX_STEPS": [(0, "whole number"), (-2, "-1"), (10**9, "1,000,000"), (1.5, "whole"), ("60", "whole"), (True, "whole"), (None, "whole")],
    "EPOCHS": [(0, "above 0"), (-1, "above 0"), (float("nan"), "above 0"), ("1", "above 0")],
    "BATCH_SIZE": [(0, "from 1"), (-8, "from 1"), (10**6, "4,096"), (2.0, "whole"), ("2", "whole")],
    "GRADIENT_ACCUMULATION": [(0, "from 1"), (-1, "from 1"), (99999, "4,096")],
    "LEARNING_RATE": [(0, "above 0"), (-2e-4, "above 0"), (2e4, "0.1"), (float("inf"), "0.1"), ("2e-4", "number")],
    "MAX_SEQ_LENGTH": [(0, "from 16"), (-2048, "from 16"), (2**31, "1,048,576"), (2048.5, "whole")],
    "MAX_NEW_TOKENS": [(0, "from 1"), (-1, "from 1"), (10**8, "1,048,576")],
    "HELD_OUT": [(0, "from 1"), (-100, "from 1"), (0.1, "whole"), (10**7, "1,000,000")],
    "ASKED": [(0, "from 1"), (-8, "from 1"), ([], "list"), (50, "HELD_OUT = 40")],
    "SEED": [(-1, "from 0"), (2**32, "4,294,967,295"), (3.5, "whole")],
    "VRAM_GB": [(-1, "from 0"), ("8 GB", "number"), (float("nan"), "number")],
    "DISK_GB": [(-1, "from 0"), (None, "number")],
    "LOAD_IN_4BIT": [("False", "without quotation marks"), (0, "True or False"), (None, "True or False")],
    "PACKING": [("no", "True or False"), (1, "True or False")],
    "GRADIENT_CHECKPOINTING": [("unsloth", "True or False")],
    "MODEL": [("", "not empty"), ("   ", "not empty"), (None, "not empty"), (7, "not empty")],
    "MODEL_SOURCE": [("hf", "'modelscope'"), ("HuggingFace", "'huggingface'"), (None, "'huggingface'")],
    "OUTPUT_DIR": [("", "a folder"), ("README.md", "not a file"), ("README.md/out", "below one"), ("a\0b", "a folder"), (None, "a folder")],
    "LANGUAGE": [("cn", "'zh'"), ("EN", "'en'")],
    "LORA_RANK": [(0, "from 1"), (4096, "1,024")],
    "NUM_GENERATIONS": [(1, "from 2"), (0, "from 2"), (3, "BATCH_SIZE × GRADIENT_ACCUMULATION = 8")],
    "VLLM_MEMORY": [(0, "above 0"), (1.5, "at most 1"), (50, "at most 1")],
    "BETA": [(0, "above 0"), (-0.1, "above 0")],
    "SHARE": [(0, "above 0"), (1.1, "at most 1"), (10, "at most 1")],
    "POLLUTED": [(-0.1, "from 0"), (40, "to 1")],
    "TEMPERATURE": [(-0.5, "from 0"), (7, "to 2")],
    "CAPS": [([], "a list"), ([0, -1], "a list"), (64, "a list"), (["64"], "whole")],
    "AT_ONCE": [([0], "a list"), ([1, 2.5], "whole")],
    "WAITS": [([0], "whole"), (1, "a list")],
    "MIXTURES": [(["1-5"], "'1:5'"), (["0:0"], "not both 0"), ("1:5", "a list"), ([], "a list")],
    "BITS": [(5, "one of"), ("4", "one of")],
    "GROUP_SIZE": [(0, "from 1"), (-2, "-1")],
    "ROWS": [(0, "from 1"), ({"en": 5}, "'zh'"), ("all", "None")],
    "THREADS": [(0, "from 1"), (-2, "-1")],
    "TRACKING": [("WandB", "'wandb'"), (True, "'none'")],
    "PROCESSES": [(0, "from 1"), (-1, "from 1")],
    "TENSOR_PARALLEL": [(-1, "from 0")],
    "DTYPE": [("fp16", "'float16'")],
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize(("name", "value", "says"), [(n, v, s) for n, cases in REFUSED.items() for v, s in cases])
def test_a_bad_value_is_named_with_what_may_stand_there(name, value, says):
    with pytest.raises(BadParameter) as caught:
        check(GOOD | {name: value})
    assert isinstance(caught.value, ValueError)
    line, *_, where = str(caught.value).splitlines()
    assert line.startswith(f"{name} = ") and says in line and "parameters cell" in where
    with pytest.raises(BadParameter, match="参数那一格"):
        check(GOOD | {name: value}, language="zh")


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
    check({"SERVED": 3, "ASKED": ["a question"], "HELD_OUT": 10})


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


@pytest.mark.bad_input
@pytest.mark.parametrize("slug", LESSONS)
def test_every_notebook_checks_before_anything_else_happens(slug):
    """The cells up to the check, as they stand, with one value spoiled in between: the check is what stops them."""
    cells = [cell.node.source for cell in LESSONS[slug].cells if cell.is_code]
    first = next(number for number, source in enumerate(cells) if "parameters.check(globals()" in source)
    names: dict = {}
    exec("\n".join(cells[:first]), names)
    names["OUTPUT_DIR"] = ""
    with pytest.raises(BadParameter, match="OUTPUT_DIR"), redirect_stdout(io.StringIO()) as said:
        exec(cells[first], names)
    assert not said.getvalue()
