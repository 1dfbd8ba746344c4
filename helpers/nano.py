"""Nano models: real checkpoints of about a million parameters, built from a seed on any laptop.

A nano model has the shape, the tokenizer files and the chat template of the real model that it stands for, so it
loads with the ordinary `from_pretrained`. Everything it knows is in plain text files under `data_samples/`.

    path = nano.build("nano/qwen2")     # about a minute the first time, then from the cache
    model, tokenizer = FastLanguageModel.from_pretrained(str(path), load_in_4bit=True)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Qwen2Tokenizer

ROOT = Path(__file__).resolve().parents[1]
STEP = "step "  # how the training process reports a step
MAX_LENGTH = 2048  # tokens, of the model and of the tokenizer
PAD, START, END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Qwen2's own split, with Han in runs of at most two, so that the vocabulary holds words and not whole sentences.
TRAINING_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{Han}{1,2}|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}]]+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Recipe:
    """All that a nano model depends on besides this file's own code."""

    corpus: tuple[str, ...]  # what it reads, relative to the repository
    vocabulary_text: tuple[str, ...]  # read by the tokenizer only, so that later questions are cut into words
    vocabulary: int = 3328
    # A multiple of 64, as 4-bit blocks are; not 128, which Unsloth 2026.10.9 decodes wrongly on a GPU (one row, 4 bits).
    hidden: int = 192
    intermediate: int = 256
    layers: int = 2
    heads: int = 3
    steps: int = 400
    batch: int = 8  # sequences a step
    length: int = 128  # tokens a sequence
    matrix_lr: float = 1e-2  # Muon, for the layers' matrices
    other_lr: float = 2e-2  # AdamW, for embeddings and norms
    seed: int = 0
    seconds: int = 75  # what to tell the reader to expect


NANO: dict[str, Recipe] = {
    "nano/qwen2": Recipe(
        corpus=("data_samples/corpus_en.txt", "data_samples/corpus_zh.txt"),
        vocabulary_text=("data_samples/alpaca_en.json", "data_samples/alpaca_zh.json"),
    ),
}


def build(name: str = "nano/qwen2") -> Path:
    """Return the absolute path of the checkpoint folder, training the model first if it is not in the cache.

    The cache is `$COURSE_CACHE`, else `~/.cache/llm-finetuning-course`. A change of recipe, texts or this file
    makes a new folder. Raises ValueError for an unknown name.
    """
    if name not in NANO:
        raise ValueError(f"unknown nano model {name!r}; there are: {', '.join(sorted(NANO))}")
    recipe = NANO[name]
    folder = cache_folder() / f"{name.replace('/', '-')}-{fingerprint(recipe)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # a second process waits here and then finds the folder
        if not folder.exists():
            _build_into(folder, name, recipe)
    return folder


def cache_folder() -> Path:
    """Where the built models are kept (absolute)."""
    return Path(os.environ.get("COURSE_CACHE") or "~/.cache/llm-finetuning-course").expanduser().resolve()


def fingerprint(recipe: Recipe) -> str:
    """12 hexadecimal digits over the recipe, the texts that it names and this file."""
    digest = hashlib.sha256(repr(sorted(asdict(recipe).items())).encode())
    for path in (Path(__file__), *(ROOT / text for text in recipe.corpus + recipe.vocabulary_text)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def make_tokenizer(texts: list[str], vocabulary: int) -> Qwen2Tokenizer:
    """Qwen2's tokenizer with a byte-level BPE trained on `texts`; each number from 0 to 99 is one token."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    numbers = [AddedToken(str(number), normalized=False) for number in range(10, 100)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TRAINING_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(numbers),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # so that any text can be written
        show_progress=False,
    )
    apart = [text.replace(" ", "\n") for text in texts]  # also learn words as they stand at the start of a line
    bpe.train_from_iterator(texts + apart, trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=PAD,
        eos_token=END,
        pad_token=PAD,  # not the end token: its label would be masked, and the model would never learn to stop
        extra_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )
    tokenizer.add_tokens(numbers)  # Qwen2 splits numbers into digits, but an added token stays whole
    return tokenizer


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
    settings = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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


def _make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both; runs in the process that `_build_into` starts."""
    corpus = [(ROOT / text).read_text(encoding="utf-8") for text in recipe.corpus]
    extra = [(ROOT / text).read_text(encoding="utf-8") for text in recipe.vocabulary_text]
    tokenizer = make_tokenizer(corpus + extra, recipe.vocabulary)
    _train(recipe, tokenizer, corpus).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _new_model(recipe: Recipe, tokenizer: Qwen2Tokenizer) -> PreTrainedModel:
    """A Qwen2 model of the recipe's shape with random weights, in 32 bits on the CPU."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.device("cpu"):
        model = Qwen2ForCausalLM(config).float()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=256
    )
    return model


def _train(recipe: Recipe, tokenizer: Qwen2Tokenizer, corpus: list[str]) -> PreTrainedModel:
    """Read the corpus for `recipe.steps` steps and print each step's loss."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(recipe.seed)
    model = _new_model(recipe, tokenizer).train()
    optimizers = _optimizers(recipe, model)
    schedulers = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: _rate(step, recipe.steps)) for o in optimizers]
    text = torch.tensor(tokenizer("\n".join(corpus), verbose=False)["input_ids"])
    unread = torch.ones(len(tokenizer), dtype=torch.bool)
    unread[text] = False
    never = torch.zeros(len(tokenizer)).masked_fill(unread, -1e4)  # added to the logits of unread tokens
    embeddings = model.get_input_embeddings().weight
    for step in range(recipe.steps):
        inputs, targets = _windows(text, recipe.batch, recipe.length)
        hidden = model.model(input_ids=inputs).last_hidden_state
        logits = F.linear(hidden, embeddings, never)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        print(f"{STEP}{loss.item():.4f}", flush=True)
    with torch.no_grad():  # what it has not met yet, such as the end token, gets a direction of its own to learn
        directions = F.normalize(torch.randn_like(embeddings[unread]), dim=1)
        embeddings[unread] = directions * embeddings[~unread].norm(dim=1).mean()
    return model.eval()


def _windows(text: torch.Tensor, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`batch` windows of `length` tokens from random places of the text, and the same one token on."""
    import torch

    starts = torch.randint(len(text) - length, (batch, 1))
    windows = text[starts + torch.arange(length + 1)]
    return windows[:, :-1], windows[:, 1:]


def _optimizers(recipe: Recipe, model: PreTrainedModel) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices (learns arithmetic that AdamW alone does not), AdamW for all else."""
    import torch

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, adjust_lr_fn="match_rms_adamw", weight_decay=0.01),
        torch.optim.AdamW(others, lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def _rate(step: int, steps: int) -> float:
    """The learning rate's factor: 20 steps up, then straight down to a twentieth."""
    return min(1.0, (step + 1) / 20) * max(0.05, 1 - step / steps)


if __name__ == "__main__":
    _make(Path(sys.argv[1]), Recipe(**json.loads(sys.argv[2])))
