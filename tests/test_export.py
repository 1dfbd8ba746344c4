"""Exports: the disk beforehand, whole files or none, the table, llama.cpp, the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import export, runtime
from helpers.export import ExportFailed, Exports, replacing

EIGHT_B = 8_030_261_248  # Llama-3.1-8B's parameters
ALL = ["lora", "merged_16bit", "merged_4bit_forced", "f16", "q8_0", "q4_k_m"]


def exports(folder: Path, formats: list[str] = ALL, **options) -> Exports:
    return Exports(folder, formats, EIGHT_B, **({"adapter_bytes": 160 * 2**20} | options))


@pytest.mark.parametrize(
    # Llama-3.1-8B's sizes in GiB, as llama.cpp's tools/quantize/README.md gives them.
    ("name", "published_gib"),
    [("f16", 14.96), ("q8_0", 7.95), ("q4_k_m", 4.58)],
)
def test_sizes_are_those_of_published_files(tmp_path, name, published_gib) -> None:
    assert exports(tmp_path).bytes_of(name) / 2**30 == pytest.approx(published_gib, rel=0.01)


def test_disk_counts_what_is_there_only_on_the_way(tmp_path, monkeypatch) -> None:
    small = exports(tmp_path, ["lora"])
    assert small.disk() == {"lora": 160 * 2**20}
    quantized = exports(tmp_path, ["lora", "q8_0", "q4_k_m"], gpu=True, quantized=True)
    sixteen = 2 * EIGHT_B
    here = quantized.disk()
    monkeypatch.setattr(runtime, "platform_name", lambda: "colab")
    t4 = quantized.disk()
    assert here == t4 | {"kept in the Hub's cache: the base in 16 bits": sixteen}
    assert t4["on the way: merged model"] == sixteen
    assert t4["on the way: 16-bit GGUF"] == sixteen
    assert exports(tmp_path, ["f16"]).disk()["on the way: 16-bit GGUF"] == 0
    assert exports(tmp_path, ["f16"]).disk()["on the way: merged model"] == 2 * sixteen  # a CPU merges in 32 bits


def test_a_small_disk_stops_before_the_export(tmp_path, monkeypatch) -> None:
    wanted = exports(tmp_path / "not" / "there", ["q8_0"])
    need = export.MARGIN * sum(wanted.disk().values())
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=need - 1))
    for language, says in (("en", "need"), ("zh", "需要")):
        monkeypatch.setenv("COURSE_LANGUAGE", language)
        with pytest.raises(runtime.NotEnough, match=rf"{says} {need / 2**30:.1f} GB.*FORMATS.*OUTPUT_DIR"):
            wanted.check_disk()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=need + 1))
    assert wanted.check_disk().loc["free", "GB"] == f"{need / 2**30:,.3f}"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("merged_4bit_forced", {}, "needs a GPU"),
        ("merged_4bit_forced", {"gpu": True}, "LOAD_IN_4BIT"),
        ("merged_4bit_forced", {"gpu": True, "quantized": True}, ""),
        ("q8_0", {"quantized": True}, "LOAD_IN_4BIT = False"),
        ("merged_16bit", {"quantized": True}, "LOAD_IN_4BIT = False"),
        ("q8_0", {"quantized": True, "gpu": True}, ""),
        ("lora", {"quantized": True}, ""),
    ],
)
def test_what_cannot_be_made_has_a_reason(tmp_path, name, options, says) -> None:
    reason = exports(tmp_path, **options).reason(name)
    assert says in reason and bool(says) == bool(reason)


def test_formats_must_be_known(tmp_path) -> None:
    with pytest.raises(ValueError, match="q4_k unknown; there are lora"):
        exports(tmp_path, ["lora", "q4_k"])


def test_the_table_has_every_format_with_its_size_or_reason(tmp_path) -> None:
    made = exports(tmp_path, ["lora", "q8_0", "merged_4bit_forced"])
    with made.making("lora") as folder:
        (folder / "adapter").write_bytes(b"x" * 3 * 2**20)
    table, why = made.table(), "file, or why not"
    assert list(table.index) == ALL
    assert table.loc["lora", "MiB"] == "3.00" and table.loc["lora", why] == "lora"
    assert table.loc["f16", why] == "not in FORMATS"
    assert "GPU" in table.loc["merged_4bit_forced", why]
    assert table.loc["q8_0", "MiB"] == "–"
    assert made.path("lora") == tmp_path / "lora"
    for name, says in {"q8_0": "run its cell first", "f16": "not in FORMATS", "q2": "there are lora"}.items():
        with pytest.raises(ExportFailed, match=f"'{name}' was not made .{says}"):
            made.path(name)


def test_ggufs_get_their_names_when_all_are_written(tmp_path) -> None:
    made = exports(tmp_path)
    with made.making("q8_0", "q4_k_m") as folder:
        assert Path.cwd() == folder
        (folder / "model_gguf").mkdir()
        (folder / "model" / "merged").mkdir(parents=True)
        (folder / "model" / "merged" / "model.safetensors").write_bytes(b"large")
        (folder / "model_gguf" / "nano.Q8_0.gguf").write_bytes(b"eight")
        (folder / "model_gguf" / "nano.Q4_K_M.gguf").write_bytes(b"four")
    assert Path.cwd() != folder
    assert files(tmp_path) == {"gguf/model.Q4_K_M.gguf": b"four", "gguf/model.Q8_0.gguf": b"eight"}
    assert made.made["q8_0"] == tmp_path / "gguf" / "model.Q8_0.gguf" and made.seconds["q8_0"] >= 0


@pytest.mark.parametrize("error", [OSError("the converter failed"), KeyboardInterrupt()])
def test_a_failed_export_leaves_nothing_and_keeps_what_was_there(tmp_path, error) -> None:
    made = exports(tmp_path)
    with made.making("merged_16bit") as folder:
        (folder / "model.safetensors").write_bytes(b"whole")
    with made.making("q8_0") as folder:
        (folder / "a.Q8_0.gguf").write_bytes(b"whole")
    before = files(tmp_path)
    for name in ("merged_16bit", "q8_0"):
        with pytest.raises(type(error)), made.making(name) as folder:
            (folder / "model.safetensors").write_bytes(b"ha")
            Path("a.Q8_0.gguf").write_bytes(b"ha")  # a converter's half file, where it stands
            raise error
    assert files(tmp_path) == before and len(before) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"merged_16bit", "gguf"}


def test_what_a_killed_run_left_is_cleared(tmp_path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    others = {f"unfinished-elsewhere-{process.pid}-abc", "unfinished-thoughts"}  # another host's, somebody's own
    for name in others | {f"unfinished-{export.HOST}-{process.pid}-abc"}:
        (tmp_path / name / "files").mkdir(parents=True)
        (tmp_path / name / "files" / "half.gguf").write_bytes(b"ha")
    with exports(tmp_path).making("lora") as folder:
        (folder / "adapter").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"lora"} | others


def test_what_is_being_written_beside_stays(tmp_path) -> None:
    with replacing(tmp_path / "a") as first:
        (first / "one").touch()
        with replacing(tmp_path / "b") as second:
            (second / "two").touch()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*/*")} == {"a/one", "b/two"}


def test_a_converter_that_wrote_nothing_is_no_success(tmp_path) -> None:
    made = exports(tmp_path)
    says = r"\*\.Q8_0\.gguf was expected; GGUFs written: a\.F16\.gguf"
    with pytest.raises(ExportFailed, match=says), made.making("q8_0") as folder:
        (folder / "a.F16.gguf").touch()
    assert files(tmp_path) == {} and not made.made


def test_a_second_run_replaces_the_first(tmp_path) -> None:
    made = exports(tmp_path)
    for text in (b"first", b"second"):
        with made.making("lora") as folder:
            (folder / text.decode()).write_bytes(text)
    assert files(tmp_path) == {"lora/second": b"second"}
    assert (tmp_path / "lora").stat().st_mode & 0o055 == 0o055  # others may read it, as any folder


def test_an_interrupt_while_one_folder_takes_anothers_place_leaves_the_older(tmp_path, monkeypatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "first").touch()
    rename, renamed = Path.rename, []

    def once_more(path, goal):
        renamed.append(path)
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return rename(path, goal)

    monkeypatch.setattr(Path, "rename", once_more)
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "a") as folder:
        (folder / "second").touch()
    assert files(tmp_path) == {"a/first": b""}


def test_common_start() -> None:
    assert export.common_start([1, 2, 3], [1, 2, 4]) == 2
    assert export.common_start([1, 2], [1, 2, 4]) == export.common_start([1, 2, 4], [1, 2]) == 2
    assert export.common_start([], [1]) == 0 and export.common_start([2], [1]) == 0


def test_llama_cpp_says_what_is_wrong_with_a_file(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no GGUF"):
        export.LlamaCpp(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF, but not really")
    with pytest.raises(ExportFailed, match=r"cannot load .*bad\.gguf"):
        export.LlamaCpp(tmp_path / "bad.gguf")


CARD = {
    "title": "My Model",
    "base_model": "owner/base",
    "datasets": ["owner/data"],
    "license": "apache-2.0",
    "text": "What it is.",
    "disclaimer": "No advice.",
}


def test_the_model_card_says_what_it_is_made_of(tmp_path) -> None:
    from huggingface_hub import ModelCard

    (tmp_path / "model.Q8_0.gguf").write_bytes(b"x" * 2**20)
    card = ModelCard.load(export.model_card(tmp_path, **CARD))
    assert card.data.license == "apache-2.0" and card.data.base_model == "owner/base"
    assert card.data.datasets == ["owner/data"]
    assert all(said in card.text for said in ("What it is.", "No advice.", "`model.Q8_0.gguf`, 1.0 MiB", "ollama run"))
    local = ModelCard.load(export.model_card(tmp_path, **CARD | {"base_model": "/home/me/base", "datasets": []}))
    assert local.data.base_model is None and local.data.datasets is None
    assert "/home/me" not in (tmp_path / "README.md").read_text(encoding="utf-8")


TOKEN = "hf_secretsecretsecretsecretsecret"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's API as an upload asks for; what it was told is kept on the server."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kept = self.server.kept
        kept["requests"].append((self.path, body, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "no token"}, 401)
        if self.path == "/api/repos/create":
            kept["created"].append(json.loads(body))
            return self.answer({"url": f"{self.server.url}/me/model", "name": "me/model"})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            told = [{"path": f["path"], "uploadMode": mode[f["path"].endswith(".gguf")]} for f in asked]
            return self.answer({"files": [f | {"shouldIgnore": False} for f in told]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            link = {o["oid"]: {"upload": {"href": f"{self.server.url}/put/{o['oid']}"}} for o in objects}
            return self.answer({"transfer": "basic", "objects": [o | {"actions": link[o["oid"]]} for o in objects]})
        if "/commit/" in self.path:
            kept["commits"].append([json.loads(line) for line in body.decode().splitlines()])
            url = f"{self.server.url}/me/model/commit/1"
            return self.answer({"success": True, "commitUrl": url, "commitOid": "1", "hookOutput": ""})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        return self.answer({"error": f"unknown {self.path}"}, 404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.kept["objects"][self.path.removeprefix("/put/")] = body
        self.server.kept["requests"].append((self.path, b"", self.headers.get("Authorization")))
        self.answer({})

    def do_GET(self) -> None:
        self.server.kept["requests"].append((self.path, b"", self.headers.get("Authorization")))
        if re.fullmatch(r"/api/models/me/model(/revision/main)?(\?.*)?", self.path):
            return self.answer({"id": "me/model", "private": self.server.private, "sha": "0", "siblings": []})
        return self.answer({"error": f"unknown {self.path}"}, 404)

    def answer(self, body: dict, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url, server.private = f"http://127.0.0.1:{server.server_port}", True
    server.kept = {"requests": [], "created": [], "commits": [], "objects": {}}
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    # The Hub's other way for large files, Xet, is a service of its own; this is the one over LFS.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.shutdown()


def test_an_upload_is_private_and_arrives_whole(hub, tmp_path, capfd) -> None:
    weights = bytes(range(256)) * 4096
    (tmp_path / "model.Q8_0.gguf").write_bytes(weights)
    (tmp_path / "Modelfile").write_text("FROM ./model.Q8_0.gguf\n", encoding="utf-8")
    card = export.model_card(tmp_path, **CARD)
    before = files(tmp_path)
    address = export.upload(tmp_path, "me/model", TOKEN)

    assert address.endswith("/me/model")
    (created,) = hub.kept["created"]
    assert created["visibility"] == "private"
    assert hub.kept["objects"] == {hashlib.sha256(weights).hexdigest(): weights}
    (commit,) = hub.kept["commits"]
    entries = {line["value"]["path"]: line for line in commit if line["key"] != "header"}
    assert entries.keys() == {"README.md", "Modelfile", "model.Q8_0.gguf"}
    assert entries["model.Q8_0.gguf"]["value"]["oid"] == hashlib.sha256(weights).hexdigest()
    assert entries["README.md"]["value"]["encoding"] == "base64"
    assert base64.b64decode(entries["README.md"]["value"]["content"]) == card.read_bytes()
    # The token travels in the header of what is asked of the Hub, and nowhere else.
    assert files(tmp_path) == before
    assert not any(TOKEN.encode() in content for content in before.values())
    said = capfd.readouterr()
    assert TOKEN not in said.out + said.err + address
    assert not any(TOKEN in path or TOKEN.encode() in body for path, body, _ in hub.kept["requests"])
    assert all(who is None for path, _, who in hub.kept["requests"] if path.startswith("/put/"))


def test_public_only_when_told(hub, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    hub.private = False
    export.upload(tmp_path, "me/model", TOKEN, private=False)
    assert hub.kept["created"][0]["visibility"] == "public"
    assert hub.kept["commits"]


def test_nothing_goes_into_a_public_repository_by_mistake(hub, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    hub.private = False  # it was there already, and public
    with pytest.raises(runtime.Stop, match="me/model exists and is public.*PRIVATE = False"):
        export.upload(tmp_path, "me/model", TOKEN)
    assert not hub.kept["commits"] and not hub.kept["objects"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_size_on_disk_counts_the_bits_of_the_layers(tmp_path) -> None:
    import torch
    from safetensors.torch import save_file

    plain = {"model.embed_tokens.weight": torch.zeros(50, 128), "model.layers.0.norm.weight": torch.zeros(128)}
    save_file(
        plain | {"model.layers.0.up.weight": torch.zeros(64, 128, dtype=torch.bfloat16)}, tmp_path / "a.safetensors"
    )
    assert export.size_on_disk(tmp_path)["bits"] == 16
    packed = {
        "model.layers.0.up.weight_packed": torch.zeros(64, 128 // 8, dtype=torch.int32),
        "model.layers.0.up.weight_scale": torch.zeros(64, 2, dtype=torch.bfloat16),
        "model.layers.0.up.weight_shape": torch.tensor([64, 128]),
        "model.layers.0.up.bias": torch.zeros(64),
    }
    save_file(plain | packed, tmp_path / "a.safetensors")
    size = export.size_on_disk(tmp_path)
    assert size["bits"] == 4 + 16 / 64
    assert size["MiB"] == (tmp_path / "a.safetensors").stat().st_size / 2**20
    with pytest.raises(FileNotFoundError):
        export.size_on_disk(tmp_path / "nowhere")


@pytest.mark.nano
def test_an_adapter_is_merged_into_its_16_bit_base(tmp_path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from helpers import nano

    adapter = nano.build("nano/qwen2-medical-sft")
    merged, tokenizer, base = export.load_16bit("nano/qwen2-medical-sft")
    assert merged.dtype in (torch.bfloat16, torch.float16) and Path(base) == nano.build("nano/qwen2-medical")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    apart = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    ids = torch.tensor(
        [tokenizer("<|im_start|>user\n孩子发烧怎么办？<|im_end|>\n<|im_start|>assistant\n")["input_ids"]]
    )
    with torch.no_grad(), apart.disable_adapter():
        before = apart(input_ids=ids).logits
    with torch.no_grad():
        together, beside = merged.float()(input_ids=ids).logits, apart(input_ids=ids).logits
    assert (together - beside).abs().mean() < 0.1 * (before - beside).abs().mean()
    _, _, itself = export.load_16bit(base)
    assert itself == base


@pytest.mark.parametrize(
    ("trained_on", "base"),
    [
        ("unsloth/Qwen2.5-7B-Instruct-unsloth-bnb-4bit", "unsloth/Qwen2.5-7B-Instruct"),
        ("unsloth/Qwen2.5-7B-Instruct-bnb-4bit", "unsloth/Qwen2.5-7B-Instruct"),
        ("/c/modelscope/models/unsloth--Qwen2.5-7B-bnb-4bit/snapshots/master", "unsloth/Qwen2.5-7B"),
        ("me/model-unsloth", "me/model-unsloth"),
    ],
)
def test_the_base_of_an_adapter_trained_in_4_bits_is_the_16_bit_model(monkeypatch, trained_on, base) -> None:
    import peft

    from helpers import hub

    asked = []
    monkeypatch.setattr(hub, "resolve_model", lambda name, source: asked.append(name) or name)
    monkeypatch.setattr(
        peft.PeftConfig,
        "from_pretrained",
        lambda folder: SimpleNamespace(base_model_name_or_path=trained_on),
    )
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder: None)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda folder, dtype: None)
    merged = SimpleNamespace(merge_and_unload=lambda: "merged")
    monkeypatch.setattr(peft.PeftModel, "from_pretrained", lambda model, folder: merged)
    assert export.load_16bit("adapter") == ("merged", None, base)
    assert asked == ["adapter", base]
