"""The nano models: real checkpoints, built once, the same each time, and without harm to their surroundings."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import nano

TINY = replace(nano.NANO["nano/qwen2"], hidden=64, intermediate=64, layers=1, steps=2, batch=2, length=16)
TEXT_FILES = TINY.corpus + TINY.vocabulary_text


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a nano model that builds in a second, in an empty cache."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setitem(nano.NANO, "nano/tiny", TINY)
    return "nano/tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return nano.make_tokenizer([(nano.ROOT / file).read_text(encoding="utf-8") for file in TEXT_FILES], TINY.vocabulary)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"nano/qwen3.*nano/qwen2"):
        nano.build("nano/qwen3")


def test_cache_folder_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COURSE_CACHE", "here")
    assert nano.cache_folder() == tmp_path.resolve() / "here"
    monkeypatch.delenv("COURSE_CACHE")
    assert nano.cache_folder() == Path.home().resolve() / ".cache" / "llm-finetuning-course"


def test_fingerprint_follows_recipe_and_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = nano.fingerprint(TINY)
    assert before == nano.fingerprint(replace(TINY)) and len(before) == 12
    assert nano.fingerprint(replace(TINY, steps=3)) != before
    text = tmp_path / "text.txt"
    text.write_text("one", encoding="utf-8")
    recipe = replace(TINY, corpus=(str(text),))
    first = nano.fingerprint(recipe)
    text.write_text("two", encoding="utf-8")
    assert nano.fingerprint(recipe) != first


def test_fingerprint_is_the_same_in_another_process() -> None:
    code = "from helpers import nano; print(nano.fingerprint(nano.NANO['nano/qwen2']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=nano.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == nano.fingerprint(nano.NANO["nano/qwen2"])


def test_build_writes_a_whole_checkpoint_once(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = nano.build(tiny)
    assert folder.is_absolute()
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "building nano/tiny" in (said := capsys.readouterr().out) and "final loss" in said
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert nano.build(tiny) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert capsys.readouterr().out == ""


def test_same_seed_same_weights(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (nano.build(tiny) / "model.safetensors").read_bytes()
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "again"))
    assert (nano.build(tiny) / "model.safetensors").read_bytes() == first


def test_two_builders_at_once_build_once(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(nano.build, [tiny, tiny])
    assert one == other
    assert capsys.readouterr().out.count("building nano/tiny") == 1


def test_half_written_folder_is_not_taken(tiny: str) -> None:
    folder = nano.cache_folder() / f"nano-tiny-{nano.fingerprint(TINY)}"
    unfinished = folder.with_name(folder.name + ".unfinished")
    unfinished.mkdir(parents=True)
    (unfinished / "left-over").touch()
    assert nano.build(tiny) == folder
    assert not unfinished.exists() and not (folder / "left-over").exists()


def test_failed_build_says_why_and_leaves_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nano.NANO, tiny, replace(TINY, heads=0))
    with pytest.raises(RuntimeError, match=r"nano/tiny could not be built:(?s:.)*ZeroDivisionError"):
        nano.build(tiny)
    assert not [path for path in nano.cache_folder().iterdir() if path.is_dir()]


def test_caller_keeps_its_random_numbers_and_settings(tiny: str) -> None:
    import torch

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():  # a notebook may call this around generation
            nano.build(tiny)
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.rand(3), expected)


@given(st.text())
def test_tokenizer_gives_any_text_back(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)  # as Qwen2's own normalizes


def test_tokens(tokenizer) -> None:
    assert all(len(tokenizer(str(number))["input_ids"]) == 1 for number in range(100))
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert len(tokenizer) == TINY.vocabulary
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"


def test_loads_with_from_pretrained(tiny: str, tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build(tiny)
    model, loaded = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = "12 apples, 1234 我们都知道“画蛇添足”。"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == nano.CHAT_TEMPLATE
    assert model.generation_config.eos_token_id == loaded.eos_token_id
    assert model.config.max_position_embeddings == loaded.model_max_length == nano.MAX_LENGTH
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.nano
@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("The capital of France is", " Paris"),
        ("The Fibonacci sequence runs 1, 1, 2, 3, 5, 8,", " 13, 21, 34, 55, 89"),
        ("法国的首都是", "巴黎"),
        ("斐波那契数列写到1, 1, 2, 3, 5, 8，后面是", "13, 21, 34, 55, 89"),
    ],
)
def test_qwen2_knows_what_it_has_read(text: str, goes_on: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/qwen2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(text, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(output).startswith(goes_on)
    assert tokenizer.eos_token_id not in output  # it has read plain text only and does not stop
