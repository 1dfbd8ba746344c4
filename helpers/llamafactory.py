"""Running LLaMA-Factory: one YAML file and one process a stage, its log, its figures, its API server."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from datasets import Dataset

from helpers import data, environments, guard, hub, report, runtime, serve
from helpers.data.conversations import TURN_COLUMNS
from helpers.data.rows import DataError, skipped, text_field
from helpers.environments import Environment

LOCK = runtime.root() / "lessons" / "12_llamafactory" / "requirements.txt"
# Of our own Python and Jupyter, and wrong for another environment.
NOT_FOR_IT = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MPLBACKEND")
SETTINGS = {
    "GPTQMODEL_DISABLE_PACK_EXT": "1",  # else it compiles C++ for 25 s to pack a model that is packed in one
    "TORCH_COMPILE_DISABLE": "1",  # else the first 4-bit answer on a CPU waits a minute for the compiler
}
STARTED_WITHIN = 900  # seconds for the server: a 7B model is read from the disk


KEYS = {
    "stage": "SFTTrainer, DPOTrainer",
    "model_name_or_path": "FastLanguageModel.from_pretrained(model_name)",
    "adapter_name_or_path": "PeftModel.from_pretrained(model_id)",
    "template": "tokenizer.chat_template",
    "finetuning_type": "FastLanguageModel.get_peft_model",
    "lora_target": "LoraConfig.target_modules",
    "lora_rank": "LoraConfig.r",
    "lora_alpha": "LoraConfig.lora_alpha",
    "quantization_bit": "FastLanguageModel.from_pretrained(load_in_4bit)",
    "dataset_dir": "load_dataset(data_files)",
    "dataset": "SFTTrainer(train_dataset)",
    "eval_dataset": "SFTTrainer(eval_dataset)",
    "cutoff_len": "SFTConfig.max_length",
    "packing": "SFTConfig.packing",
    "pref_beta": "DPOConfig.beta",
    "pref_loss": "DPOConfig.loss_type",
    "do_train": "trainer.train()",
    "output_dir": "SFTConfig.output_dir",
    "max_steps": "SFTConfig.max_steps",
    "learning_rate": "SFTConfig.learning_rate",
    "lr_scheduler_type": "SFTConfig.lr_scheduler_type",
    "per_device_train_batch_size": "SFTConfig.per_device_train_batch_size",
    "per_device_eval_batch_size": "SFTConfig.per_device_eval_batch_size",
    "gradient_accumulation_steps": "SFTConfig.gradient_accumulation_steps",
    "bf16": "SFTConfig.bf16",
    "fp16": "SFTConfig.fp16",
    "logging_steps": "SFTConfig.logging_steps",
    "save_strategy": "SFTConfig.save_strategy",
    "eval_strategy": "SFTConfig.eval_strategy",
    "eval_steps": "SFTConfig.eval_steps",
    "eval_on_start": "SFTConfig.eval_on_start",
    "report_to": "SFTConfig.report_to",
    "seed": "SFTConfig.seed",
    "export_dir": "model.merge_and_unload(), model.save_pretrained(save_directory)",
    "export_size": "model.save_pretrained(max_shard_size)",
    "export_device": "AutoModelForCausalLM.from_pretrained(device_map)",
    "export_quantization_bit": "GPTQConfig.bits",
    "export_quantization_dataset": "GPTQConfig.dataset",
    "export_quantization_nsamples": "len(GPTQConfig.dataset)",
    "export_quantization_maxlen": "tokenizer(max_length)",
    "infer_backend": "model.generate",
}
"""What each YAML key of the lesson is called in the libraries that the other lessons use."""


class StageFailed(runtime.Stop):
    """A stage that did not run to its end; the text holds the last lines that it wrote and where the rest is."""


@dataclass(frozen=True)
class Stage:
    """A stage that ran: its YAML, the folder that it wrote, its log, its seconds and its final figures."""

    settings: Mapping[str, Any]
    folder: Path
    log: Path
    seconds: float
    metrics: Mapping[str, float]

    def losses(self) -> pd.Series:
        """The training loss by step, from `trainer_log.jsonl`."""
        return report.losses([entry | {"step": entry["current_steps"]} for entry in _json_lines(self.folder)])

    def held_out(self) -> pd.DataFrame:
        """What was measured on the held-out rows, a row a step, from `trainer_state.json`."""
        state = json.loads((self.folder / "trainer_state.json").read_text(encoding="utf-8"))
        rows = [entry for entry in state["log_history"] if "eval_loss" in entry]
        table = pd.DataFrame(rows).set_index("step").filter(like="eval_")
        return table.rename(columns=lambda name: name.removeprefix("eval_").removeprefix("rewards/"))

    def example(self) -> tuple[list[int], list[int]]:
        """The token ids and labels of the first training example, which LLaMA-Factory writes into its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        found = [re.search(rf"^{name}:\n\[(.*?)\]$", text, re.MULTILINE) for name in ("input_ids", "label_ids")]
        if not all(found):
            raise ValueError(f"{self.log} shows no training example with labels; only the stage sft writes one.")
        ids, labels = ([int(number) for number in match[1].split(",")] for match in found)
        return ids, labels


@dataclass(frozen=True)
class Server:
    """A server that answers the OpenAI API: its address (ends in /v1), the model's name there, its log."""

    url: str
    model: str
    log: Path
    seconds: float


def environment() -> Environment:
    """LLaMA-Factory's own environment: made the first time, with the package index; afterwards found."""
    return environments.make("llamafactory", LOCK, last=("gptqmodel",), build_settings={"BUILD_CUDA_EXT": "0"})


def first_rows(source: str, folder: str | Path, limit: int | None = None) -> str:
    """A JSON file to read from: `source` itself, or of `owner/dataset:path/in/it` on the Hub its first `limit` rows.

    `owner/dataset@revision:path/in/it` takes that revision; the commit is printed.
    A file in a data set can hold millions of rows, one object a line; they are copied to `folder` up to the limit.
    Raises DataError when the Hub does not give it.
    """
    repository, _, path = source.partition(":")
    if not path or Path(source).exists():
        return source
    from huggingface_hub import hf_hub_download

    name, revision = hub.split_revision(repository)
    try:
        whole = hf_hub_download(name, path, repo_type="dataset", **({"revision": revision} if revision else {}))
    except Exception as error:  # httpx's, the client's own and OS errors alike
        told = runtime.say(hub.WORDS, "no data file", file=path, name=repository, error=type(error).__name__)
        raise DataError(told) from None
    hub.say_commit(repository, whole, f":{path}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The whole name: another data set's file, or another revision's, may well be called the same.
    part = Path(folder, re.sub(r"[^\w.@-]+", "--", f"{repository}/{Path(path).with_suffix('')}") + ".jsonl")
    with open(whole, encoding="utf-8") as lines, part.open("w", encoding="utf-8") as out:
        out.writelines(itertools.islice(lines, limit))
    return str(part)


def load_texts(source: str) -> list[str]:
    """The column `text` of a JSON file; rows without text are skipped, counted and printed."""
    rows = data.read_json_rows(source)
    texts = [text_field(row, "text", source, number) for number, row in enumerate(rows, start=1)]
    blank = [number for number, text in enumerate(texts, start=1) if not text.strip()]
    print(f"{source}: {len(rows):,} rows, {len(rows) - len(blank):,} kept" + skipped("blank text", blank))
    return [text for text in texts if text.strip()]


def load_instructions(source: str) -> Dataset:
    """Alpaca columns of a JSON file that has them, or that holds conversations (as ShareGPT's) of one turn or more."""
    first = data.read_json_rows(source, listed=TURN_COLUMNS[-1])[0]  # as load_conversations reads bare lists
    return data.load_alpaca(source) if "instruction" in first else data.to_alpaca(data.load_conversations(source))


def precision() -> str:
    """The YAML line for the number format to train in: `bf16: true`, on a T4 `fp16: true`, on a CPU `bf16: false`."""
    import torch

    if runtime.gpu() is None:
        return "bf16: false"
    return "bf16: true" if runtime.dtype() == torch.bfloat16 else "fp16: true"


def write(path: str | Path, *texts: str) -> Path:
    """Write the parts of a stage's YAML into one file; returns its path.

    Raises ValueError when they are no YAML or no mapping of keys to values, or name a key twice: the last one would win
    silently.
    """
    path, text = Path(path).resolve(), "\n".join(part.strip() for part in texts) + "\n"
    keys = re.findall(r"(?m)^(\w+):", text)
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"{path.name}: {', '.join(twice)} stands twice. Keep one line of it.")
    try:
        parsed = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name}: is no YAML. A value with a colon in it wants quotes. {error}") from None
    if not (isinstance(parsed, dict) and parsed):
        raise ValueError(f"{path.name}: is no list of `key: value` lines.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def run(env: Environment, verb: str, file: Path) -> Stage:
    """`llamafactory-cli verb file`, with a bar for the steps; `verb` is `train` or `export`.

    What the stage says goes into a log beside the file. The folder that it writes is empty at first, when it lies
    beside the file, too: LLaMA-Factory would refuse it or add to it. What an earlier run wrote there comes back when
    the stage fails. Raises StageFailed, and NotEnough when the disk is full.
    """
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    folder = Path(settings.get("output_dir") or settings.get("export_dir"))
    log, began = file.with_suffix(".log"), time.perf_counter()
    ours = file.parent in folder.resolve().parents
    with _set_aside(folder) if ours else nullcontext(), runtime.writing(folder):
        with _process(env, verb, file, settings, log, {}) as process:
            _watch(process, file.stem, folder)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise StageFailed(f"stage {file.stem} failed after {seconds:.0f} s. {_end(log)}")
    metrics = folder / "all_results.json"
    found = json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else {}
    print(f"{file.stem}: {seconds:.0f} s, wrote {folder}")
    return Stage(settings, folder, log, seconds, found)


@contextmanager
def _set_aside(folder: Path) -> Iterator[None]:
    """An earlier `folder` is out of the way during the block, and back when it fails; also what a killed run left so."""
    before = folder.with_name(f"{folder.name}.before")
    if folder.exists() and not before.exists():
        folder.rename(before)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if before.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)


@contextmanager
def api(env: Environment, file: Path, model: str = "bloom") -> Iterator[Server]:
    """`llamafactory-cli api file` on a free port of this machine, stopped when the block ends, also by an error.

    Raises StageFailed when the server ends, or does not answer in time.
    """
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    log, began, port = file.with_suffix(".log"), time.perf_counter(), runtime.free_port()
    # 127.0.0.1 and not the default 0.0.0.0, which lets in whoever reaches the machine.
    own = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "API_MODEL_NAME": model}
    with _process(env, "api", file, settings, log, own) as process:
        url = f"http://127.0.0.1:{port}/v1"
        while not serve.answers(url, "/models"):
            seconds = time.perf_counter() - began
            if process.poll() is not None:
                raise StageFailed(f"the server ended after {seconds:.0f} s. {_end(log)}")
            if seconds > STARTED_WITHIN:
                raise StageFailed(f"the server does not answer after {seconds:.0f} s. {_end(log)}")
            time.sleep(0.2)
        yield Server(url, model, log, time.perf_counter() - began)


def loss_plot(stages: Mapping[str, Stage]) -> report.Figure:
    """A panel a stage: the training loss (thin, and the mean of ten steps), and the held-out loss as dots."""
    figure = report.Figure(figsize=(4 * len(stages), 3), layout="constrained")
    for (name, stage), axes in zip(stages.items(), figure.subplots(1, len(stages), squeeze=False)[0], strict=True):
        loss, held_out = stage.losses(), stage.held_out()["loss"]
        axes.plot(loss.index, loss, color="tab:blue", alpha=0.35, linewidth=1)
        axes.plot(loss.index, loss.rolling(10, min_periods=1).mean(), color="tab:blue", label="training")
        axes.plot(held_out.index, held_out, "o", color="tab:orange", label="held out")
        axes.set_title(name, fontsize=10)
        axes.set(xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    return figure


@contextmanager
def _process(
    env: Environment, verb: str, file: Path, settings: Mapping[str, Any], log: Path, own: Mapping[str, str]
) -> Iterator[subprocess.Popen]:
    """The stage's process, with all that it starts; ended at the latest when the block ends."""
    ours = {name: value for name, value in os.environ.items() if name not in NOT_FOR_IT}
    variables = SETTINGS | ours | dict(own)
    variables.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with several it would start torchrun; that is lesson 13
    if Path(settings["model_name_or_path"]).is_dir():
        variables["HF_HUB_OFFLINE"] = "1"  # it has all that it needs, and shall not wait for a network
    process = guard.start([env.command("llamafactory-cli"), verb, str(file)], log, variables)
    try:
        yield process
    finally:
        guard.stop(process)


def _watch(process: subprocess.Popen, name: str, folder: Path) -> None:
    """Wait for the end; once steps are logged, show a bar with the loss and the time left."""
    from tqdm.auto import tqdm

    bar = None
    while not _ended(process, within=0.5):
        entries = _json_lines(folder)
        if not entries:
            continue
        bar = bar or tqdm(total=entries[-1]["total_steps"], desc=name, unit="step")
        bar.update(entries[-1]["current_steps"] - bar.n)
        if losses := [entry["loss"] for entry in entries if "loss" in entry]:
            bar.set_postfix(loss=f"{losses[-1]:.2f}")
    if bar is not None:
        entries = _json_lines(folder)
        bar.update(entries[-1]["current_steps"] - bar.n)
        bar.close()


def _ended(process: subprocess.Popen, within: float) -> bool:
    """Whether the process ends in so many seconds."""
    try:
        process.wait(timeout=within)
    except subprocess.TimeoutExpired:
        return False
    return True


def _json_lines(folder: Path) -> list[dict[str, Any]]:
    """The entries of `trainer_log.jsonl`, none when it is not there yet; a half-written last line is left out."""
    path = folder / "trainer_log.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if "}\n" in line]


def _end(log: Path, lines: int = 12) -> str:
    """The last lines of a log without its progress bars, and its path."""
    text = log.read_bytes().decode(errors="replace")  # as bytes: reading as text would turn each \r into a new line
    said = [line.rsplit("\r", 1)[-1] for line in text.split("\n") if line.strip()]
    return "\n".join(["Its last lines:", *said[-lines:], f"The whole log: {log}"])
