"""Checkpoints of real models' shapes with random weights: speed and memory do not ask what a model knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.vram import SHAPES

# What Qwen2.5-VL-3B has beside the shape of Qwen2.5-3B, from its published config.json.
VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
    "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip


def write(name: str, folder: Path) -> Path:
    """Write bfloat16 weights of a shape in `helpers.vram.SHAPES`, with a small tokenizer, into `folder`.

    Or of Qwen2.5-VL-3B's, with its processor.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

    from helpers import nano

    if name == "Qwen2.5-VL-3B":
        return _write_vision(folder)
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
    return _save(AutoModelForCausalLM, config, tokenizer, folder)


def _write_vision(folder: Path) -> Path:
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, Qwen2VLImageProcessor

    from helpers import nano

    nano_folder, shape = nano.build("nano/qwen2_5_vl"), SHAPES["Qwen2.5-3B"]
    processor, config = AutoProcessor.from_pretrained(nano_folder), AutoConfig.from_pretrained(nano_folder)
    cell = (VISION["patch_size"] * VISION["spatial_merge_size"]) ** 2  # the pixels of a token
    processor.image_processor = Qwen2VLImageProcessor(min_pixels=4 * cell, max_pixels=16384 * cell)
    config.text_config.update(
        {
            "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary,
            "layer_types": ["full_attention"] * shape.layers, "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        }
    )  # fmt: skip
    config.vision_config.update(VISION)
    return _save(AutoModelForImageTextToText, config, processor, folder)


def _save(kind: Any, config: Any, processor: Any, folder: Path) -> Path:
    """Random weights for a configuration, made on the GPU where there is one, with the tokenizer or processor.

    The same in each run on the same kind of GPU: a side that is measured later must have the losses of the others.
    """
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = kind.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
