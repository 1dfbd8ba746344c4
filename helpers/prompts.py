"""The prompt templates of the course.

A model learns the exact characters it is trained on: train and prompt with the same template,
down to the last newline.

What is filled in comes out as it went in: no braces are read in it, nothing is escaped. So a text that holds a
control token (`CONTROL_TOKEN`) or a heading of the template is read as one by the tokenizer and by the label mask;
`report_marks` in `helpers.data.columns` counts such rows before training.
"""

import json
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from helpers.runtime import Stop


class PromptError(Stop, ValueError):
    """A prompt that cannot be made or asked; the message names the field or the prompt, and the mend."""


CONTROL_TOKEN = (
    r"<\|[^<>|\s]{1,60}\|>"  # ChatML, Qwen, Llama 3, Phi: <|im_end|>
    r"|<｜[^<>｜\s]{1,60}｜>"  # DeepSeek: <｜end▁of▁sentence｜>
    r"|</?s>|<(?:unk|pad|bos|eos)>"  # Llama 2, BLOOM, Gemma
    r"|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
)
"""What the common model families write as control tokens, as a regular expression for Python and for Arrow.

A tokenizer that has such a token reads it wherever it stands, also where a user typed it: `<|im_end|>` inside a
question ends the turn. No text of a template can tell the two apart.
"""

ALPACA = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
{response}"""
"""Alpaca's template (Stanford Alpaca, 2023); without an input, that section stays empty."""

ALPACA_RESPONSE = "### Response:\n"
"""What stands between prompt and response in `ALPACA`."""


def alpaca(instruction: str, input: str = "", response: str = "") -> str:
    """Fill the Alpaca template.

    Without `response`, the result is the prompt to generate from. For training, append the
    tokenizer's EOS yourself: a model that never sees EOS never learns to stop.
    """
    return _fill(ALPACA, instruction=instruction, input=input, response=response)


MEDICAL_ZH = """\
你是一名专业的医疗助手。请根据患者的问题，给出专业、准确、易懂的回答。

### 问题：
{question}

### 回答：
{answer}"""
"""For medical questions in Chinese."""

MEDICAL_ZH_QUESTION = "### 问题：\n"
MEDICAL_ZH_ANSWER = "### 回答：\n"
"""What stands before the question and before the answer in `MEDICAL_ZH`."""


def medical_zh(question: str, answer: str = "") -> str:
    """Fill `MEDICAL_ZH`; without `answer`, the prompt to generate from. EOS is yours to append."""
    return _fill(MEDICAL_ZH, question=question, answer=answer)


MEDICAL_O1_EN = """\
Below is a medical question. Think it through step by step before you answer, so that the answer follows from \
the findings.

### Instruction:
You are a physician, experienced in diagnosis and in planning treatment. Answer the question.

### Question:
{question}

### Response:
<{tag}>
"""
"""The course's template for medical-o1 in English: the prompt, which ends where the thinking begins."""

MEDICAL_O1_ZH = """\
下面是一道医学问题。请先一步一步想清楚，再作答，让答案有据可依。

### 任务：
你是一位临床经验丰富的医生，擅长诊断和制定治疗方案。请回答问题。

### 问题：
{question}

### 回答：
<{tag}>
"""
"""The same in Chinese."""

MEDICAL_O1 = {"en": MEDICAL_O1_EN, "zh": MEDICAL_O1_ZH}


def as_chat_template(prompt: str, bos_token: str | None = None, thinking: str = "") -> str:
    """A Jinja chat template that asks in this layout: a tokenizer saved with it takes the layout along.

    `prompt` is a filled template with `{question}` where the question stands, such as `medical_zh("{question}")`. Its
    end `thinking` opens the answer that is to be written and stands before no earlier one (`<think>` and a line break).
    `bos_token` is the tokenizer's, None for one that writes none: llama.cpp knows one of every model.
    No layout of the course was trained with a system message; one that is given comes first, and an empty line.
    Raises PromptMismatch where the prompt has no such place, or another end.
    """
    before, place, after = prompt.partition("{question}")
    if not place or not after.endswith(thinking):
        ending = f" and end with {thinking!r}" if thinking else ""
        raise PromptMismatch(f"{shown(prompt)} must hold {{question}}{ending}: fill the course's template so.")

    def text(what: str) -> str:
        return "{{ " + json.dumps(what, ensure_ascii=False) + " }}"

    return (
        f"{'{{ bos_token }}' if bos_token else ''}{{% for message in messages %}}"
        f"{{% if message['role'] == 'user' %}}{text(before)}{{{{ message['content'] }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{text(after.removesuffix(thinking))}{{{{ message['content'] }}}}"
        "{{ eos_token }}"
        f"{{% else %}}{{{{ message['content'] }}}}{text(chr(10) * 2)}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{text(after)}{{% endif %}}"
    )


class PromptMismatch(Stop, ValueError):
    """Training text and prompt do not fit together; the message says where they part."""


def medical_o1(question: str, thinking: str = "", response: str = "", language: str = "en", tag: str = "think") -> str:
    """Fill the medical-o1 template of `language`.

    Without `thinking` and `response`, the result is the prompt to generate from, up to the opening tag. For
    training, append the tokenizer's EOS yourself.
    """
    prompt = _fill(_of(MEDICAL_O1, language), question=question, tag=tag)
    _check_texts(thinking=thinking, response=response)
    return prompt + f"{thinking}\n</{tag}>\n\n{response}" if thinking or response else prompt


def check_agreement(training_text: str, prompt: str, tag: str = "think") -> None:
    """Raise PromptMismatch unless the model is prompted with what it was trained on.

    The training text must begin with the whole prompt, character for character, and have `<tag>` once before
    the thinking and `</tag>` once after it. Where it does not, the message shows the place in both.
    """
    if not training_text.startswith(prompt):
        pairs = enumerate(zip(training_text, prompt))
        place = next((i for i, (trained, asked) in pairs if trained != asked), min(len(training_text), len(prompt)))
        start = max(0, place - 20)
        raise PromptMismatch(
            f"training text and prompt part at character {place + 1} (line {prompt[:place].count(chr(10)) + 1}):\n"
            f"  trained on     …{training_text[start : place + 20]!r}\n"
            f"  prompted with  …{prompt[start : place + 20]!r}\n"
            "Make both with one template and one tag."
        )
    for text, where in ((f"<{tag}>", "before"), (f"</{tag}>", "after")):
        if (times := training_text.count(text)) != 1:
            raise PromptMismatch(
                f"{text} stands {times} times in the training text, not once {where} the thinking: a model trained on "
                f"it will not write what a reader of <{tag}>…</{tag}> looks for. Choose the tag that the text has."
            )
    if training_text.index(f"</{tag}>") < len(prompt):
        raise PromptMismatch(f"</{tag}> stands in the prompt, before any thinking. End the prompt with <{tag}>.")


GSM8K_SYSTEM = """\
Respond in the following format:
<reasoning>
...
</reasoning>
<answer>
...
</answer>"""
"""The system prompt of the GSM8K lesson: think first, then the bare number, each between its tags."""


def gsm8k(question: str) -> list[dict[str, str]]:
    """A conversation that asks one question, for `tokenizer.apply_chat_template` and as TRL's column `prompt`."""
    _check_texts(question=question)
    return [{"role": "system", "content": GSM8K_SYSTEM}, {"role": "user", "content": question}]


ODOMETER = {
    "en": "Read the dashboard: total distance, speed, time, temperature and gear, one field a line.",
    "zh": "读出仪表盘上的总里程、车速、时间、温度和挡位，每行一项。",
}
"""The prompt of the dashboard sheets, by language."""


NOTES = {"en": "Notes:\n{notes}\n\n{question}", "zh": "资料：\n{notes}\n\n{question}"}
"""A question behind retrieved notes, by language."""


def with_notes(question: str, notes: Sequence[str], language: str = "en") -> str:
    """The question behind its notes, one a line; without notes the question alone."""
    check_each("notes", notes)
    template = _of(NOTES, language)
    if not notes:
        _check_texts(question=question)
        return question
    return _fill(template, notes="\n".join(f"- {note}" for note in notes), question=question)


def _fill(template: str, **texts: str) -> str:
    """The template with these texts, as they are. Raises PromptError for one that is no text."""
    _check_texts(**texts)
    return template.format(**texts)


def _check_texts(**texts: Any) -> None:
    """Raise PromptError for what is no text: None would be filled in as the word None, bytes as b'…'."""
    for name, text in texts.items():
        if not isinstance(text, str):
            raise PromptError(
                f"{name} is {shown(text)}, not a text. Give a text; where there is none, an empty one (an empty "
                "cell of a table comes as None or nan)."
            )


def check_each(name: str, texts: Iterable[Any]) -> None:
    """Raise PromptError unless `texts` is a list of texts."""
    if not is_list(texts):
        raise PromptError(f"{name} is {shown(texts)}, not a list of texts. Put a single one in brackets: [text].")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise PromptError(f"number {number} of {name} is {shown(text)}, not a text. Give texts, or leave it out.")


def check_prompts(prompts: Sequence[str]) -> None:
    """Raise PromptError for what no tokenizer takes: no list of texts, or half a character (a lone surrogate)."""
    check_each("prompts", prompts)
    for number, prompt in enumerate(prompts, start=1):
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"prompt {number} of {len(prompts)}: character {error.start + 1} is half a character "
                f"({prompt[error.start]!r}), as from a text that was cut. Mend the text."
            ) from None


def _of(templates: Mapping[str, str], language: str) -> str:
    """The template of `language`. Raises PromptError for one that there is not."""
    if language not in templates:
        raise PromptError(f"language is {shown(language)}; it is one of {', '.join(map(repr, templates))}.")
    return templates[language]


def is_list(values: Any) -> bool:
    """Whether these are several values; one text alone, or a dict, would be taken letter by letter, or key by key."""
    return isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping)


def shown(value: Any) -> str:
    """A value for an error message, with its type, cut to a line."""
    return f"{reprlib.repr(value)} ({type(value).__name__})"
