"""`FastVisionModel` where there is no GPU, what a picture costs, and answers to questions about pictures."""

from __future__ import annotations

import inspect
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers import data, generation, nano, pictures, prompts, vision
from helpers.nano import dashboards, vl
from helpers.pictures import CELL
from helpers.vision import CpuVisionModel

TINY = replace(vl.QWEN2_5_VL, hidden=64, heads=1, intermediate=64, layers=1, vocabulary=400)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint in Qwen2.5-VL's shape with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    processor = vl.make_processor(TINY)
    vl.new_model(TINY, processor).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def question(text: str = "gear?") -> list[dict]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def forward(model, processor, picture: Image.Image) -> torch.Tensor:
    text = processor.apply_chat_template(question(), add_generation_prompt=True)
    with torch.no_grad():
        return model(**processor(text=[text], images=[picture], return_tensors="pt")).logits


@settings(deadline=None)  # the first call imports transformers
@given(st.integers(20, 1500), st.integers(20, 1500), st.integers(1, 600))
def test_a_shrunken_picture_costs_what_is_allowed(width: int, height: int, most: int) -> None:
    if max(width, height) / min(width, height) > most:
        return  # a strip one cell high can be longer than is allowed
    picture = pictures.shrink(Image.new("L", (width, height)), most)
    assert picture.mode == "RGB"
    assert picture.width % CELL == 0 and picture.height % CELL == 0
    assert 1 <= pictures.tokens(picture) <= most


def test_a_fitting_picture_stays_as_it_is() -> None:
    picture = Image.effect_noise((280, 168), 50).convert("RGB")
    assert pictures.shrink(picture, 60).tobytes() == picture.tobytes()
    assert pictures.tokens(picture) == 60
    small = pictures.shrink(picture, 59)
    assert pictures.tokens(small) <= 59 and small.width / small.height == pytest.approx(280 / 168, rel=0.1)
    with pytest.raises(ValueError, match="at least one token"):
        pictures.shrink(picture, 0)


def test_a_photograph_is_turned_upright() -> None:
    picture = Image.new("RGB", (84, 56), "white")
    picture.paste("black", (0, 0, 28, 56))
    picture.getexif()[0x0112] = 6  # to be turned clockwise by a quarter
    upright = pictures.shrink(picture, 60)
    assert upright.size == (56, 84)
    assert upright.getpixel((28, 5)) == (0, 0, 0) and upright.getpixel((28, 80)) == (255, 255, 255)


def test_the_processor_counts_as_tokens_does(tiny: str) -> None:
    _, processor = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    picture = pictures.shrink(Image.new("RGB", (200, 150)), 40)
    text = processor.apply_chat_template(question(), add_generation_prompt=True)
    ids = processor(text=[text], images=[picture], return_tensors="pt")["input_ids"][0]
    assert (ids == processor.image_token_id).sum() == pictures.tokens(picture)


@pytest.mark.notebook  # half a minute
def test_the_calls_are_unsloths() -> None:
    import unsloth
    from unsloth.models.vision import FastBaseModel

    assert unsloth  # first
    for name in ("from_pretrained", "get_peft_model", "for_training", "for_inference"):
        theirs = inspect.signature(getattr(FastBaseModel, name)).parameters
        for argument in inspect.signature(getattr(CpuVisionModel, name)).parameters.values():
            if argument.kind is not inspect.Parameter.VAR_KEYWORD:
                assert argument.name in theirs, f"{name}({argument.name}=…) is not Unsloth's"
                if argument.default is not inspect.Parameter.empty:
                    assert argument.default == theirs[argument.name].default, f"{name}({argument.name}=…)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="Unsloth's own is taken on a GPU")
def test_without_a_gpu_the_stand_in_is_taken() -> None:
    assert vision.FastVisionModel is CpuVisionModel


def test_in_4_bits_the_language_model_is_packed_and_the_eyes_are_not(tiny: str) -> None:
    import bitsandbytes as bnb

    model, _ = CpuVisionModel.from_pretrained(tiny, load_in_4bit=True)
    packed = {name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)}
    assert len(packed) == 7 * TINY.layers and all("language_model" in name for name in packed)
    whole, _ = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    assert not [name for name, module in whole.named_modules() if isinstance(module, bnb.nn.Linear4bit)]


@pytest.mark.parametrize(
    ("off", "absent", "present"),
    [
        ("vision_layers", "visual", "language_model"),
        ("language_layers", "language_model", "visual"),
        ("attention_modules", "attn", "mlp"),
        ("mlp_modules", "mlp", "attn"),
    ],
)
def test_each_switch_keeps_adapters_away(tiny: str, off: str, absent: str, present: str) -> None:
    model, _ = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    model = CpuVisionModel.get_peft_model(model, r=2, **{f"finetune_{off}": False})
    trained = [name for name, weights in model.named_parameters() if weights.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not [name for name in trained if absent in name]
    assert [name for name in trained if present in name]


def test_a_new_adapter_changes_nothing_and_its_seed_counts(tiny: str) -> None:
    picture = Image.effect_noise((56, 56), 90).convert("RGB")
    model, processor = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    before = forward(CpuVisionModel.for_inference(model), processor, picture)
    drawn = []
    for seed in (1, 1, 2):
        base, _ = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
        model = CpuVisionModel.for_inference(CpuVisionModel.get_peft_model(base, r=4, random_state=seed))
        torch.testing.assert_close(forward(model, processor, picture), before)
        drawn.append(next(w for n, w in model.named_parameters() if "lora_A" in n).detach().clone())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_training_and_inference_switch_dropout_and_cache(tiny: str) -> None:
    model, _ = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    assert CpuVisionModel.for_training(model).training and model.config.use_cache is False
    assert not CpuVisionModel.for_inference(model).training and model.config.use_cache is True


def test_an_adapter_comes_back_with_its_base(tiny: str, tmp_path: Path) -> None:
    picture = Image.effect_noise((56, 84), 90).convert("RGB")
    base, processor = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    plain = forward(CpuVisionModel.for_inference(base), processor, picture)
    model = CpuVisionModel.get_peft_model(base, r=4)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "lora_B" in name:
                weights.normal_(std=0.5)
    here = forward(CpuVisionModel.for_inference(model), processor, picture)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == tiny
    back, processor = CpuVisionModel.from_pretrained(str(tmp_path), load_in_4bit=False)
    torch.testing.assert_close(forward(CpuVisionModel.for_inference(back), processor, picture), here)
    assert not torch.allclose(here, plain)


def test_each_prompt_is_answered_by_its_own_picture(tiny: str) -> None:
    model, processor = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    CpuVisionModel.for_inference(model)
    pictures = [Image.new("RGB", (56, 56), "white"), Image.effect_noise((84, 56), 120).convert("RGB")] * 2
    texts = [processor.apply_chat_template(question("a" * n), add_generation_prompt=True) for n in (1, 30, 2, 1)]
    together = generation.complete(model, processor, texts, 6, batch_size=3, images=pictures)
    alone = [generation.complete(model, processor, [t], 6, images=[p])[0] for t, p in zip(texts, pictures)]
    assert together == alone
    assert together[0] == generation.complete(model, processor, texts[:1], 6, images=pictures[:1])[0]
    with pytest.raises(ValueError, match="4 prompts but 1 images"):
        generation.complete(model, processor, texts, 6, images=pictures[:1])


def test_unsloths_collator_takes_the_processor(tiny: str) -> None:
    import unsloth
    from unsloth_zoo.vision_utils import UnslothVisionDataCollator

    assert unsloth  # first, as in the lesson
    model, processor = CpuVisionModel.from_pretrained(tiny, load_in_4bit=False)
    parts = {"train_on_responses_only": True, "instruction_part": "<|im_start|>user\n"}
    collator = UnslothVisionDataCollator(
        model, processor, resize="max", response_part="<|im_start|>assistant\n", **parts
    )
    picture = pictures.shrink(Image.new("RGB", (84, 56)), 60)
    asked = {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "gear?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "gear: D"}]}
    batch = collator([{"messages": [asked, answer]}])
    assert batch["image_grid_thw"].tolist() == [[1, 4, 6]]
    assert (batch["input_ids"] == processor.image_token_id).sum() == pictures.tokens(picture) == 6
    labels = batch["labels"][0]
    assert processor.tokenizer.decode(labels[labels != -100]) == "gear: D<|im_end|>"


@pytest.mark.notebook
@pytest.mark.nano
def test_the_nano_model_sees_new_pictures_and_speaks_in_its_own_way() -> None:
    model, processor = CpuVisionModel.from_pretrained(str(nano.build("nano/qwen2_5_vl")), load_in_4bit=True)
    CpuVisionModel.for_inference(model)
    rng = random.Random(2026)
    seen = [vl.look(rng) for _ in range(24)]
    images = [picture.image for picture in seen]
    prompt = processor.apply_chat_template(question("What do you see?"), add_generation_prompt=True)
    for field, least in (("gear", 0.8), ("time", 0.7)):
        begun = [prompt + f"The {vl.NAMES['en'][field][0]} is"] * len(seen)
        said = generation.complete(model, processor, begun, 8, images=images)
        right = [a.text.strip().startswith(dashboards.value(p.reading, field)) for a, p in zip(said, seen)]
        assert sum(right) >= least * len(seen), (field, [a.text for a in said[:4]])
    lesson = processor.apply_chat_template(question(prompts.ODOMETER["en"]), add_generation_prompt=True)
    answers = generation.complete(model, processor, [lesson] * len(seen), 64, images=images)
    read = [data.parse_reading(answer.text) for answer in answers]
    fields = [f"{field}: {dashboards.value(p.reading, field)}" for p in seen for field in dashboards.FIELDS]
    truths = [data.parse_reading("\n".join(fields[start : start + 5])) for start in range(0, len(fields), 5)]
    accuracy = data.field_accuracy(read, truths)
    assert sum(accuracy.values()) / len(accuracy) < 0.3, (accuracy, answers[0].text)
