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


ODOMETER = {
    "en": "Read the dashboard: total distance, speed, time, temperature and gear, one field a line.",
    "zh": "读出仪表盘上的总里程、车速、时间、温度和挡位，每行一项。",
}
"""The prompt of the dashboard sheets, by language."""
