"""Getting a trained model out: what it needs on disk, files that are whole or not there, llama.cpp, the Hub."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import psutil

from helpers import hub, runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MIB = 2**20
# Bits a weight in the file. GGUF's are those of an 8B Llama: q4_k_m mixes blocks of 4.5 and 6.5625 bits.
BITS = {"lora": 0.0, "merged_16bit": 16.0, "merged_4bit_forced": 5.7, "f16": 16.0, "q8_0": 8.5, "q4_k_m": 4.9}
GGUF = ("f16", "q8_0", "q4_k_m")
HOST = re.sub(r"\W", "", platform.node())
MARGIN = 1.05  # tokenizer, metadata, and what the file system takes
WORDS: runtime.Words = {
    "en": {
        "disk": "the exports need {need:.1f} GB and {folder} has {free:.1f} GB free. Take formats out of FORMATS, or "
        "set OUTPUT_DIR to a larger disk (on Kaggle: a folder in /tmp).",
    },
    "zh": {
        "disk": "导出一共需要 {need:.1f} GB，而 {folder} 只剩 {free:.1f} GB。请从 FORMATS 里去掉几种格式，或者把 OUTPUT_DIR "
        "设到更大的磁盘上（Kaggle 上用 /tmp 下的文件夹）。",
    },
}


class ExportFailed(runtime.Stop):
    """An export that did not come to its end; nothing of it is left under the final name."""


class UploadFailed(runtime.Stop):
    """The Hub did not take the files; the text says what to do, and never holds the token."""


@dataclass
class Exports:
    """The exports of one model into one folder: which are wanted, which were made, at what size and time.

    Each is written into a temporary folder and gets its name when it is whole: `folder/lora`,
    `folder/merged_16bit`, `folder/gguf/model.Q8_0.gguf`. Raises ValueError for an unknown format.
    """

    folder: Path
    formats: Sequence[str]
    parameters: int
    adapter_bytes: int = 0
    quantized: bool = False  # loaded in 4 bits
    gpu: bool = False
    made: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).resolve()
        if unknown := set(self.formats) - set(BITS):
            raise ValueError(f"FORMATS: {', '.join(sorted(unknown))} unknown; there are {', '.join(BITS)}.")

    @classmethod
    def of(cls, model: PreTrainedModel, folder: str | Path, formats: Sequence[str]) -> Exports:
        """For a model with a LoRA adapter: its size is read off."""
        adapter = [p for name, p in model.named_parameters() if "lora_" in name]
        return cls(
            folder=Path(folder),
            formats=formats,
            parameters=model.num_parameters() - sum(p.numel() for p in adapter),
            adapter_bytes=4 * sum(p.numel() for p in adapter),
            quantized=getattr(model.config, "quantization_config", None) is not None,
            gpu=model.device.type == "cuda",
        )

    def reason(self, name: str) -> str:
        """Why a format is not made here; empty when it is."""
        if name not in self.formats:
            return "not in FORMATS"
        if name == "merged_4bit_forced" and not (self.gpu and self.quantized):
            return "needs a GPU, and LOAD_IN_4BIT"
        if name in GGUF + ("merged_16bit",) and self.quantized and not self.gpu:
            return "needs LOAD_IN_4BIT = False on a CPU"
        return ""

    def wanted(self, *names: str) -> list[str]:
        """Those of `names` that are wanted and can be made on this machine."""
        return [name for name in names if not self.reason(name)]

    def path(self, name: str) -> Path:
        """Where a format lies; raises ExportFailed, with the reason, when it was not made."""
        if name not in self.made:
            why = self.reason(name) if name in BITS else f"there are {', '.join(BITS)}"
            raise ExportFailed(f"{name!r} was not made ({why or 'run its cell first'}). Check FORMATS and ASKED.")
        return self.made[name]

    def bytes_of(self, name: str) -> int:
        """The size to expect, in bytes."""
        return round(self.parameters * BITS[name] / 8) + (self.adapter_bytes if name == "lora" else 0)

    def disk(self) -> dict[str, int]:
        """Bytes that each file needs, and what is there only while GGUFs are made."""
        need = {name: self.bytes_of(name) for name in self.wanted(*BITS)}
        # Over a 4-bit base Unsloth downloads the 16-bit one into the very files that it merges in. Only on a machine
        # that will be there tomorrow does it keep a copy in the Hub's cache.
        if self.gpu and self.quantized and runtime.platform_name() == "local" and self.wanted("merged_16bit", *GGUF):
            need["kept in the Hub's cache: the base in 16 bits"] = 2 * self.parameters
        if ggufs := self.wanted(*GGUF):
            # Unsloth merges into 16 bits on a GPU and into 32 on a CPU, then writes a 16-bit GGUF to quantize from.
            need["on the way: merged model"] = (2 if self.gpu else 4) * self.parameters
            need["on the way: 16-bit GGUF"] = 2 * self.parameters if ggufs != ["f16"] else 0
        return need

    def check_disk(self) -> pd.DataFrame:
        """What the exports need on disk, in GB of 2**30 bytes; raises NotEnough when less is free."""
        need = self.disk()
        total = MARGIN * sum(need.values())
        place = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        free = shutil.disk_usage(place).free
        if free < total:
            facts = {"need": total / runtime.GB, "folder": place, "free": free / runtime.GB}
            raise runtime.NotEnough(runtime.say(WORDS, "disk", **facts))
        rows = {**need, "in all, with 5 % to spare": total, "free": free}
        return pd.DataFrame({"GB": [f"{size / runtime.GB:,.3f}" for size in rows.values()]}, index=list(rows))

    @contextlib.contextmanager
    def making(self, *names: str) -> Iterator[Path]:
        """A folder to write into, also the current one for that time; afterwards its files get their final names.

        When the block fails, nothing of it is kept, and what an earlier run made stays as it was. For GGUFs the
        folder may hold anything else besides; only the files `….NAME.gguf` are kept, NAME in capitals. Raises
        NotEnough when the disk is full.
        """
        with _beside(self.folder) as work:
            began = time.time()
            with contextlib.chdir(work):  # converters write half files where they stand
                yield work
            ended = time.time()
            ggufs = {name: self._gguf(work, name) for name in names if name in GGUF}
            for name in names:
                if name in GGUF:
                    goal = self.folder / "gguf" / f"model.{name.upper()}.gguf"
                    goal.parent.mkdir(exist_ok=True)
                    # Several come from one call; a file's own time says when it was ready.
                    self.seconds[name] = max(0.0, ggufs[name].stat().st_mtime - began)
                    ggufs[name].replace(goal)
                else:
                    goal = self.folder / name
                    self.seconds[name] = ended - began
                    _replace_folder(work, goal)
                self.made[name] = goal
        print(", ".join(f"{name}: {_size(self.made[name]) / MIB:,.2f} MiB" for name in names))

    def table(self) -> pd.DataFrame:
        """Every format: megabytes expected and found, seconds until it was there, or why it was not made."""
        rows = []
        for name in BITS:
            size = _size(self.made[name]) / MIB if name in self.made else None
            rows.append(
                {
                    "format": name,
                    "expected MiB": f"{self.bytes_of(name) / MIB:,.2f}",
                    "MiB": "–" if size is None else f"{size:,.2f}",
                    "ready after s": f"{self.seconds[name]:.1f}" if name in self.seconds else "–",
                    "file, or why not": str(self.made[name].relative_to(self.folder))
                    if name in self.made
                    else self.reason(name),
                }
            )
        return pd.DataFrame(rows).set_index("format")

    def _gguf(self, work: Path, name: str) -> Path:
        found = sorted(work.glob(f"**/*.{name.upper()}.gguf"))
        if len(found) != 1:
            there = ", ".join(path.name for path in work.glob("**/*.gguf")) or "none"
            raise ExportFailed(f"one file *.{name.upper()}.gguf was expected; GGUFs written: {there}.")
        return found[0]


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A folder to save into; when the block has ended well, it is `folder`, in the place of an older one.

    with export.replacing(adapter) as new:
        model.save_pretrained(new)

    When the block fails, an older one stays as it was. Raises NotEnough when the disk is full.
    """
    goal = Path(folder).resolve()
    with _beside(goal.parent, goal) as work:
        yield work
        _replace_folder(work, goal)


@contextlib.contextmanager
def _beside(folder: Path, goal: Path | None = None) -> Iterator[Path]:
    """A temporary folder within `folder`, so on the same disk; gone afterwards. A full disk is said of `goal`."""
    full_disk = functools.partial(runtime.writing, goal or folder)
    with full_disk():
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("unfinished-*-*-*"):  # by a killed run, perhaps many gigabytes
            host, process = left.name.split("-")[1:3]
            # Another host's or container's processes, in a folder that is shared with it, are not to be seen here.
            if host == HOST and process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"unfinished-{HOST}-{os.getpid()}-") as around:
            work = Path(around, "files")
            work.mkdir()
            with full_disk():  # asked while what filled the disk is still there
                yield work


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _replace_folder(new: Path, old: Path) -> None:
    """Put a finished folder in the place of an older one, which goes last."""
    aside = new.with_name("old")
    if old.exists():
        old.rename(aside)
    try:
        new.rename(old)
    except BaseException:  # an interrupt, too
        if aside.exists():
            aside.rename(old)
        raise
    shutil.rmtree(aside, ignore_errors=True)


class LlamaCpp:
    """A GGUF in llama.cpp, in this process, on the CPU, behind an HTTP API at `url` on this machine alone.

    with LlamaCpp(path) as llama:
        llama.post("/v1/chat/completions", {"messages": […]})   # as OpenAI's
    """

    def __init__(self, path: str | Path, context: int = 2048, threads: int = -1) -> None:
        import xllamacpp

        if not Path(path).is_file():
            raise FileNotFoundError(f"no GGUF at {path}")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.warmup, params.verbosity = context, False, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        try:
            self._server = xllamacpp.Server(params)
        except Exception as error:  # the binding raises RuntimeError for a broken file, others for settings
            raise ExportFailed(f"llama.cpp cannot load {path}: {error}") from None
        self.url: str = self._server.listening_address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server = None  # stops it

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The JSON answer to a JSON question."""
        import httpx

        answer = httpx.post(f"{self.url}{path}", json=body, timeout=600, trust_env=False)
        if answer.is_error:
            raise ExportFailed(f"llama.cpp refused {path}: {answer.text}")
        return answer.json()

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids; with `special`, with what this model puts before every text (BOS)."""
        body = {"content": text, "add_special": special, "parse_special": True}
        return self.post("/tokenize", body)["tokens"]

    def prompt_ids(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """A conversation through the chat template that the GGUF carries, in token ids."""
        return self.tokenize(self.post("/apply-template", {"messages": list(messages)})["prompt"])

    def complete(self, ids: Sequence[int], max_new_tokens: int) -> tuple[list[int], bool]:
        """Greedy: the new token ids without the end token, and whether the model stopped by itself."""
        body = {"prompt": list(ids), "n_predict": max_new_tokens, "temperature": 0, "return_tokens": True}
        answer = self.post("/completion", body)
        stopped = answer["stop_type"] == "eos"
        return answer["tokens"][: -1 if stopped else None], stopped


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two answers share from the beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))


CARD = """\
---
{facts}
---

# {title}

{text}

## Files

{files}

## Use

```
ollama create {name} -f Modelfile
ollama run {name}
```

## Limits

{disclaimer}
"""


def model_card(
    folder: Path, *, title: str, base_model: str, datasets: Sequence[str], license: str, text: str, disclaimer: str
) -> Path:
    """Write `folder/README.md`, the Hub's model card: facts that the Hub reads, the files, the limits.

    `base_model` that is a path on this machine is left out of the facts: it means nothing elsewhere. Revisions are left
    out, too: the Hub links the names.
    """
    base_model = hub.split_revision(hub.hub_name(base_model))[0]
    facts = {"license": license, "library_name": "gguf", "tags": ["gguf", "llama.cpp", "lora"]}
    if base_model and not Path(base_model).is_absolute():
        facts |= {"base_model": base_model}
    if datasets:
        facts |= {"datasets": [hub.split_revision(name)[0] for name in datasets]}
    lines = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items())  # YAML, too
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"]
    listed = "\n".join(f"- `{path.relative_to(folder)}`, {path.stat().st_size / MIB:,.1f} MiB" for path in files)
    card = folder / "README.md"
    name = title.lower().replace(" ", "-")
    written = CARD.format(facts=lines, title=title, name=name, text=text, files=listed, disclaimer=disclaimer)
    runtime.write_text(card, written)
    return card


UPLOAD_MEND = "Check UPLOAD_TO and the network, then run the cell again: what has arrived is not sent twice."
UPLOAD_MENDS = {  # by HTTP status
    401: "The Hub does not know the token in the secret HF_TOKEN: make one with the right to write at "
    "https://huggingface.co/settings/tokens.",
    403: "The token in the secret HF_TOKEN may not write there: it needs the right to write, and UPLOAD_TO must begin "
    "with your own name on the Hub, or that of an organisation that lets you.",
}


def upload(folder: Path, repository: str, token: str, private: bool = True) -> str:
    """Create the Hub repository, private unless `private` is False, and put the folder into it; returns its address.

    Raises UploadFailed when the repository is there already and public, though `private` was asked for, and when the
    Hub refuses the name or the token or cannot be reached.
    """
    from huggingface_hub import HfApi

    if repository.count("/") != 1:
        raise UploadFailed(f"UPLOAD_TO = {repository!r}: write it as 'your_name/your_model'.")
    private = private is not False  # whatever else stands there, a forgotten None say, is no wish to publish
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        if not private or api.repo_info(repository).private:
            api.upload_folder(
                repo_id=repository, folder_path=folder, commit_message="Upload from the course's lesson 06"
            )
            return str(address)
    except Exception as error:  # the client's own, httpx's and OS errors alike
        known = str(error).replace(token, "***").strip() if isinstance(error, (OSError, ValueError)) else ""
        known = runtime.without_login(known)  # a mirror's
        reason = known.splitlines()[0] if known else type(error).__name__  # httpx writes whole headers into some texts
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise UploadFailed(
            f"{repository} was not uploaded: {reason}\n{UPLOAD_MENDS.get(status, UPLOAD_MEND)}"
        ) from None
    raise UploadFailed(f"{repository} exists and is public. Make it private on the Hub, or set PRIVATE = False.")


def load_16bit(name: str, source: str = "huggingface") -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """A model in 16 bits, its tokenizer, and its base's name; an adapter is merged into its base.

    Trained over a 4-bit base (`…-bnb-4bit`), the adapter is merged into the 16-bit model of the same name: merging into
    rounded weights would round twice. The base of a model without an adapter is the model itself.
    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = hub.resolve_model(name, source)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dtype = torch.float16 if runtime.dtype() == torch.float16 else torch.bfloat16
    try:
        trained_on = PeftConfig.from_pretrained(folder).base_model_name_or_path
    except ValueError:  # how PEFT says that this is no adapter
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype), tokenizer, folder
    in_4bit = hub.split_revision(hub.hub_name(trained_on))[0]
    in_16bit = re.sub(r"(-unsloth)?-bnb-4bit$", "", in_4bit)
    base = hub.resolve_model(trained_on if in_16bit == in_4bit else in_16bit, source)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), folder)
    return model.merge_and_unload(), tokenizer, base


def size_on_disk(folder: str | Path) -> dict[str, float]:
    """Of a saved model: `MiB` of its weights, and `bits` for each weight of the layers' matrices, scales included.

    Reads the headers of the safetensors files alone. Packed 4-bit matrices are counted by the shape stored beside them.
    """
    from safetensors import safe_open

    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no safetensors in {folder}")
    stored = weights = 0
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, it is no dict
                if ".layers." not in name or not name.endswith(
                    (".weight", "_packed", "_scale", "_shape", "_zero_point")
                ):
                    continue
                tensor = tensors.get_tensor(name)
                if name.endswith("weight_shape"):
                    weights += int(tensor.prod())
                elif tensor.ndim == 2:
                    stored += tensor.nbytes
                    weights += tensor.numel() if name.endswith(".weight") else 0
    return {"MiB": sum(file.stat().st_size for file in files) / MIB, "bits": 8 * stored / weights}
