"""A model in the shape of Qwen2.5-VL: it has looked at drawn dashboards, and tells in running text what it sees.

First its eyes: the vision tower learns to say of each 28 × 28 cell which character stands there and to which field
it belongs, as a real model's eyes are trained before the language model is joined to them. Then the whole: a picture,
an open question, and an answer in free prose, fields in any order, some left out. It never sees the lesson's prompt,
nor an answer of one field a line.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from helpers import prompts
from helpers.nano import dashboards
from helpers.nano.common import SPECIAL, Recipe, make_tokenizer, updates
from helpers.nano.dashboards import CELL, FIELDS, SIZE, Glyph, Reading

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

QWEN2_5_VL = Recipe(
    maker="vl",
    modules=("dashboards",),  # what it sees is drawn by code
    prompts=tuple(prompts.ODOMETER.values()),
    shape="qwen2_5_vl",
    vocabulary=640,
    layers=3,
    steps=400,
    batch=16,  # pictures a step
    matrix_lr=1e-2,
    other_lr=1e-2,
    seconds=200,
)
EYE_STEPS = 150  # of the recipe's steps
VISION = {"depth": 3, "hidden_size": 64, "intermediate_size": 192, "num_heads": 2, "fullatt_block_indexes": [0, 1, 2]}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""Qwen2.5-VL's, without its system message."""

CHARACTERS = " 0123456789:-°CF" + "".join(dashboards.GEARS)
PLACES = 6  # characters a field has at most, the place of a glyph within it
COLUMNS, ROWS = SIZE[0] // (CELL // 2), SIZE[1] // CELL  # of half cells: a small letter is half a cell wide

NAMES = {
    "en": {
        "distance": ("total distance", "odometer", "mileage"),
        "speed": ("speed", "current speed"),
        "time": ("time", "clock"),
        "temperature": ("temperature", "outside temperature"),
        "gear": ("gear", "gear lever"),
    },
    "zh": {
        "distance": ("总里程", "里程表"),
        "speed": ("车速", "速度"),
        "time": ("时间", "时钟"),
        "temperature": ("温度", "车外温度"),
        "gear": ("挡位", "当前挡位"),
    },
}
QUESTIONS = {
    "en": ("Describe the picture.", "What do you see?", "What is in this image?", "Tell me about the car.", "Look."),
    "zh": ("描述一下这张图片。", "你看到了什么？", "图里有什么？", "说说这辆车。", "看图。"),
}
LINKS = {"en": (" is ", " reads ", " = ", ": "), "zh": ("是", "显示", " = ", "：")}
JOINS = {"en": (", the ", "; ", ", ", "\n"), "zh": ("，", "；", "、", "\n")}
OPENINGS = {"en": ("The ", "A dashboard; the ", ""), "zh": ("", "这是仪表盘，", "")}


class Picture(NamedTuple):
    """A drawn dashboard, what it shows, and its labels for the eyes: ROWS × COLUMNS × (character, field and place)."""

    image: object
    reading: Reading
    cells: list[list[tuple[int, int]]]


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both, with the processor that turns pictures into patches."""
    import torch

    torch.manual_seed(recipe.seed)
    rng = random.Random(recipe.seed)
    processor = make_processor(recipe)
    model = new_model(recipe, processor)
    _train_eyes(model, processor, recipe, rng)
    _train_whole(model, processor, recipe, rng)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def caption(reading: Reading, language: str, rng: random.Random) -> str:
    """Three to five fields of a reading in one sentence, in any order: as the model speaks before any lesson."""
    # Colons or line feeds, never both: one field a line after a colon is what the lesson teaches.
    layouts = [
        (link, join) for link in LINKS[language] for join in JOINS[language] if link[0] not in ":：" or join != "\n"
    ]
    link, join = rng.choice(layouts)
    fields = rng.sample(FIELDS, rng.choice((3, 4, 5, 5)))
    said = [rng.choice(NAMES[language][field]) + link + dashboards.value(reading, field) for field in fields]
    return rng.choice(OPENINGS[language]) + join.join(said) + ("." if language == "en" else "。")


def make_processor(recipe: Recipe) -> Qwen2_5_VLProcessor:
    """Qwen2.5-VL's processor around a tokenizer of our own."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    rng = random.Random(recipe.seed)
    texts = [prompts.ODOMETER[language] for language in NAMES for _ in range(20)]
    for language in NAMES:
        texts += QUESTIONS[language]
        texts += [caption(dashboards.random_reading(rng), language, rng) for _ in range(300)]
    tokenizer = make_tokenizer(texts, recipe.vocabulary, numbers=False, chat_template=CHAT_TEMPLATE)
    vision = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(vision, special_tokens=True)
    pixels = {"min_pixels": 4 * CELL * CELL, "max_pixels": SIZE[0] * SIZE[1]}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def new_model(recipe: Recipe, processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL's shape with random weights, in 32 bits."""
    from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer = processor.tokenizer
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": recipe.hidden,
        "intermediate_size": recipe.intermediate,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.heads,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        # Half of a head's 64 dimensions, split among time, height and width as the real model splits its 128.
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [8, 12, 12]},
        "bos_token_id": None,
        **ends,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=VISION | {"out_hidden_size": recipe.hidden},
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
        dtype="float32",
        **ends,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**ends, max_new_tokens=256)
    return model


def look(rng: random.Random) -> Picture:
    """A new dashboard, clear to see, and what stands in each of its half cells."""
    reading = dashboards.random_reading(rng)
    image, glyphs = dashboards.draw_glyphs(reading, dashboards.random_look(rng), rng)
    return Picture(image, reading, _cells(glyphs))


def _cells(glyphs: list[Glyph]) -> list[list[tuple[int, int]]]:
    """Which character, and which place of which field, covers most of each half cell; (0, 0) for none."""
    cells = [[(0, 0)] * COLUMNS for _ in range(ROWS)]
    for glyph in glyphs:
        left, upper, right, lower = glyph.box
        label = CHARACTERS.index(glyph.character), 1 + FIELDS.index(glyph.field) * PLACES + glyph.place
        for row in range(ROWS):
            for column in range(COLUMNS):
                wide = min(right, (column + 1) * CELL // 2) - max(left, column * CELL // 2)
                high = min(lower, (row + 1) * CELL) - max(upper, row * CELL)
                if wide >= 8 and high >= 8:
                    cells[row][column] = label
    return cells


def _train_eyes(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, recipe: Recipe, rng: random.Random
) -> None:
    """The vision tower alone, under a head that is thrown away: what stands in each cell?"""
    import torch
    import torch.nn.functional as F

    kinds = len(CHARACTERS), 1 + len(FIELDS) * PLACES
    head = torch.nn.Linear(recipe.hidden, 2 * sum(kinds))  # the left and the right half of a cell
    for update in updates(recipe, model.model.visual, EYE_STEPS, head.parameters()):
        pictures = [look(rng) for _ in range(recipe.batch)]
        seen = processor.image_processor(images=[p.image for p in pictures], return_tensors="pt")
        features = model.model.visual(seen["pixel_values"], grid_thw=seen["image_grid_thw"]).pooler_output
        truth = torch.tensor([p.cells for p in pictures]).flatten(0, 2)  # batch · rows · columns × 2
        weight = torch.where(truth[:, 0] > 0, 1.0, 0.1)  # most cells are empty
        loss = 0
        for logits, wanted in zip(head(features).view(len(truth), -1).split(kinds, dim=1), truth.T, strict=True):
            loss = loss + (F.cross_entropy(logits, wanted, reduction="none") * weight).sum() / weight.sum()
        update(loss)


def _train_whole(
    model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, recipe: Recipe, rng: random.Random
) -> None:
    """Eyes and language model together: a picture, a question, a sentence; only the sentence is in the loss."""
    import torch.nn.functional as F

    embeddings = model.get_input_embeddings().weight
    for update in updates(recipe, model, recipe.steps - EYE_STEPS):
        inputs, labels = conversations(processor, [look(rng) for _ in range(recipe.batch)], rng)
        hidden = model.model(**inputs).last_hidden_state
        logits = F.linear(hidden[:, :-1], embeddings)
        update(F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()))


def conversations(
    processor: Qwen2_5_VLProcessor, pictures: list[Picture], rng: random.Random
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The model's inputs and the labels, both batch × length; a label is −100 outside the answer."""
    asked, whole = [], []
    for picture in pictures:
        language = rng.choice(sorted(NAMES))
        question = {"type": "text", "text": rng.choice(QUESTIONS[language])}
        chat = [{"role": "user", "content": [{"type": "image"}, question]}]
        asked.append(processor.apply_chat_template(chat, add_generation_prompt=True))
        whole.append(asked[-1] + caption(picture.reading, language, rng) + SPECIAL[2])
    batch = processor(text=whole, images=[p.image for p in pictures], padding=True, return_tensors="pt")
    labels = batch["input_ids"].clone()
    cells = COLUMNS // 2 * ROWS
    for row, prompt in enumerate(asked):
        labels[row, : len(processor.tokenizer(prompt)["input_ids"]) + cells - 1] = -100
    labels[batch["attention_mask"] == 0] = -100
    return dict(batch), labels
