"""The prompt templates of the course.

A model learns the exact characters it is trained on: train and prompt with the same template,
down to the last newline.
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
    return ALPACA.format(instruction=instruction, input=input, response=response)


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
    return [{"role": "system", "content": GSM8K_SYSTEM}, {"role": "user", "content": question}]


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
    return MEDICAL_ZH.format(question=question, answer=answer)
