"""The estimate of GPU memory: against measured peaks, against known sizes, and against itself."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import vram
from helpers.memory import estimate_vram
from helpers.runtime import root

RECORD = root() / "benchmarks" / "records" / "vram_h200.json"
MEASURED = vram.measured(RECORD)


def name(row):
    return "-".join(
        str(row[key]) for key in ("model", "method", "engine", "bits", "optimizer", "batch", "length", "rank")
    )


@pytest.mark.parametrize("row", MEASURED, ids=name)
def test_within_15_percent_of_every_measured_peak(row):
    assert abs(row["error"]) <= 0.15, f"{row['estimate_gib']} GiB estimated, {row['peak_gib']} measured"


def test_the_record_covers_what_is_claimed():
    seen = {(row["method"], row["engine"], row["bits"]) for row in MEASURED}
    assert {("qlora", "unsloth", 4), ("lora", "unsloth", 16), ("qlora", "plain", 4), ("lora", "plain", 16)} <= seen
    assert {("full", "plain", 16), ("full", "plain", 32), ("inference", "plain", 16), ("inference", "plain", 4)} <= seen
    assert {row["checkpointing"] for row in MEASURED} == {True, False}
    assert len(MEASURED) >= 30


@pytest.mark.parametrize("row", MEASURED, ids=name)
def test_parameters_are_counted_to_the_last_bias(row):
    shape = vram.SHAPES[row["model"]]
    adapter = shape.lora(row["rank"]) if row["method"] in ("lora", "qlora") else 0
    assert shape.parameters + adapter == row["parameters"]
    if row["method"] != "inference":
        assert row["trainable"] == (adapter or shape.parameters)


@pytest.mark.parametrize(
    ("model", "parameters"),  # as the models' own cards and checkpoints have them
    [("Llama-3.1-8B", 8_030_261_248), ("Llama-3.1-70B", 70_553_706_496), ("Qwen2.5-72B", 72_706_203_648)],
)
def test_published_parameter_counts(model, parameters):
    assert vram.SHAPES[model].parameters == parameters


@pytest.mark.parametrize("row", [row for row in MEASURED if row["method"] in ("inference", "qlora", "lora")], ids=name)
def test_weights_are_what_loading_took(row):
    assert vram.weight_bytes(vram.SHAPES[row["model"]], row["bits"]) / vram.GIB == pytest.approx(
        row["loaded_gib"], rel=0.01, abs=0.04
    )  # buffers


def test_nf4_with_double_quantization_takes_4_127_bits():
    assert 8 * vram.NF4 == pytest.approx(4.127, abs=0.001)


def test_kv_cache_of_one_token():
    """2 (keys, values) × 28 layers × 512 numbers × 2 bytes: 56 KiB a token for Qwen2.5-7B."""
    one = estimate_vram("Qwen2.5-7B", "inference", batch=1, length=1)
    more = estimate_vram("Qwen2.5-7B", "inference", batch=1, length=1, new_tokens=1024)
    assert (more.kv_cache - one.kv_cache) * vram.GIB / 1024 == pytest.approx(56 * 1024)


def test_32_bit_inference_takes_twice_16_bit():
    one, other = (estimate_vram("Qwen2.5-0.5B", "inference", bits=bits) for bits in (16, 32))
    for part in ("weights", "kv_cache", "activations"):
        assert vars(other)[part] == pytest.approx(2 * vars(one)[part])


def test_full_fine_tuning_is_4_to_5_times_inference():
    for model in ("Qwen2.5-3B", "Qwen2.5-7B", "Llama-3.1-8B", "Qwen2.5-14B"):
        full = estimate_vram(model, "full", optimizer="adamw").total
        assert 4 <= full / estimate_vram(model, "inference").total <= 5


def test_mixed_precision_keeps_16_bytes_a_parameter():
    """4 of weight, 4 of gradient, 8 of moments; torch's default AdamW adds a passing copy, the fused one does not."""
    shape = vram.SHAPES["Qwen2.5-7B"]
    fused = estimate_vram(shape, "full", bits=32, optimizer="adamw_fused")
    assert (fused.weights + fused.gradients + fused.optimizer) * vram.GIB == pytest.approx(16 * shape.parameters)
    default = estimate_vram(shape, "full", bits=32, optimizer="adamw")
    assert (default.optimizer - fused.optimizer) * vram.GIB == pytest.approx(4 * shape.parameters)


METHODS = st.sampled_from(["inference", "qlora", "lora", "full"])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(vram.SHAPES)), METHODS, st.integers(1, 8), st.integers(1, 8192), st.booleans())
def test_more_never_takes_less_and_the_peak_lies_between_its_parts(model, method, batch, length, checkpointing):
    given_settings = {"batch": batch, "length": length, "checkpointing": checkpointing}
    here = estimate_vram(model, method, **given_settings)
    for more in ({"batch": batch + 1}, {"length": length + 1}, {"checkpointing": False}):
        assert estimate_vram(model, method, **(given_settings | more)).total >= here.total - 1e-9
    parts = {key: value for key, value in vars(here).items() if key != "total"}
    assert all(value >= 0 for value in parts.values())
    assert max(parts.values()) <= here.total <= sum(parts.values()) + 1e-9


def test_a_config_gives_the_shape(tmp_path):
    config = {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False,
    }  # fmt: skip
    assert vram.read_shape(config) == vram.SHAPES["Qwen2.5-7B"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert vram.read_shape(tmp_path) == vram.read_shape(str(tmp_path / "config.json")) == vram.SHAPES["Qwen2.5-7B"]
    vision = {"model_type": "qwen2_5_vl", "text_config": config | {"model_type": "qwen2_5_vl_text"}}
    assert vram.read_shape(vision) == vram.SHAPES["Qwen2.5-7B"]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("Qwen9", "neither a config.json nor one of Qwen2.5-0.5B"),
        ({"hidden_size": 8}, "no intermediate_size"),
        ({"text_config": [8]}, "is a list, not an object"),
    ],
)
def test_an_unknown_shape_is_refused(model, says):
    with pytest.raises(vram.ShapeError, match=says):
        vram.read_shape(model)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b'{"hidden_size": 35', "cannot be read as JSON"), (b"\xff", "cannot be read as JSON"), (b"[]", "is a list")],
)
def test_a_broken_config_is_refused(content, says, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(vram.ShapeError, match=says):
        vram.read_shape(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "prefix"},
        {"engine": "trl"},
        {"optimizer": "sgd"},
        {"method": "qlora", "bits": 16},
        {"method": "full", "bits": 4},
        {"batch": 0},
        {"rank": 0},
    ],
)
def test_what_does_not_exist_is_refused(settings):
    with pytest.raises(ValueError, match=r"unknown (method|engine|optimizer)|does not exist|must be 1 or more"):
        estimate_vram("Qwen2.5-7B", **settings)


def test_a_card_must_hold_the_cuda_context_too():
    need = estimate_vram("Qwen2.5-7B", "qlora")
    assert need.fits(need.total + vram.CONTEXT_GIB) and not need.fits(need.total + vram.CONTEXT_GIB - 0.01)
