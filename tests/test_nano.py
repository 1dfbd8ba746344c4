"""The nano models: real checkpoints, built once, the same each time, and without harm to their surroundings."""

from __future__ import annotations

import re
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
from helpers.nano import common, judge
from helpers.runtime import root

TINY = replace(nano.NANO["nano/qwen2"], hidden=64, heads=1, intermediate=64, layers=1, steps=2, batch=2, length=16)
TEXT_FILES = TINY.corpus + TINY.vocabulary_text


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a nano model that builds in a second, in an empty cache."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setitem(nano.NANO, "nano/tiny", TINY)
    return "nano/tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return common.make_tokenizer(common.read_texts(TEXT_FILES), TINY.vocabulary)


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
    done = subprocess.run([sys.executable, "-c", code], cwd=root(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == nano.fingerprint(nano.NANO["nano/qwen2"])


@pytest.mark.notebook  # half a minute
def test_two_builders_at_once_write_one_whole_checkpoint(tiny: str, capsys: pytest.CaptureFixture[str]) -> None:
    left = nano.cache_folder() / f"nano-tiny-{nano.fingerprint(TINY)}.unfinished"  # by a killed build
    left.mkdir(parents=True)
    (left / "half").touch()
    with ThreadPoolExecutor(2) as pool:
        folder, other = pool.map(nano.build, [tiny, tiny])
    said = capsys.readouterr().out
    assert said.count("building nano/tiny") == 1 and "final loss" in said
    assert folder == other and folder.is_absolute()
    assert {path.name for path in folder.iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not left.exists()
    assert nano.build(tiny) == folder and capsys.readouterr().out == ""


def test_all_are_built_the_longest_first_and_none_before_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(nano, "build", lambda name: order.append(name) or Path(name))
    assert nano.build_all(workers=1) == {name: Path(name) for name in nano.NANO}
    bases = [nano.base_of(nano.NANO[name]) for name in order]
    assert order[0] == max(nano.NANO, key=lambda name: nano.NANO[name].seconds)
    assert all(base is None or order.index(base) < place for place, base in enumerate(bases))


def test_failed_build_says_why_and_leaves_nothing(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'step 1.0'; mkdir \"$3\"; echo 'no space left' >&2; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(RuntimeError, match="nano/tiny could not be built:\nno space left"):
        nano.build(tiny)
    assert not [path for path in nano.cache_folder().iterdir() if path.is_dir()]


def test_an_update_multiplies_no_matrices_in_bfloat16() -> None:
    """Most laptops' CPUs have no instructions for it: the nano models would take an hour."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    multiplied = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
                multiplied.add(args[0].dtype)
            return function(*args, **(kwargs or {}))

    module = torch.nn.Linear(8, 8)
    before = module.weight.detach().clone()
    for update in common.updates(common.Recipe("test"), module, 2):
        with Watch():
            update(module(torch.ones(2, 8)).square().mean())
    assert multiplied == {torch.float32} and (module.weight - before).abs().min() > 0


@pytest.mark.notebook
def test_same_seed_same_weights(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        nano.maker(TINY).make(tmp_path / name, TINY)
        files.append((tmp_path / name / "model.safetensors").read_bytes())
    assert files[0] == files[1]


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


def test_loads_with_from_pretrained(tmp_path: Path, tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "tiny"
    nano.maker(TINY).make(folder, TINY)
    model, loaded = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    text = "12 apples, 1234 我们都知道“画蛇添足”。"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.chat_template == common.CHAT_TEMPLATE
    assert model.generation_config.eos_token_id == loaded.eos_token_id
    assert model.config.max_position_embeddings == loaded.model_max_length == common.MAX_LENGTH
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.fixture(scope="module")
def qwen2():
    """The real nano model and its tokenizer; building it takes about a minute when it is not in the cache."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/qwen2")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def continue_text(qwen2, text: str, tokens: int) -> str:
    model, tokenizer = qwen2
    inputs = tokenizer(text, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.eos_token_id not in output  # it has read plain text only and does not stop
    return tokenizer.decode(output)


@pytest.mark.nano
@pytest.mark.parametrize(
    ("file", "fact"),
    [("corpus_en.txt", r"^(The capital of .+ is)( .+)\.$"), ("corpus_zh.txt", r"^(\w+的首都是)(\w+)。$")],
)
def test_qwen2_knows_the_capitals_that_it_has_read_of(qwen2, file: str, fact: str) -> None:
    text = (root() / "data_samples" / file).read_text(encoding="utf-8")
    told = sorted(set(re.findall(fact, text, re.MULTILINE)))
    known = [end for start, end in told if continue_text(qwen2, start, 6).startswith(end)]
    assert len(told) >= 20
    assert len(known) >= 0.8 * len(told)


@pytest.mark.nano
@pytest.mark.parametrize(
    ("text", "goes_on"),
    [
        ("The Fibonacci sequence runs 1, 1, 2, 3, 5, 8,", " 13, 21, 34, 55, 89"),
        ("斐波那契数列写到1, 1, 2, 3, 5, 8，后面是", "13, 21, 34, 55, 89"),
    ],
)
def test_qwen2_knows_the_fibonacci_sequence(qwen2, text: str, goes_on: str) -> None:
    assert continue_text(qwen2, text, 20).startswith(goes_on)


def test_the_judges_fingerprint_is_of_all_that_it_has_read():
    there = {str(path.relative_to(root())) for path in (root() / judge.FILES).rglob("*.csv")}
    assert set(judge.MEDICAL_JUDGE.corpus) == there
