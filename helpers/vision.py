"""Vision models: `FastVisionModel` for any machine.

With a GPU, `FastVisionModel` is Unsloth's own. Unsloth's refuses a CPU, so there the same four calls stand on
transformers and PEFT: the same names, the same results, none of the speed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class CpuVisionModel:
    """`FastVisionModel`'s calls over transformers and PEFT. Arguments that only Unsloth knows change nothing."""

    @staticmethod
    def from_pretrained(
        model_name: str, load_in_4bit: bool = True, dtype: torch.dtype | None = None, **_: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        """Load a model, or an adapter with its base model, and the processor.

        In 4 bits as Unsloth does it: NF4 for the language model; the vision tower keeps its 16 or 32 bits.
        """
        import unsloth  # noqa: F401 - unsloth_zoo wants it first
        from peft import PeftModel
        from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig
        from unsloth_zoo.peft_utils import SKIP_QUANTIZATION_MODULES

        adapter = Path(model_name, "adapter_config.json")
        base = model_name
        if adapter.is_file():
            base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
        dtype = dtype or torch.float32
        four_bit = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # transformers looks for these at the start of a module's name only; they stand anywhere in it.
            llm_int8_skip_modules=[rf"(.*\.)?{name}\b" for name in SKIP_QUANTIZATION_MODULES],
        )
        model = AutoModelForImageTextToText.from_pretrained(
            base, dtype=dtype, quantization_config=four_bit if load_in_4bit else None
        )
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False  # repacks the weights in evaluation; training then fails
        if adapter.is_file():
            model = PeftModel.from_pretrained(model, model_name)
        return model, AutoProcessor.from_pretrained(model_name)

    @staticmethod
    def get_peft_model(
        model: PreTrainedModel,
        r: int = 16,
        lora_alpha: int = 16,
        lora_dropout: float = 0.0,
        bias: str = "none",
        finetune_vision_layers: bool = True,
        finetune_language_layers: bool = True,
        finetune_attention_modules: bool = True,
        finetune_mlp_modules: bool = True,
        random_state: int = 3407,
        **_: Any,
    ) -> PreTrainedModel:
        """Hang adapters beside the layers that the four switches name; Unsloth's own rule picks the modules."""
        import unsloth  # noqa: F401
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed
        from unsloth_zoo.peft_utils import get_peft_regex

        modules = get_peft_regex(
            model,
            finetune_vision_layers=finetune_vision_layers,
            finetune_language_layers=finetune_language_layers,
            finetune_attention_modules=finetune_attention_modules,
            finetune_mlp_modules=finetune_mlp_modules,
        )
        set_seed(random_state)  # B is zero; A is drawn
        config = LoraConfig(
            r=r,
            lora_alpha=lora_alpha,
            lora_dropout=lora_dropout,
            bias=bias,
            target_modules=modules,
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, config)

    @staticmethod
    def for_training(model: PreTrainedModel, **_: Any) -> PreTrainedModel:
        """Dropout on, no cache of keys and values."""
        model.config.use_cache = False
        return model.train()

    @staticmethod
    def for_inference(model: PreTrainedModel) -> PreTrainedModel:
        """Dropout off, keys and values cached."""
        model.config.use_cache = True
        return model.eval()


if torch.cuda.is_available():
    from unsloth import FastVisionModel
else:
    FastVisionModel = CpuVisionModel

__all__ = ["CpuVisionModel", "FastVisionModel"]
