"""The model that trains on its own verified problems: what the verifier lets through, and that it pays."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.nano import arithmetic
from tools.lessons import ROOT

SCRIPT = ROOT / "lessons" / "11_data_quality" / "closing_the_circle.py"
QUESTION = "Ben has 12 eggs, buys 9 more and gives 4 away. How many eggs does Ben have now?"


def form(reasoning: str, number: object) -> str:
    return f"<reasoning>\n{reasoning}\n</reasoning>\n<answer>\n{number}\n</answer>"


GOOD = form("12+9=21\n21-4=17", 17)
GUESS = form("I just know.", 17)


@pytest.fixture(scope="module")
def circle():
    """The script without its trainers: importing Unsloth here would change transformers for every other test."""
    names = {"unsloth": ["FastLanguageModel"], "unsloth.chat_templates": ["train_on_responses_only"]}
    names["trl"] = ["SFTConfig", "SFTTrainer"]
    with pytest.MonkeyPatch.context() as patch:
        for name, members in names.items():
            module = ModuleType(name)
            for member in members:
                setattr(module, member, None)
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("closing_the_circle", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("reasoning", "number", "holds"),
    [
        ("12+9=21\n21-4=17", 17, True),
        ("12-4=8\n8+9=17", 17, True),  # another order
        ("12+9=22\n22-4=18", 18, False),  # a wrong sum
        ("12+9=21\n21-4=17", 21, False),  # not the last result
        ("12+9=21", 21, False),  # a number is left over
        ("12+9=21\n21-5=16", 16, False),  # a number that nobody told
        ("12+12=24\n24-4=20", 20, False),  # one used twice
        ("I just know.", 17, False),
        ("12+9=21\nso far\n21-4=17", 17, False),
    ],
)
def test_sums_hold_means_right_sums_from_the_questions_numbers(circle, reasoning, number, holds):
    assert circle.sums_hold(QUESTION, form(reasoning, number)) is holds


def test_every_taught_problem_passes_with_its_reasoned_answer_and_the_audit_agrees(circle):
    rng = random.Random(0)
    for _ in range(200):
        problem = arithmetic.taught_problem(rng)
        assert circle.sums_hold(problem.question, arithmetic.completion(problem, "reasoned", rng))
        assert not circle.sums_hold(problem.question, arithmetic.completion(problem, "at once", rng))
        assert circle.truth(problem.question) == str(problem.answer)


def test_the_audit_knows_what_cannot_happen_and_what_it_cannot_judge(circle):
    assert circle.truth(QUESTION) == "17"
    assert circle.truth(QUESTION.replace("12", "2").replace("9", "1")) == ""  # gives away more than there is
    assert circle.truth(QUESTION.replace("eggs", "eagles")) is None


def test_what_each_rule_lets_through(circle):
    wrong = form("12+9=20\n20-4=16", 16)
    group = [GUESS, GOOD, GOOD, "no form at all: 17", wrong, wrong, "", form("I just know.", 5)]
    assert circle.verify(QUESTION, group, "none", 0.0) == GUESS
    assert circle.verify(QUESTION, ["", *group], "none", 0.0) is None
    assert circle.verify(QUESTION, group, "vote", 3 / 8) == GUESS  # guesses vote too, and pass when they are right
    assert circle.verify(QUESTION, group, "vote+sums", 3 / 8) == GOOD
    assert circle.verify(QUESTION, group, "vote+sums", 4 / 8) is None
    assert circle.verify(QUESTION, [wrong] * 8, "vote", 1.0) == wrong  # agreement alone can be wrong
    assert circle.verify(QUESTION, [wrong] * 8, "vote+sums", 1.0) is None
    assert circle.verify(QUESTION, ["", "17"], "vote", 0.0) is None


answers = st.sampled_from([GOOD, GUESS, form("12+9=20\n20-4=16", 16), "17", "", form("12-4=8\n8+9=17", 17)])


@settings(max_examples=100, deadline=None)
@given(st.lists(answers, min_size=1, max_size=8), st.sampled_from(["vote", "vote+sums"]), st.floats(0, 1))
def test_what_passes_has_the_votes(circle, group, rule, agreement):
    picked = circle.verify(QUESTION, group, rule, agreement)
    if picked is not None:
        number = circle.final(picked)
        assert picked in group and sum(circle.final(one) == number for one in group) >= max(1, agreement * len(group))
        assert rule == "vote" or circle.sums_hold(QUESTION, picked)


def test_problems_are_sorted_out_and_test_numbers_kept_away(circle):
    seen: set[str] = set()
    reworded = "4 eggs, then 9, then 12. How many?"  # the numbers of a test question, in another order
    written = ["Ben has 1 egg and 2 more. How many?", "", "How many?", "Ben has 1 egg and 2 more.", QUESTION, reworded]
    kept, fate = circle.sort_out([*written, written[0]], seen, [QUESTION])
    assert kept == [written[0]]
    assert fate == {"new": 1, "malformed": 3, "in_the_test": 2, "repeated": 1}
    assert circle.sort_out([written[0]], seen, [])[0] == []  # nor in a later round


@pytest.mark.notebook
@pytest.mark.weekly
@pytest.mark.nano
def test_a_round_in_small_pays(tmp_path):
    small = ["--rounds=1", "--problems=120", "--steps=40", "--held-out=60", f"--out={tmp_path}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    figures = json.loads((tmp_path / "summary.json").read_text("utf-8"))
    (after,) = figures["rounds"]
    assert after["malformed"] <= 15 and after["solvable"] >= 0.45  # it does write problems
    assert after["kept"] >= 10 and after["kept_right"] >= 0.95
    assert after["accuracy"] >= figures["before"]["accuracy"] + 0.2
    assert after["reasoned"] >= figures["before"]["reasoned"] + 0.2
    assert after["malformed"] + after["repeated"] + after["in_the_test"] + after["new"] == after["written"] == 120
