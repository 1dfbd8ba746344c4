"""The Modelfile: a Go template derived from a chat template, and the stop tokens."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers import ollama
from helpers.ollama import ChatPieces, TemplateError

# In the manner of three families; the wording is this project's.
QWEN2 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}"
    "{% elif m['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + m['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
# The system message inside the first question.
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST]"
    "{% if loop.index0 == 1 %}{{ messages[0]['content'] }} | {% endif %}{{ m['content'] }}[/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
)
# As Gemma's: a system message is refused by an error of the template's own.
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + m['role'] + '\\n' + m['content'] + '<end_of_turn>\\n' }}{% endfor %}"
)
FAMILIES = {
    "qwen2": (QWEN2, None, "<|im_end|>", ["<|im_start|>"]),
    "llama3": (LLAMA3, "<|begin_of_text|>", "<|eot_id|>", ["<|start_header_id|>", "<|end_header_id|>"]),
    "r1": (R1, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", ["<｜User｜>", "<｜Assistant｜>"]),
}


def tokenizer_of(chat_template: str | None, bos: str | None, eos: str, added: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos, chat_template=chat_template
    )
    tokenizer.add_tokens(added)
    return tokenizer


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return tokenizer_of(*FAMILIES[request.param])


def talk(texts: list[str], system: str | None) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": system}] if system is not None else []
    return messages + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


# Llama 3's template strips texts, R1's looks for "</think>": Go's cannot, so texts are plain.
text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(str.strip).filter(bool)


@settings(max_examples=30)
@given(texts=st.lists(text, min_size=1, max_size=5), system=st.none() | text)
def test_the_go_template_writes_what_the_chat_template_writes(tokenizer, texts, system) -> None:
    pieces = ChatPieces.of(tokenizer)
    go = ollama.template(pieces)
    messages = talk(texts, system)
    if len(texts) % 2:
        wanted = ollama.written(tokenizer, messages, add_generation_prompt=True)
    else:  # an answer at the end is left open
        whole = ollama.written(tokenizer, messages)
        wanted = whole.removesuffix(pieces.assistant[1])
        assert wanted != whole
    assert ollama.render(go, messages) == wanted


def test_pieces_by_name() -> None:
    qwen2 = ChatPieces.of(tokenizer_of(*FAMILIES["qwen2"]))
    assert qwen2.no_system == "<|im_start|>system\nYou are kind.<|im_end|>\n"
    assert qwen2.system == ("<|im_start|>system\n", "<|im_end|>\n")
    r1 = ChatPieces.of(tokenizer_of(*FAMILIES["r1"]))
    assert r1 == ChatPieces(
        no_system="<｜begin▁of▁sentence｜>",
        system=("<｜begin▁of▁sentence｜>", ""),
        user=("<｜User｜>", ""),
        assistant=("<｜Assistant｜>", "<｜end▁of▁sentence｜>"),
        opening="<｜Assistant｜><think>\n",
    )
    bare = r1.without("<｜begin▁of▁sentence｜>")
    assert (bare.no_system, bare.system) == ("", ("", "")) and bare.user == r1.user
    assert r1.without(None) == r1.without("") == r1


@pytest.mark.parametrize(
    ("chat_template", "says"),
    [
        (None, "no chat template"),
        (
            LLAMA2,
            "system message into the question",
        ),
        (GEMMA, "refuses a conversation of system, user: System role not supported"),
        ("{% for m in messages %}{{ loop.index }}:{{ m['content'] }};{% endfor %}", "otherwise"),
        ("{{ messages[0]['content'] }}", "drops or changes a message"),
        ("{% for m in messages %}{{ m['role'] + m['content'] | lower }}{% endfor %}", "drops or changes a message"),
    ],
)
def test_a_chat_template_that_is_no_row_of_pieces_is_refused(chat_template, says) -> None:
    with pytest.raises(TemplateError, match=says):
        ChatPieces.of(tokenizer_of(chat_template, None, "</s>", []))


def test_stops_are_all_end_tokens_and_the_one_that_begins_a_question() -> None:
    tokenizer = tokenizer_of(*FAMILIES["r1"])
    pieces = ChatPieces.of(tokenizer)
    other = tokenizer.convert_tokens_to_ids("<｜Assistant｜>")
    generation = SimpleNamespace(eos_token_id=[tokenizer.eos_token_id, other])
    wanted = ["<｜end▁of▁sentence｜>", "<｜Assistant｜>", "<｜User｜>"]
    assert ollama.stop_tokens(tokenizer, generation, pieces) == wanted
    assert ollama.stop_tokens(tokenizer, None, pieces) == [wanted[0], wanted[2]]
    plain = dataclasses.replace(pieces, user=("Q: ", "\n"))
    assert ollama.stop_tokens(tokenizer, SimpleNamespace(eos_token_id=tokenizer.eos_token_id), plain) == [wanted[0]]


def test_a_modelfile_gives_back_its_template_and_stops(tmp_path) -> None:
    pieces = ChatPieces.of(tokenizer_of(*FAMILIES["qwen2"]))
    path = tmp_path / "Modelfile"
    stops = ["<|im_end|>", "<|im_start|>"]
    path.write_text(ollama.modelfile("model.Q8_0.gguf", pieces, stops, {"temperature": 0.6}), encoding="utf-8")
    assert ollama.read_modelfile(path) == (ollama.template(pieces), stops)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "FROM ./model.Q8_0.gguf" and lines[-1] == "PARAMETER temperature 0.6"


def test_a_modelfile_refuses_what_it_cannot_hold(tmp_path) -> None:
    pieces = ChatPieces("", ("", ""), ("{{", ""), ("", ""), "")
    for bad in (pieces, dataclasses.replace(pieces, user=('"""', ""))):
        with pytest.raises(TemplateError, match="cannot hold"):
            ollama.template(bad)
    with pytest.raises(TemplateError, match="cannot hold the stop"):
        ollama.modelfile("a.gguf", dataclasses.replace(pieces, user=("", "")), ['"'], {})
    (tmp_path / "Modelfile").write_text("FROM ./a.gguf\n", encoding="utf-8")
    with pytest.raises(TemplateError, match="no TEMPLATE"):
        ollama.read_modelfile(tmp_path / "Modelfile")


def test_render_joins_as_ollama_does() -> None:
    go = ollama.template(ChatPieces.of(tokenizer_of(*FAMILIES["qwen2"])))
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert "<|im_start|>user\na\n\nb<|im_end|>\n<|im_start|>assistant\n" in ollama.render(go, said)


@pytest.mark.parametrize(
    "go", ["{{ .Prompt }}", "{{ if .System }}", "{{ end }}", "{{- .System }}", "{{ upper .System }}", "{{ eq 1 }"]
)
def test_render_refuses_other_templates(go) -> None:
    with pytest.raises(TemplateError):
        ollama.render(go, [{"role": "user", "content": "a"}])


def test_sampling_is_the_makers() -> None:
    generation = SimpleNamespace(temperature=0.6, top_p=0.95, top_k=None)
    assert ollama.sampling(generation) == {"temperature": 0.6, "top_p": 0.95}
    assert ollama.sampling(SimpleNamespace(temperature=None, top_p=None, top_k=50)) == {}
    assert ollama.sampling(None) == {}
