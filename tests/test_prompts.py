import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers import ollama, prompts


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


LAYOUTS = {
    "medical": (prompts.medical_zh, ""),
    "thinking": (prompts.medical_o1, "<think>\n"),
    "thinking, zh": (lambda question: prompts.medical_o1(question, language="zh"), "<think>\n"),
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request):
    """How a lesson asks, and a tokenizer that was saved with that layout."""
    ask, thinking = LAYOUTS[request.param]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<eos>")
    tokenizer.chat_template = prompts.as_chat_template(ask("{question}"), thinking=thinking)
    return ask, tokenizer


@given(question=st.text(), answer=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_chat_template_asks_as_the_lesson_does(layout, question, answer):
    ask, tokenizer = layout
    turns = [{"role": "user", "content": question}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == ask(question)
    turns += [{"role": "assistant", "content": answer}, *turns]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    told = ask(question).removesuffix("<think>\n") + answer + "<eos>"
    assert whole == told + ask(question)
    if ask is prompts.medical_zh and answer:
        assert told == prompts.medical_zh(question, answer) + "<eos>"


def test_a_chat_template_of_the_course_goes_into_a_modelfile(layout):
    _, tokenizer = layout
    go = ollama.template(ollama.ChatPieces.of(tokenizer))
    system, user, answer = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
    for turns in ([user], [user, answer, user], [system, user]):
        assert ollama.render(go, turns) == tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True
        )


def test_a_chat_template_begins_with_the_token_that_begins_a_text():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<bos>", eos_token="<eos>")
    tokenizer.chat_template = prompts.as_chat_template(prompts.medical_zh("{question}"), tokenizer.bos_token)
    user = [{"role": "user", "content": "痛"}]
    assert tokenizer.apply_chat_template(user, tokenize=False, add_generation_prompt=True) == (
        "<bos>" + prompts.medical_zh("痛")
    )


@pytest.mark.parametrize(("prompt", "thinking"), [("no place", ""), (prompts.medical_zh("{question}"), "<think>\n")])
def test_a_layout_that_is_none_is_refused(prompt, thinking):
    with pytest.raises(prompts.PromptMismatch, match="must hold {question}"):
        prompts.as_chat_template(prompt, thinking=thinking)
