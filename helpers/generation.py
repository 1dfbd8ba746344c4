"""Asking a model many questions at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from helpers.prompts import PromptError, check_prompts

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


@dataclass(frozen=True)
class Completion:
    """What the model wrote after one prompt: the text, its tokens, and whether it stopped by itself (EOS)."""

    text: str
    tokens: int
    stopped: bool


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 32,
    images: Sequence[Image] | None = None,
    **options: Any,
) -> list[Completion]:
    """Continue each prompt by at most `max_new_tokens` tokens, greedily unless `options` say otherwise.

    Batches are padded on the left, because generation goes on at the right; `options` go to `generate`
    (`do_sample=True, temperature=1.0`, `streamer=…`). With `images`, one a prompt, `tokenizer` is a vision model's
    processor, and each prompt holds its picture's placeholder. A prompt is read with its control tokens, whoever
    typed them. Raises ValueError for an empty prompt, one that no tokenizer takes, and one that fills the model's
    context.
    """
    check_prompts(prompts)
    if empty := [number for number, prompt in enumerate(prompts, start=1) if not prompt]:
        raise ValueError(f"prompt {empty[0]} of {len(prompts)} is empty; there is nothing to continue.")
    if images is not None and len(images) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts but {len(images)} images: one each is needed.")
    processor, tokenizer = tokenizer, getattr(tokenizer, "tokenizer", tokenizer)
    padding_side, tokenizer.padding_side = tokenizer.padding_side, "left"
    model.generation_config.max_length = None  # Unsloth's, on a GPU: beside max_new_tokens it brings a warning a call
    ends, completions = end_tokens(model.generation_config, tokenizer), []
    # A chat template writes the token that begins a text itself (Llama's), and another would be none of training's.
    begun = (bos := tokenizer.bos_token) and all(prompt.startswith(bos) for prompt in prompts)
    special = {"add_special_tokens": False} if begun else {}
    try:
        for start in range(0, len(prompts), batch_size):
            batch = {"text": list(prompts[start : start + batch_size])}
            if images is not None:
                batch["images"] = list(images[start : start + batch_size])
            inputs = processor(**batch, **special, return_tensors="pt", padding=True)
            _check_room(model, inputs["attention_mask"], start)
            inputs = inputs.to(model.device)
            output = model.generate(**inputs, **({"do_sample": False} | options), max_new_tokens=max_new_tokens)
            for ids in output[:, inputs["input_ids"].shape[1] :].tolist():
                completions.append(_completion(tokenizer, ids, ends))
    finally:
        tokenizer.padding_side = padding_side
    return completions


def _check_room(model: PreTrainedModel, mask: Any, start: int) -> None:
    """Raise before a prompt too long for the model takes memory quadratic in its length."""
    config = getattr(model, "config", None)
    config = getattr(config, "text_config", config)  # of a vision model
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and mask.shape[1] >= context:
        tokens, row = map(int, mask.sum(1).max(0))
        raise PromptError(
            f"prompt {start + row + 1} has {tokens:,} tokens, and the model reads {context:,} together with its "
            "answer. Shorten it."
        )


def end_tokens(generation: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """All tokens that end an answer: the tokenizer's EOS, and those at which `generate` stops besides."""
    ends = getattr(generation, "eos_token_id", None)
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}


def _completion(tokenizer: PreTrainedTokenizerBase, ids: list[int], ends: set[int]) -> Completion:
    """Cut at the first end token; what follows it is padding."""
    written = list(itertools.takewhile(lambda token: token not in ends, ids))
    text = tokenizer.decode(written, skip_special_tokens=True)
    return Completion(text, len(written), stopped=len(written) < len(ids))
