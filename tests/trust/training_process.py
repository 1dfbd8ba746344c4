"""A small training run in a process that may be killed at any moment; run by test_interruptions.py."""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

STEPS, SAVE_STEPS = 20, 2


def train(folder: str, base: str, steps: Connection, limit: int | None = None) -> None:
    """Train lesson 01's way, from the newest whole checkpoint in `folder` if there is one; report every step.

    At the end the losses and the adapter are written. `limit` is the most bytes that a file may have, as if the disk
    were full.
    """
    import torch
    import unsloth  # noqa: F401  first: it replaces parts of transformers and trl
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    from helpers import data, launch, prompts, runtime

    class Report(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            steps.send(state.global_step)
            if limit and state.global_step == SAVE_STEPS + 1:  # the first checkpoint is whole
                _fill_the_disk(limit)

    torch.set_num_threads(1)
    rows = data.load_alpaca("data_samples/alpaca_en.json").select(range(80))
    model, tokenizer = FastLanguageModel.from_pretrained(base, max_seq_length=256, load_in_4bit=False)
    model = FastLanguageModel.get_peft_model(model, r=8, lora_alpha=8, use_gradient_checkpointing=False, random_state=0)
    texts = [prompts.alpaca(r["instruction"], r["input"], r["output"]) + tokenizer.eos_token for r in rows]
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"text": texts}),
        args=SFTConfig(
            output_dir=folder, dataset_text_field="text", max_length=256, per_device_train_batch_size=4,
            max_steps=STEPS, learning_rate=2e-3, logging_steps=1, save_steps=SAVE_STEPS, save_total_limit=3,
            gradient_checkpointing=False, report_to="none", disable_tqdm=True, seed=0,
        ),
        callbacks=[Report()],
    )  # fmt: skip
    try:
        with runtime.writing(folder):
            trainer.train(resume_from_checkpoint=launch.last_checkpoint(folder))
    except runtime.NotEnough as full:
        Path(folder, "said.txt").write_text(str(full))
        raise
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model.save_pretrained(Path(folder) / "adapter")
    (Path(folder) / "losses.json").write_text(json.dumps(losses))
    steps.close()
    os._exit(0)


def _fill_the_disk(limit: int) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with an error instead of ending the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def wait_for(steps: Connection, step: int, more: float) -> bool:
    """Wait until that step is reported, and a moment longer; False when the process ended before."""
    try:
        while steps.recv() < step:
            pass
    except EOFError:
        return False
    time.sleep(more)
    return True
