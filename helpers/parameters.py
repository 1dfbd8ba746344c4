"""What may stand in a parameters cell: looked at before anything is downloaded, loaded or trained.

parameters.check(globals())

A name means the same in every lesson, so there is one table of rules. Names that are not in it are left alone.
"""

from __future__ import annotations

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
        lambda given: type(given) is type(value) and given == value,
    )


def one_of(*values: Any) -> Rule:
    words = ", ".join(map(repr, values))
    return Rule({"en": f"one of {words}", "zh": f"以下之一：{words}"}, lambda given: any(
        type(given) is type(value) and given == value for value in values
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
    return Rule(words, lambda value: _is(value, Real) and (low <= value if low_too else low < value) and value <= high)


def text(pattern: str = r"(?s).*\S.*", en: str = "a text that is not empty", zh: str = "一段不为空的文字") -> Rule:
    """A text that `pattern` matches as a whole."""
    return Rule({"en": en, "zh": zh}, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def list_of(rule: Rule, least: int = 1) -> Rule:
    """A list of at least so many values, each as `rule` says."""
    words = {
        "en": f"a list{' that is not empty' if least else ', which may be empty'}, each of it {rule.words['en']}",
        "zh": f"一个列表（{'不能' if least else '可以'}为空），每一项都是{rule.words['zh'].strip()}",
    }
    return Rule(
        words, lambda value: isinstance(value, list | tuple) and len(value) >= least and all(map(rule.fits, value))
    )


def by_language(rule: Rule) -> Rule:
    """A dict with a value for each language."""
    words = {
        "en": f"a dict with 'en' and 'zh', each of them {rule.words['en']}",
        "zh": f"一个有 'en'、'zh' 两项的字典，每一项都是{rule.words['zh'].strip()}",
    }
    return Rule(
        words,
        lambda value: isinstance(value, dict) and set(value) == {"en", "zh"} and all(map(rule.fits, value.values())),
    )


def _is_expression(value: Any) -> bool:
    try:
        return isinstance(value, str) and value != "" and bool(re.compile(value))
    except (re.error, OverflowError, RecursionError):
        return False


def _is_options(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and name.strip() and isinstance(given, str | bool | int | float)
        for name, given in value.items()
    )


def _is_folder(value: Any) -> bool:
    """Whether such a folder is there or can be made."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        return False
    path = Path(value)
    try:
        return not any(parent.exists() and not parent.is_dir() for parent in (path, *path.parents))
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


SWITCH = Rule(
    {"en": "True or False, without quotation marks", "zh": "True 或 False，不加引号"},
    lambda value: isinstance(value, bool),
)
COUNT, SOME, TOKENS = whole(1), whole(1, 4096), whole(1, LONG)
LENGTH = whole(16, LONG)
RATE = number(0, 0.1)  # a forgotten minus sign, 2e4 for 2e-4, is far above
ALL = only(None, "all of them", "全部")
PART = text() | only(None, "a file has no parts", "文件没有子集")
ANY_TEXT = text(r"(?s).*", "a text, which may be empty", "一段文字，可以为空")
EXPRESSION = Rule(
    {"en": "a regular expression that is not empty", "zh": "一个写法正确、不为空的正则表达式"}, _is_expression
)
OPTIONS = Rule(
    {
        "en": "a dict of command-line options: a name, and a text, a number, True or False for each",
        "zh": "一个命令行选项的字典：名字对应文字、数字、True 或 False",
    },
    _is_options,
)
GGUF = ("f16", "q8_0", "q4_k_m")
RULES: dict[str, Rule] = {
    "ADAPTER": text(),
    "ANSWER_FORM": text(r"[^{}]*\{\}[^{}]*", "a text with {} in one place", "一段文字，里面有且只有一个 {}"),
    "ASKED": COUNT,
    "AT_ONCE": list_of(SOME),
    "BALANCED": SWITCH,
    "BATCH_SIZE": SOME,
    "BEGIN": text(),
    "BEGINNINGS": list_of(text()),
    "BETA": number(0, 100),
    "BITS": one_of(2, 3, 4, 8),
    "CALIBRATION_LENGTH": TOKENS,
    "CALIBRATION_ROWS": COUNT,
    "CAPS": list_of(whole(0, LONG)),
    "CASE": by_language(text()),
    "CASE_KEYS": by_language(list_of(EXPRESSION)),
    "COMPARE_WITH_RANDOM": SWITCH,
    "CUTOFF": LENGTH,
    "DATASET": text(),
    "DATASETS": list_of(text(), least=0),
    "DATASET_CONFIG": PART,
    "DISCLAIMER": text(),
    "DISK_GB": number(0, MANY, low_too=True),
    "DOMAIN": text(),
    "DOMAIN_ROWS": COUNT | ALL,
    "DPO_DATA": text(),
    "DPO_LEARNING_RATE": RATE,
    "DPO_STEPS": COUNT,
    "DROP_TOO_LONG": SWITCH,
    "DTYPE": one_of("", "float32", "bfloat16", "float16"),
    "EMBEDDER": text(),
    "EMBEDDING_LEARNING_RATE": RATE,
    "END": text(),
    "ENGINE": text(),
    "EPOCHS": number(0, 1000),
    "EVAL_BATCH": SOME,
    "EVAL_DATASET": text(),
    "EVAL_STEPS": COUNT,
    "EXAMPLES": whole(1, 100),
    "FAST_INFERENCE": SWITCH,
    "FORMATS": list_of(one_of("lora", "merged_16bit", "merged_4bit_forced", *GGUF)),
    "GENERAL": text(),
    "GENERAL_CONFIG": PART,
    "GENERAL_ROWS": COUNT | ALL,
    "GRADIENT_ACCUMULATION": SOME,
    "GRADIENT_CHECKPOINTING": SWITCH,
    "GROUP_SIZE": whole(1, 65536) | only(-1, "one scale a row", "一行一个缩放系数"),
    "HELD_OUT": COUNT,
    "INPUT": ANY_TEXT,
    "INSTRUCTION": text(),
    "KEEP": text(),
    "KERNEL": text(),
    "LANGUAGE": one_of("en", "zh"),
    "LEARNING_RATE": RATE,
    "LICENSE": text(),
    "LLAMA_CPP": ANY_TEXT,
    "LOAD_IN_4BIT": SWITCH,
    "LORA_RANK": whole(1, 1024),
    "LOSS": text(),
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
    "NOTES": text(),
    "NUM_GENERATIONS": whole(2, 4096),  # a group of one has nobody to be compared with
    "ONE_AT_A_TIME": OPTIONS,
    "OTHER_WORD": text(),
    "OUTPUT_DIR": Rule(
        {
            "en": "a folder, present or to be made (not a file, nor below one)",
            "zh": "一个文件夹，已有的或待建的（不能是文件，也不能在文件底下）",
        },
        _is_folder,
    ),
    "PACKING": SWITCH,
    "PLAN": text(),
    "POLLUTED": number(0, 1, low_too=True),
    "POOL": COUNT,
    "PRIVATE": SWITCH,
    "PROCESSES": whole(1, 1024),
    "PT_DATA": text(),
    "PT_LEARNING_RATE": RATE,
    "PT_STEPS": COUNT,
    "PUBLIC": SWITCH,
    "QUANTIZATION_BIT": one_of("null", "4", "8"),
    "QUESTION": text(),
    "QUESTIONS": text(),
    "QUIZ": text(),
    "RANK": whole(1, 1024),
    "REQUESTS": COUNT,
    "RESPONSES_ONLY": SWITCH,
    "REWARD_MODEL": text(),
    "ROWS": COUNT | ALL,
    "SAVE_STEPS": whole(0),
    "SCORE_BATCH": SOME,
    "SEARCH": text(),
    "SEED": whole(0, 2**32 - 1),
    "SELECT": COUNT,
    "SERVED": COUNT,
    "SERVER_OPTIONS": OPTIONS,
    "SFT_DATA": text(),
    "SFT_LEARNING_RATE": RATE,
    "SFT_STEPS": COUNT,
    "SHARE": number(0, 1),
    "SHORTEST": whole(0),
    "TEMPERATURE": number(0, 2, low_too=True),
    "TEMPLATE": text(),
    "TENSOR_PARALLEL": whole(0, 1024),
    "TENSOR_PARALLEL_MODEL": text(),
    "THREADS": whole(1, 4096) | only(-1, "all cores", "用满所有核"),
    "TITLE": text(),
    "TOP_K": whole(1, 1000),
    "TRACKING": one_of("none", "tensorboard", "wandb", "trackio"),
    "TRAIN_PICTURES": whole(0),
    "TRUTH": ANY_TEXT,
    "UNWANTED": EXPRESSION,
    "UPLOAD": SWITCH,
    "UPLOAD_TO": text(
        r"([A-Za-z0-9._-]+/[A-Za-z0-9._-]+)?",
        "'' (no upload), or a name as in 'your_name/your_model'",
        " ''（不上传），或形如 'your_name/your_model' 的名字",
    ),
    "VLLM_MEMORY": number(0, 1),
    "VOTES": whole(1, 10_000),
    "VRAM_GB": number(0, MANY, low_too=True),
    "WAIT": text(),
    "WAITS": list_of(whole(1, 1000)),
    "WANTED": EXPRESSION,
}  # fmt: skip
# Where a lesson has the first parameter as well, another rule holds for the second.
BESIDE: dict[str, dict[str, Rule]] = {
    "CASE": {"ROWS": by_language(COUNT)},
    "EPOCHS": {"MAX_STEPS": COUNT | only(-1, "EPOCHS epochs instead", "改由 EPOCHS 决定")},
    "FORMATS": {"ASKED": list_of(one_of(*GGUF)), "QUESTIONS": list_of(text())},
    "LOSS": {"TEMPLATE": one_of("chat", "medical")},
    "POLLUTED": {"ROWS": COUNT},
}
WORDS: runtime.Words = {
    "en": {
        "must": "{name} = {value}: must be {rule}.",
        "within": "{name} = {value:,}: they are taken from {other} = {most:,}. Lower the one or raise the other.",
        "group": "NUM_GENERATIONS = {generations}: a step has BATCH_SIZE × GRADIENT_ACCUMULATION = {answers} answers, "
        "which must be whole groups. Make it a multiple.",
        "keep": "KEEP = {keep!r}: is none of MIXTURES, {mixtures}.",
        "asked": "ASKED = {asked}: FORMATS makes no {missing}. Add it there, or take it out here.",
        "where": "Mend it in the parameters cell, run that cell again, then this one.",
    },
    "zh": {
        "must": "{name} = {value}：应为{rule}。",
        "within": "{name} = {value:,}：它们是从 {other} = {most:,} 里取的，要么调小前者，要么调大后者。",
        "group": "NUM_GENERATIONS = {generations}：每步共有 BATCH_SIZE × GRADIENT_ACCUMULATION = {answers} 个回答，"
        "必须能分成整组，请改成倍数。",
        "keep": "KEEP = {keep!r}：不在 MIXTURES（{mixtures}）里。",
        "asked": "ASKED = {asked}：FORMATS 里没有 {missing}，不会导出。要么加进 FORMATS，要么从这里去掉。",
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
    for other, instead in BESIDE.items():
        rules |= instead if other in values else {}
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
    if right("ASKED", "FORMATS") and (missing := [name for name in values["ASKED"] if name not in values["FORMATS"]]):
        faults.append(say("asked", asked=values["ASKED"], missing=", ".join(missing)))
    if faults:
        raise BadParameter("\n".join([*faults, say("where")]))


def _is(value: Any, kind: type) -> bool:
    """A number of that kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _short(value: Any, most: int = 80) -> str:
    try:
        shown = repr(value).replace("\n", " ")
    except ValueError:  # a whole number of more than 4,300 digits
        shown = f"<{type(value).__name__}>"
    return shown if len(shown) <= most else f"{shown[:most]}…"
