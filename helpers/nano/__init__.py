"""Nano models: real checkpoints of about a million parameters, built from a seed on any laptop.

A nano model has the shape, the tokenizer files and the chat template of the real model that it stands for, so it
loads with the ordinary `from_pretrained`. Each is made by a module of this package from texts in `data_samples/`.

    path = nano.build("nano/qwen2")     # about a minute the first time, then from the cache
    model, tokenizer = FastLanguageModel.from_pretrained(str(path), load_in_4bit=True)
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

from filelock import FileLock

from helpers.nano import (
    adapter,
    arithmetic,
    bloom,
    judge,
    medical,
    medical_sft,
    r1,
    reader,
    reasoned,
    running,
    text,
    town,
    vl,
    writer,
)
from helpers.nano.common import STEP, Recipe
from helpers.runtime import root, writing

NANO: dict[str, Recipe] = {
    "nano/qwen2": text.QWEN2,
    "nano/llama-r1": r1.LLAMA_R1,
    "nano/qwen2-math": arithmetic.QWEN2_MATH,
    "nano/qwen2-math-reasoned": reasoned.QWEN2_MATH_REASONED,
    "nano/qwen2-math-writer": writer.QWEN2_MATH_WRITER,
    "nano/qwen2-medical": medical.QWEN2_MEDICAL,
    "nano/qwen2-medical-sft": medical_sft.QWEN2_MEDICAL_SFT,
    "nano/medical-judge": judge.MEDICAL_JUDGE,
    "nano/llama-r1-adapter": adapter.LLAMA_R1_ADAPTER,
    "nano/qwen2-reader": reader.QWEN2_READER,
    "nano/qwen2-town": town.QWEN2_TOWN,
    "nano/qwen2_5_vl": vl.QWEN2_5_VL,
    "nano/qwen2-running": running.QWEN2_RUNNING,
    "nano/bloom-medical": bloom.BLOOM_MEDICAL,
}
"""Every nano model by the name that a notebook gives as MODEL."""


def build(name: str = "nano/qwen2") -> Path:
    """Return the absolute path of the checkpoint folder, training the model first if it is not in the cache.

    The cache is `$COURSE_CACHE`, else `~/.cache/llm-finetuning-course`. A change of recipe, texts or the code
    that makes it makes a new folder. Raises ValueError for an unknown name.
    """
    if name not in NANO:
        raise ValueError(f"unknown nano model {name!r}; there are: {', '.join(sorted(NANO))}")
    recipe = NANO[name]
    if base := base_of(recipe):
        build(base)  # first, so that its progress is seen
    folder = cache_folder() / f"{name.replace('/', '-')}-{fingerprint(recipe)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # a second process waits here and then finds the folder
        if not folder.exists():
            with writing(folder.parent, "COURSE_CACHE"):
                _build_into(folder, name, recipe)
    return folder


def build_all(names: Iterable[str] = NANO, workers: int = 2) -> dict[str, Path]:
    """Build several nano models, `workers` at a time: the longest first, those that stand on another last."""
    order = sorted(names, key=lambda name: (base_of(NANO[name]) is not None, -NANO[name].seconds))
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(order, pool.map(build, order), strict=True))


def cache_folder() -> Path:
    """Where the built models are kept (absolute)."""
    return Path(os.environ.get("COURSE_CACHE") or "~/.cache/llm-finetuning-course").expanduser().resolve()


def fingerprint(recipe: Recipe) -> str:
    """12 hexadecimal digits over the recipe, the texts that it names and the code that makes it."""
    digest = hashlib.sha256(repr(sorted(asdict(recipe).items())).encode())
    code = [Path(__file__).with_name(f"{module}.py") for module in ("common", recipe.maker, *recipe.modules)]
    for path in [*code, *(root() / name for name in recipe.corpus + recipe.vocabulary_text)]:
        digest.update(path.read_bytes())
    if base := base_of(recipe):
        digest.update(fingerprint(NANO[base]).encode())
    return digest.hexdigest()[:12]


def maker(recipe: Recipe) -> ModuleType:
    """The module of this package whose `make(folder, recipe)` writes the checkpoint."""
    return importlib.import_module(f"helpers.nano.{recipe.maker}")


def base_of(recipe: Recipe) -> str | None:
    """The name of the nano model that an adapter stands on."""
    return getattr(maker(recipe), "BASE", None)


def _build_into(folder: Path, name: str, recipe: Recipe) -> None:
    """Train into a temporary folder beside `folder` and rename it when all is written.

    A process of its own trains: Unsloth, once imported, replaces parts of transformers, on a GPU by code that
    does not train on a CPU.
    """
    from tqdm.auto import tqdm

    print(f"building {name}: about {recipe.seconds} s, once; kept in {folder.parent}", flush=True)
    begin = time.perf_counter()
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed build left
    command = [sys.executable, "-m", "helpers.nano", str(unfinished), json.dumps(asdict(recipe))]
    # One thread: at this size a second brings little, and on a busy machine waiting for it costs a lot.
    # Huge pages: PyTorch takes memory for each step's logits anew, and a tenth of the time went into its pages.
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "THP_MEM_ALLOC_ENABLE": "1"}
    with subprocess.Popen(
        command, cwd=root(), env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        losses, said = [], []
        with tqdm(total=recipe.steps, desc="reading", unit="step") as bar:
            for line in process.stdout:
                if not line.startswith(STEP):
                    said.append(line)
                    continue
                losses.append(float(line.removeprefix(STEP)))
                bar.update()
                if len(losses) % 20 == 0:
                    bar.set_postfix(loss=f"{losses[-1]:.2f}")
    if process.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise RuntimeError(f"{name} could not be built:\n{''.join(said)[-2000:]}")
    os.replace(unfinished, folder)
    tail = losses[-max(1, len(losses) // 10) :]
    seconds = time.perf_counter() - begin
    print(f"built {name} in {seconds:.0f} s, final loss {sum(tail) / len(tail):.2f}", flush=True)
