"""What may stand in a parameters cell: looked at before anything is downloaded, loaded or trained.

parameters.check(globals())

A name means the same in every lesson, so there is one table of rules. Names that are not in it are left alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from helpers import runtime

MANY, LONG = 1_000_000, 1_048_576  # more steps or rows, or longer texts, than these are a slip of the keyboard
WITHIN = {"ASKED": "HELD_OUT", "SERVED": "ASKED"}  # the first is taken from the second


class BadParameter(runtime.Stop, ValueError):
    """Values that a lesson cannot work with; the text names each, and what may stand there."""


@dataclass(frozen=True)
class Rule:
    """What a value must be, in words, and the test of it."""

    words: dict[str, str]
    fits: Callable[[Any], bool]

    def __or__(self, other: Rule) -> Rule:
        words = {
            "en": f"{self.words['en']}, or {other.words['en']}",
            "zh": f"{self.words['zh']}，或{other.words['zh']}",
        }
        return Rule(words, lambda value: self.fits(value) or other.fits(value))


def only(value: Any, en: str = "", zh: str = "") -> Rule:
    """Just this value; the words say what for."""
    return Rule(
        {"en": f"{value!r}{en and f' ({en})'}", "zh": f" {value!r}{zh and f'（{zh}）'}"},
        lambda given: given == value and type(given) is type(value),
    )


def one_of(*values: Any) -> Rule:
    words = ", ".join(map(repr, values))
    return Rule({"en": f"one of {words}", "zh": f"以下之一：{words}"}, lambda given: any(
        given == value and type(given) is type(value) for value in values
    ))  # fmt: skip


def whole(low: int, high: int = MANY) -> Rule:
    words = {"en": f"a whole number from {low:,} to {high:,}", "zh": f"{low:,} 到 {high:,} 之间的整数"}
    return Rule(words, lambda value: _is(value, Integral) and low <= value <= high)


def number(low: float, high: float, low_too: bool = False) -> Rule:
    """A finite number above `low` (or from it on, with `low_too`), at most `high`."""
    words = {
        "en": f"a number {'from' if low_too else 'above'} {low:g} {'to' if low_too else 'and at most'} {high:g}",
        "zh": f"{'不小于' if low_too else '大于'} {low:g}、不超过 {high:g} 的数",
    }
    return Rule(words, lambda value: _is(value, Real) and math.isfinite(value) and (
        low <= value if low_too else low < value
    ) and value <= high)  # fmt: skip


def text(pattern: str = r"(?s).*\S.*", en: str = "a text that is not empty", zh: str = "一段不为空的文字") -> Rule:
    return Rule({"en": en, "zh": zh}, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def list_of(rule: Rule, least: int = 1) -> Rule:
    words = {"en": f"a list, each of it {rule.words['en']}", "zh": f"一个列表，每一项都是{rule.words['zh'].strip()}"}
    return Rule(
        words, lambda value: isinstance(value, list | tuple) and len(value) >= least and all(map(rule.fits, value))
    )


def by_language(rule: Rule) -> Rule:
    words = {"en": "that for each of 'en' and 'zh', in a dict", "zh": "按 'en'、'zh' 分别给出的字典"}  # fmt: skip
    return Rule(
        words,
        lambda value: isinstance(value, dict) and set(value) == {"en", "zh"} and all(map(rule.fits, value.values())),
    )


def _folder_fault(value: str) -> bool:
    path = Path(value)
    return any(parent.exists() and not parent.is_dir() for parent in (path, *path.parents))


SWITCH = Rule(
    {"en": "True or False, without quotation marks", "zh": "True 或 False，不加引号"},
    lambda value: isinstance(value, bool),
)
COUNT, SOME, TOKENS = whole(1), whole(1, 4096), whole(1, LONG)
LENGTH = whole(16, LONG)
RATE = number(0, 0.1)  # a forgotten minus sign, 2e4 for 2e-4, is far above
ALL = only(None, "all of them", "全部")
RULES: dict[str, Rule] = {
    "ASKED": COUNT | list_of(text()),
    "AT_ONCE": list_of(SOME),
    "BALANCED": SWITCH,
    "BATCH_SIZE": SOME,
    "BEGINNINGS": list_of(text()),
    "BETA": number(0, 100),
    "BITS": one_of(2, 3, 4, 8),
    "CALIBRATION_LENGTH": TOKENS,
    "CALIBRATION_ROWS": COUNT,
    "CAPS": list_of(whole(0, LONG)),
    "COMPARE_WITH_RANDOM": SWITCH,
    "CUTOFF": LENGTH,
    "DATASET": text(),
    "DISK_GB": number(0, MANY, low_too=True),
    "DOMAIN": text(),
    "DOMAIN_ROWS": COUNT | ALL,
    "DPO_LEARNING_RATE": RATE,
    "DPO_STEPS": COUNT,
    "DROP_TOO_LONG": SWITCH,
    "DTYPE": one_of("", "float32", "bfloat16", "float16"),
    "EMBEDDING_LEARNING_RATE": RATE,
    "EPOCHS": number(0, 1000),
    "EVAL_BATCH": SOME,
    "EVAL_STEPS": COUNT,
    "EXAMPLES": whole(1, 100),
    "FAST_INFERENCE": SWITCH,
    "GENERAL": text(),
    "GENERAL_ROWS": COUNT | ALL,
    "GRADIENT_ACCUMULATION": SOME,
    "GRADIENT_CHECKPOINTING": SWITCH,
    "GROUP_SIZE": whole(1, 65536) | only(-1, "one scale a row", "一行一个缩放系数"),
    "HELD_OUT": COUNT,
    "KEEP": text(),
    "LANGUAGE": one_of("en", "zh"),
    "LEARNING_RATE": RATE,
    "LOAD_IN_4BIT": SWITCH,
    "LORA_RANK": whole(1, 1024),
    "MAX_ANSWER_TOKENS": TOKENS,
    "MAX_CHARS": COUNT,
    "MAX_COMPLETION_LENGTH": TOKENS,
    "MAX_IMAGE_TOKENS": whole(8, 65536),
    "MAX_NEW_TOKENS": TOKENS,
    "MAX_PLAIN_TOKENS": TOKENS,
    "MAX_SEQ_LENGTH": LENGTH,
    "MAX_STEPS": COUNT,
    "MIXTURES": list_of(
        text(r"(?!0+:0+$)\d+:\d+", "two whole numbers as in '1:5', not both 0", "形如 '1:5' 的两个整数，不能都是 0")
    ),
    "MODEL": text(),
    "MODEL_SOURCE": one_of("huggingface", "modelscope"),
    "NUM_GENERATIONS": whole(2, 4096),  # a group of one has nobody to be compared with
    "OUTPUT_DIR": Rule(
        {
            "en": "a folder, present or to be made (not a file, nor below one)",
            "zh": "一个文件夹，已有的或待建的（不能是文件，也不能在文件底下）",
        },
        lambda value: isinstance(value, str) and bool(value.strip()) and "\0" not in value and not _folder_fault(value),
    ),
    "PACKING": SWITCH,
    "POLLUTED": number(0, 1, low_too=True),
    "POOL": COUNT,
    "PRIVATE": SWITCH,
    "PROCESSES": whole(1, 1024),
    "PT_LEARNING_RATE": RATE,
    "PT_STEPS": COUNT,
    "PUBLIC": SWITCH,
    "QUANTIZATION_BIT": one_of("null", "4", "8"),
    "QUESTION": text(),
    "RANK": whole(1, 1024),
    "REQUESTS": COUNT,
    "RESPONSES_ONLY": SWITCH,
    "ROWS": COUNT | ALL | by_language(COUNT),
    "SAVE_STEPS": whole(0),
    "SCORE_BATCH": SOME,
    "SEED": whole(0, 2**32 - 1),
    "SELECT": COUNT,
    "SERVED": COUNT,
    "SFT_LEARNING_RATE": RATE,
    "SFT_STEPS": COUNT,
    "SHARE": number(0, 1),
    "SHORTEST": whole(0),
    "TEMPERATURE": number(0, 2, low_too=True),
    "TENSOR_PARALLEL": whole(0, 1024),
    "THREADS": whole(1, 4096) | only(-1, "all cores", "用满所有核"),
    "TOP_K": whole(1, 1000),
    "TRACKING": one_of("none", "tensorboard", "wandb", "trackio"),
    "TRAIN_PICTURES": whole(0),
    "UPLOAD": SWITCH,
    "VLLM_MEMORY": number(0, 1),
    "VOTES": whole(1, 10_000),
    "VRAM_GB": number(0, MANY, low_too=True),
    "WAITS": list_of(whole(1, 1000)),
}  # fmt: skip
WORDS: runtime.Words = {
    "en": {
        "must": "{name} = {value}: must be {rule}.",
        "within": "{name} = {value:,}: they are taken from {other} = {most:,}. Lower the one or raise the other.",
        "group": "NUM_GENERATIONS = {generations}: a step has BATCH_SIZE × GRADIENT_ACCUMULATION = {answers} answers, "
        "which must be whole groups. Make it a multiple.",
        "keep": "KEEP = {keep!r}: is none of MIXTURES, {mixtures}.",
        "where": "Mend it in the parameters cell, run that cell again, then this one.",
    },
    "zh": {
        "must": "{name} = {value}：应为{rule}。",
        "within": "{name} = {value:,}：它们是从 {other} = {most:,} 里取的，要么调小前者，要么调大后者。",
        "group": "NUM_GENERATIONS = {generations}：每步共有 BATCH_SIZE × GRADIENT_ACCUMULATION = {answers} 个回答，"
        "必须能分成整组，请改成倍数。",
        "keep": "KEEP = {keep!r}：不在 MIXTURES（{mixtures}）里。",
        "where": "请在参数那一格改好，先重跑那一格，再跑这一格。",
    },
}


def check(values: Mapping[str, Any], within: Mapping[str, str] = WITHIN, language: str | None = None) -> None:
    """See that every parameter in `values` (a notebook's `globals()`) can be worked with; all faults in one error.

    `within` says which counts are taken from which others. Raises BadParameter, in the notebook's language.
    """
    language = language or runtime.language()
    say = partial(runtime.say, WORDS, in_language=language)
    rules = dict(RULES)
    if "EPOCHS" in values:
        rules["MAX_STEPS"] = COUNT | only(-1, "EPOCHS epochs instead", "改由 EPOCHS 决定")
    wrong = [name for name, rule in rules.items() if name in values and not rule.fits(values[name])]
    faults = [say("must", name=name, value=_short(values[name]), rule=rules[name].words[language]) for name in wrong]

    def right(*names: str) -> bool:
        return all(name in values and name not in wrong for name in names)

    for name, other in within.items():
        numbers = right(name, other) and _is(values[name], Integral) and _is(values[other], Integral)
        if numbers and values[name] > values[other]:
            faults.append(say("within", name=name, value=values[name], other=other, most=values[other]))
    if right("NUM_GENERATIONS", "BATCH_SIZE", "GRADIENT_ACCUMULATION"):
        answers = values["BATCH_SIZE"] * values["GRADIENT_ACCUMULATION"]
        if answers % values["NUM_GENERATIONS"]:
            faults.append(say("group", generations=values["NUM_GENERATIONS"], answers=answers))
    if right("KEEP", "MIXTURES") and values["KEEP"] not in values["MIXTURES"]:
        faults.append(say("keep", keep=values["KEEP"], mixtures=", ".join(values["MIXTURES"])))
    if faults:
        raise BadParameter("\n".join([*faults, say("where")]))


def _is(value: Any, kind: type) -> bool:
    """A number of that kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _short(value: Any, most: int = 80) -> str:
    shown = repr(value)
    return shown if len(shown) <= most else f"{shown[:most]}…"
