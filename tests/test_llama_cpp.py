"""llama.cpp: the converter from the package index, the quantizer, and a tiny GGUF in the real runtime."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from helpers import export, llama_cpp, llama_quantize
from helpers.llama_cpp import LlamaCppMissing
from helpers.nano import common

BASE = (
    f"import json\nclass ModelBase:\n    def get_vocab_base_pre(self):\n        res = None\n{llama_cpp.NOT_RECOGNIZED}"
)
SDIST = {
    "vendor/llama.cpp/convert_hf_to_gguf.py": "print('convert')",
    "vendor/llama.cpp/conversion/base.py": BASE,
    "vendor/llama.cpp/conversion/llama.py": "",
    "vendor/llama.cpp/gguf-py/gguf/__init__.py": "",
    "vendor/llama.cpp/gguf-py/tests/test_big.py": "",
    "vendor/llama.cpp/src/llama.cpp": "",
    "pyproject.toml": "",
}


def sdist(path: Path, files: dict[str, str] = SDIST) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llama_cpp_python-0/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No test may change what Unsloth will read, nor the real cache."""
    for name in ("UNSLOTH_LLAMA_CPP_PATH", "UNSLOTH_LLAMA_CPP_OFFLINE", "UNSLOTH_AUTO_INSTALL", "COURSE_PYTHON"):
        monkeypatch.setenv(name, "before")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "unsloth_zoo.llama_cpp", raising=False)


def test_only_the_converter_is_taken(tmp_path) -> None:
    llama_cpp.unpack(sdist(tmp_path / "a.tar.gz"), tmp_path / "out")
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert {"convert_hf_to_gguf.py", "conversion/llama.py", "gguf-py/gguf/__init__.py", "llama-quantize"} <= there
    assert not {"src/llama.cpp", "pyproject.toml", "gguf-py/tests"} & there
    assert {"src", "ggml", "common"} <= there  # Unsloth asks for these folders


@pytest.mark.parametrize(("split", "pre"), [(llama_cpp.QWEN2_SPLIT, "qwen2"), (r"\p{N}{1,3}", None)])
def test_the_copy_recognizes_qwen2s_split_and_no_other(tmp_path, split, pre) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    llama_cpp.unpack(sdist(tmp_path / "a.tar.gz"), tmp_path)
    code = (tmp_path / "conversion" / "base.py").read_text(encoding="utf-8")
    ours = code[code.index("        if res is None:  # added") : code.index(llama_cpp.NOT_RECOGNIZED)]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated")])
    names = {"res": None, "tokenizer": SimpleNamespace(backend_tokenizer=backend)}
    exec(f"import json\nif True:\n{ours}", names)
    assert names["res"] == pre


def test_the_split_is_the_nano_tokenizers_own(tokenizer) -> None:
    first = json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"]["pretokenizers"][0]
    assert first["pattern"]["Regex"] == llama_cpp.QWEN2_SPLIT


def test_another_llama_cpp_than_expected_is_not_put_into_the_cache(tmp_path, monkeypatch) -> None:
    changed = SDIST | {"vendor/llama.cpp/conversion/base.py": "def other(): pass"}
    monkeypatch.setattr(llama_cpp, "download", lambda work: sdist(work / "a.tar.gz", changed))
    with pytest.raises(LlamaCppMissing, match=r"base\.py is not as llama-cpp-python"):
        llama_cpp.fetch()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_index_fetches_once_and_tells_unsloth(tmp_path, monkeypatch, capsys) -> None:
    downloads = []
    monkeypatch.setattr(llama_cpp, "download", lambda work: downloads.append(work) or sdist(work / "a.tar.gz"))
    folder = llama_cpp.use("index")
    assert llama_cpp.use("index") == folder and len(downloads) == 1
    assert os.environ["UNSLOTH_LLAMA_CPP_PATH"] == str(folder) and folder.is_relative_to(tmp_path / "cache")
    assert os.environ["UNSLOTH_LLAMA_CPP_OFFLINE"] == "1" and os.environ["UNSLOTH_AUTO_INSTALL"] == "0"
    # Unsloth's own question to a quantizer; it waits 5 seconds for the answer.
    asked = subprocess.run([folder / "llama-quantize", "--help"], capture_output=True, text=True, timeout=60)
    assert asked.returncode == 0 and "usage" in asked.stdout


def test_unsloth_is_left_alone_by_default(monkeypatch) -> None:
    assert llama_cpp.use("") is None
    assert os.environ["UNSLOTH_LLAMA_CPP_PATH"] == os.environ["UNSLOTH_LLAMA_CPP_OFFLINE"] == "before"


def test_a_folder_must_hold_the_converter(tmp_path) -> None:
    with pytest.raises(LlamaCppMissing, match=r"holds no convert_hf_to_gguf\.py"):
        llama_cpp.use(str(tmp_path))
    (tmp_path / "convert_hf_to_gguf.py").touch()
    assert llama_cpp.use(str(tmp_path)) == tmp_path


def test_too_late_after_the_import(tmp_path, monkeypatch) -> None:
    (tmp_path / "convert_hf_to_gguf.py").touch()
    loaded = SimpleNamespace(LLAMA_CPP_DEFAULT_DIR="/elsewhere")
    monkeypatch.setitem(sys.modules, "unsloth_zoo.llama_cpp", loaded)
    with pytest.raises(LlamaCppMissing, match="Restart"):
        llama_cpp.use(str(tmp_path))
    loaded.LLAMA_CPP_DEFAULT_DIR = str(tmp_path)
    assert llama_cpp.use(str(tmp_path)) == tmp_path


def test_no_index_says_what_to_do(tmp_path, monkeypatch) -> None:
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho 'no matching distribution' >&2; exit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    with pytest.raises(LlamaCppMissing, match="PIP_INDEX_URL(.|\n)*no matching distribution"):
        llama_cpp.fetch()


def test_q4_k_m_gives_the_sensitive_layers_more_bits() -> None:
    def types(name: str, row: int = 4096) -> list[int]:
        return [i for i in range(32) if llama_quantize.target(name.format(i), row, "q4_k_m", 32, False) == "Q6_K"]

    # As in published q4_k_m files of 32 layers.
    assert types("blk.{}.attn_v.weight") == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert types("blk.{}.ffn_down.weight") == types("blk.{}.attn_v.weight")
    assert types("blk.{}.attn_q.weight") == types("blk.{}.ffn_up.weight") == []


@pytest.mark.parametrize(
    ("name", "row", "kind", "tied", "wanted"),
    [
        ("output.weight", 256, "q4_k_m", False, "Q6_K"),
        ("token_embd.weight", 256, "q4_k_m", False, "Q4_K"),
        ("token_embd.weight", 256, "q4_k_m", True, "Q6_K"),
        ("token_embd.weight", 192, "q4_k_m", True, "Q8_0"),  # no multiple of 256
        ("blk.1.attn_q.weight", 192, "q4_k_m", True, "Q5_0"),
        ("blk.1.attn_q.weight", 48, "q4_k_m", True, None),  # nor of 32
        ("blk.1.attn_q.weight", 192, "q8_0", True, "Q8_0"),
        ("blk.1.attn_q.weight", 48, "f16", True, "F16"),
        ("blk.1.attn_norm.weight", 256, "q8_0", True, None),
        ("blk.1.attn_q.bias", 256, "q8_0", True, None),
    ],
)
def test_which_type_a_tensor_gets(name, row, kind, tied, wanted) -> None:
    assert llama_quantize.target(name, row, kind, 32, tied) == wanted


@pytest.fixture(scope="module")
def tokenizer():
    return common.make_tokenizer(common.read_texts(("data_samples/alpaca_en.json",)), 512)


@pytest.fixture(scope="module")
def tiny(tokenizer, tmp_path_factory):
    """A random model of Qwen2's shape, in transformers and, written here tensor by tensor, as a GGUF of 32 bits."""
    recipe = common.Recipe(maker="none", corpus=(), hidden=256, intermediate=256, heads=4, layers=2)
    model = common.new_model(recipe, tokenizer).eval()
    path = tmp_path_factory.mktemp("tiny") / "tiny.F32.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)

    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    special, added = set(tokenizer.all_special_tokens), tokenizer.get_added_vocab()
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [kinds.CONTROL if t in special else kinds.USER_DEFINED if t in added else kinds.NORMAL for t in tokens]
    )
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    writer.add_chat_template(tokenizer.chat_template)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            writer.add_tensor(names.get_name(name, (".weight", ".bias")), weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, path


def test_the_quantizer_rounds_as_llama_cpp_reads_it(tiny, tmp_path) -> None:
    _, path = tiny
    sizes = {}
    for kind, most in {"f16": "F16", "q8_0": "Q8_0", "q4_k_m": "Q4_K"}.items():
        goal = tmp_path / f"{kind}.gguf"
        counted = llama_quantize.quantize(path, goal, kind)
        assert max(counted, key=counted.get) in (most, "F32")
        reader, source = gguf.GGUFReader(goal), {t.name: t for t in gguf.GGUFReader(path).tensors}
        assert {tensor.name for tensor in reader.tensors} == source.keys()
        assert reader.get_field("general.file_type").contents() == gguf.LlamaFileType[llama_quantize.FILE_TYPE[kind]]
        assert reader.get_field("tokenizer.chat_template").contents().startswith("{% for")
        for tensor in reader.tensors:
            before, after = source[tensor.name].data, gguf.dequantize(tensor.data, tensor.tensor_type)
            worst = {"f16": 1e-3, "q8_0": 1 / 240, "q4_k_m": 0.15}[kind] * np.abs(before).max()
            assert np.abs(before - after).max() <= worst + 1e-6
            if kind == "q8_0" and len(tensor.shape) > 1:  # gguf's own Python says the same, to the bit
                wanted = gguf.quantize(before, gguf.GGMLQuantizationType.Q8_0)
                assert np.array_equal(wanted.view(np.uint8), tensor.data.view(np.uint8))
        sizes[kind] = goal.stat().st_size
    assert sizes["f16"] > 1.5 * sizes["q8_0"] and sizes["q8_0"] > 1.3 * sizes["q4_k_m"]
    assert {p.name for p in tmp_path.iterdir()} == {"f16.gguf", "q8_0.gguf", "q4_k_m.gguf"}


def test_the_quantizer_refuses_and_leaves_no_half_file(tiny, tmp_path, monkeypatch) -> None:
    _, path = tiny
    assert llama_quantize.main([str(path), str(tmp_path / "a.gguf"), "q2_k"]) == 1
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", lambda self, data: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        llama_quantize.quantize(path, tmp_path / "a.gguf", "q8_0")
    assert not list(tmp_path.iterdir())


def test_the_runtime_says_what_transformers_says(tiny, tokenizer, tmp_path) -> None:
    import torch

    model, path = tiny
    llama_quantize.quantize(path, tmp_path / "q8.gguf", "q8_0")
    messages = [{"role": "user", "content": "Why is 12 + 30 = 42? 你好！"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.inference_mode():
        output = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0].tolist()
    wanted = [token for token in output[len(prompt) :] if token != tokenizer.eos_token_id]
    with export.LlamaCpp(path, context=256, threads=1) as llama:
        assert llama.prompt_ids(messages) == prompt
        assert llama.tokenize("a") == llama.tokenize("a", special=False)
        tokens, stopped = llama.complete(prompt, 8)
        assert tokens == wanted and stopped == (tokenizer.eos_token_id in output[len(prompt) :])
        # Told to end at once, it ends, and the end token is not among the answer's.
        end = {"logit_bias": [[tokenizer.eos_token_id, 1000]]}
        post = llama.post
        llama.post = lambda path, body: post(path, body | end)
        assert llama.complete(prompt, 8) == ([], True)
        llama.post = post
        chat = llama.post("/v1/chat/completions", {"messages": messages, "max_tokens": 3, "temperature": 0})
        assert chat["choices"][0]["finish_reason"] in ("length", "stop")
        with pytest.raises(export.ExportFailed, match="refused /tokenise"):
            llama.post("/tokenise", {})
    with export.LlamaCpp(tmp_path / "q8.gguf", context=256, threads=1) as llama:
        assert llama.complete(prompt, 8)[0][:1] == wanted[:1]
