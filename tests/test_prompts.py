from hypothesis import given
from hypothesis import strategies as st

from helpers import prompts


def test_the_alpaca_template_to_the_last_character():
    assert prompts.alpaca("Add.", "1 and 2", "3") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n3"
    )


@given(st.text(), st.text(), st.text())
def test_training_text_is_prompt_plus_response_whatever_they_hold(instruction, input, response):
    prompt = prompts.alpaca(instruction, input)
    assert prompt.endswith(prompts.ALPACA_RESPONSE)
    assert prompts.alpaca(instruction, input, response) == prompt + response


def test_the_gsm8k_prompt_asks_for_the_form_that_the_rewards_check():
    from helpers.rewards import TAGS, is_strict

    system, user = prompts.gsm8k("How many?")
    assert system == {"role": "system", "content": prompts.GSM8K_SYSTEM}
    assert user == {"role": "user", "content": "How many?"}
    assert all(system["content"].count(tag) == 1 for tag in TAGS)
    assert is_strict(system["content"].partition(":\n")[2])
