"""Checkpoints of real models' shapes with random weights: speed and memory do not ask what a model knows."""

from __future__ import annotations

from pathlib import Path

from helpers.vram import SHAPES


def write(name: str, folder: Path) -> Path:
    """Write bfloat16 weights of a shape in `helpers.vram.SHAPES`, with a small tokenizer, into `folder`."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

    from helpers import nano

    shape = SHAPES[name]
    tokenizer = AutoTokenizer.from_pretrained(nano.build("nano/qwen2"))
    config = (Qwen2Config if shape.biases else LlamaConfig)(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=32768,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="bfloat16",
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
