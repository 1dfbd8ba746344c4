"""Fine-tuning of a model that does not fit one GPU, with plain TRL: its weights are shared out by Accelerate (FSDP2).

    accelerate launch --config_file lessons/13_scale_out/fsdp.yaml --num_processes 2 lessons/13_scale_out/fsdp.py

QLORA = False trains all weights, 16 bytes a parameter over all GPUs; True freezes them in 4 bits and trains an adapter.
For GPUs that compute in bfloat16 (compute capability 8.0 or newer), as fsdp.yaml says; on T4s use the notebook's script.
"""

from helpers import launch

MODEL = "Qwen/Qwen2.5-14B-Instruct"  # Hub name or folder, in 16 bits
DATASET = "yahma/alpaca-cleaned"
OUTPUT_DIR = "outputs/13_fsdp"
QLORA = False
MAX_SEQ_LENGTH = 2048
MAX_STEPS = 60
BATCH_SIZE = 1
GRADIENT_ACCUMULATION = 8  # in all; the processes share it
LEARNING_RATE = 1e-5  # 2e-4 with QLORA
PACKING = True
SAVE = True
SEED = 3407
launch.take_options(globals())
BATCH_SIZE, GRADIENT_ACCUMULATION = launch.share(BATCH_SIZE, GRADIENT_ACCUMULATION)

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from helpers import data, hub, prompts

path = hub.resolve_model(MODEL)
tokenizer = AutoTokenizer.from_pretrained(path)


def to_text(batch):
    triples = zip(batch["instruction"], batch["input"], batch["output"])
    return {"text": [prompts.alpaca(*triple) + tokenizer.eos_token for triple in triples]}


rows = data.load_alpaca(DATASET).map(to_text, batched=True)
four_bits = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_compute_dtype=torch.bfloat16,
    bnb_4bit_quant_storage=torch.bfloat16,  # FSDP gathers numbers of one kind: two 4-bit pairs travel as a bfloat16
)
model = AutoModelForCausalLM.from_pretrained(
    path,
    dtype=torch.bfloat16,
    attn_implementation="sdpa",
    use_cache=False,
    quantization_config=four_bits if QLORA else None,
)
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows,
    peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM") if QLORA else None,
    args=SFTConfig(
        output_dir=f"{OUTPUT_DIR}/checkpoints",
        dataset_text_field="text",
        max_length=MAX_SEQ_LENGTH,
        packing=PACKING,
        per_device_train_batch_size=BATCH_SIZE,
        gradient_accumulation_steps=GRADIENT_ACCUMULATION,
        gradient_checkpointing=False,  # fsdp.yaml has it
        max_steps=MAX_STEPS,
        learning_rate=LEARNING_RATE,
        warmup_steps=5,
        optim="adamw_torch_fused",  # its moments are shared out with the weights; 8-bit Adam's cannot be
        bf16=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        seed=SEED,
    ),
)
watch = launch.Watch(trainer)
trainer.train()
if SAVE:
    if trainer.is_fsdp_enabled:  # one model again, gathered at rank 0
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(f"{OUTPUT_DIR}/model")
watch.save(OUTPUT_DIR)
