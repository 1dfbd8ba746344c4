"""What the makers of nano models share: the recipe, the tokenizer, the shapes, the training loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.runtime import root

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, Qwen2Tokenizer

    NextBatch = Callable[[int], tuple[torch.Tensor, torch.Tensor]]

STEP = "step "  # how the training process reports a step
MAX_LENGTH = 2048  # tokens, of the model and of the tokenizer
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
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
    """All that a nano model depends on besides code. A maker may ignore what it has no use for."""

    maker: str  # the module of this package that makes it
    modules: tuple[str, ...] = ()  # others of this package that the maker is made of
    corpus: tuple[str, ...] = ()  # what it reads, relative to the repository
    prompts: tuple[str, ...] = ()  # prompts of the lessons that it knows already
    vocabulary_text: tuple[str, ...] = ()  # read by the tokenizer only, so that later questions are cut into words
    shape: str = "qwen2"  # or "llama"
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


def make_tokenizer(
    texts: list[str],
    vocabulary: int,
    *,
    special: tuple[str, str, str] = SPECIAL,
    added: tuple[str, ...] = (),
    numbers: bool = True,
    chat_template: str = CHAT_TEMPLATE,
) -> Qwen2Tokenizer:
    """Qwen2's tokenizer with a byte-level BPE trained on `texts`; each number from 0 to 99 is one token.

    `special` are the padding, the start and the end token; `added` are whole tokens that decode as ordinary text.
    Without `numbers`, each digit is a token, as for the real Qwen2.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    pad, start, end = special
    pairs = map(str, range(10, 100)) if numbers else ()
    whole = [AddedToken(text, normalized=False) for text in (*pairs, *added)]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TRAINING_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(whole),
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # so that any text can be written
        show_progress=False,
    )
    apart = [text.replace(" ", "\n") for text in texts]  # also learn words as they stand at the start of a line
    bpe.train_from_iterator(texts + apart, trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(merge) for merge in learned["merges"]],
        unk_token=pad,
        eos_token=end,
        pad_token=pad,  # not the end token: its label would be masked, and the model would never learn to stop
        extra_special_tokens=[start],
        chat_template=chat_template,
        model_max_length=MAX_LENGTH,
        padding_side="right",
    )
    tokenizer.add_tokens(whole)  # Qwen2 splits numbers into digits, but an added token stays whole
    return tokenizer


def read_texts(names: tuple[str, ...]) -> list[str]:
    """The texts of files named relative to the course's folder."""
    return [(root() / name).read_text(encoding="utf-8") for name in names]


def new_model(recipe: Recipe, tokenizer: Qwen2Tokenizer) -> PreTrainedModel:
    """A model of the recipe's shape and seed with random weights, in 32 bits."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shapes = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    make_config, make_model = shapes[recipe.shape]
    torch.manual_seed(recipe.seed)
    model = make_model(
        make_config(
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
    )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=256
    )
    return model


def train(recipe: Recipe, model: PreTrainedModel, next_batch: NextBatch, read: torch.Tensor) -> None:
    """Train all of the model for `recipe.steps` steps and print each step's loss.

    `next_batch(step)` gives the token ids and the labels, both batch × length; a label stands for the token after
    its place, −100 for none. `read` holds every token id that is ever a label: the others are kept out of the
    softmax, and at the end get a direction of their own, which LoRA can learn (the end token, say).
    """
    import torch
    import torch.nn.functional as F

    embeddings = model.get_input_embeddings().weight
    unread = torch.ones(len(embeddings), dtype=torch.bool)
    unread[read] = False
    never = torch.zeros(len(embeddings)).masked_fill(unread, -1e4)  # added to the logits of unread tokens
    for step, update in enumerate(updates(recipe, model, recipe.steps)):
        inputs, labels = next_batch(step)
        hidden = model.model(input_ids=inputs).last_hidden_state
        logits = F.linear(hidden, embeddings, never)
        update(F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    with torch.no_grad():
        directions = F.normalize(torch.randn_like(embeddings[unread]), dim=1)
        embeddings[unread] = directions * embeddings[~unread].norm(dim=1).mean()


def windows(text: torch.Tensor, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`batch` windows of `length` tokens from random places of the text, and the same one token on."""
    import torch

    starts = torch.randint(len(text) - length, (batch, 1))
    windows = text[starts + torch.arange(length + 1)]
    return windows[:, :-1], windows[:, 1:]


def updates(
    recipe: Recipe, module: torch.nn.Module, steps: int, extra: Iterable[torch.nn.Parameter] = ()
) -> Iterator[Callable[[torch.Tensor], None]]:
    """For each step a function that takes the loss, updates all of the module (and `extra`) and prints the loss.

    Muon for the layers' matrices (learns arithmetic that AdamW alone does not), AdamW for all else. The rates
    rise for 20 steps, then fall straight to a twentieth.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class InFloat32(TorchFunctionMode):
        """Muon casts to bfloat16, which a CPU without instructions for it multiplies eighty times as slowly."""

        def __torch_function__(self, function, types, args=(), kwargs=None):
            return args[0].clone() if function is torch.Tensor.bfloat16 else function(*args, **(kwargs or {}))

    matrices = [p for n, p in module.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in module.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=recipe.matrix_lr, adjust_lr_fn="match_rms_adamw", weight_decay=0.01),
        torch.optim.AdamW([*others, *extra], lr=recipe.other_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 20) * max(0.05, 1 - step / steps)

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]

    def update(loss: torch.Tensor) -> None:
        loss.backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            with InFloat32():
                optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        print(f"{STEP}{loss.item():.4f}", flush=True)

    module.train()
    for _ in range(steps):
        yield update
    module.eval()
