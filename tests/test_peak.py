"""What holds the memory at the peak of a step, from a history of allocations."""

from __future__ import annotations

from tools.bench import peak, tables


def event(action: str, addr: int, gib: float, *calls: str) -> dict:
    frames = [dict(zip(("filename", "name"), call.split(":"))) for call in calls]
    return {"action": action, "addr": addr, "size": int(gib * peak.GIB), "frames": frames}


STEP = [
    event("segment_alloc", 1, 9),  # torch's stock, not what is used of it
    event("alloc", 1, 1, "/site/torch/nn/functional.py:linear", "/site/models/qwen2.py:forward"),
    event("alloc", 2, 2, "/site/kernels/utils.py:fast_dequantize", "/site/models/qwen2.py:forward"),
    event("free_requested", 2, 2),
    event("free_completed", 2, 2),
    event("free_completed", 99, 0.5),  # older than the history
    event("alloc", 2, 3, "/site/kernels/cross_entropy.py:forward"),  # the peak; the address is another block's now
    event("free_completed", 1, 1),
    event("alloc", 4, 0.5),
    event("alloc", 5, 0.25, "/site/torch/utils/checkpoint.py:unpack_hook", "/site/models/qwen2.py:forward"),
]


def test_the_peak_is_found_and_what_was_held_then():
    before, since = peak.at_peak(STEP, 5 * peak.GIB)
    assert before == 4.5 * peak.GIB
    assert sorted(size / peak.GIB for size in since.values()) == [1, 3]
    told = peak.kinds(before, since, 4 * peak.GIB)
    assert told | {"weights_gib": 4.0, "between_steps_gib": 0.5, "kept_gib": 1.0, "loss_gib": 3.0} == told
    assert told["peak_gib"] == 8.5 and told["unpacked_gib"] == told["gradients_gib"] == 0
    assert told["places"] == {"site/kernels/cross_entropy.py:forward": 3.0,
                              "site/models/qwen2.py:forward": 1.0}  # fmt: skip


def test_the_backward_pass_is_told_from_the_forward():
    before, since = peak.at_peak(STEP[-2:], 5 * peak.GIB)
    told = peak.kinds(before, since, 4 * peak.GIB)
    assert (before, told["gradients_gib"], told["recomputed_gib"]) == (5 * peak.GIB, 0.5, 0.25)
    assert told["kept_gib"] == 0 and set(told["places"]) == {"the backward pass", "site/models/qwen2.py:forward"}


def test_what_a_4_bit_layer_returns_is_no_unpacked_weight():
    layer = ("/site/bitsandbytes/autograd/_functions.py:forward", "/site/bitsandbytes/nn/modules.py:forward")
    unpacking = ("/site/bitsandbytes/functional.py:dequantize_4bit", *layer)
    _, since = peak.at_peak([event("alloc", 1, 1, *layer), event("alloc", 2, 2, *unpacking)], 0)
    told = peak.kinds(0, since, 0)
    assert (told["kept_gib"], told["unpacked_gib"]) == (1, 2)


def test_a_place_names_no_folder_of_the_machine(monkeypatch):
    monkeypatch.setattr("sys.path", ["/home/a", "/home/a/site", ""])
    calls = {
        "/home/a/site/unsloth_zoo/checkpoints.py:backward": "unsloth_zoo/checkpoints.py:backward",
        "/home/a/compiled_cache/layer.py:forward": "compiled_cache/layer.py:forward",
        "/tmp/torchinductor_a/cg/ccgkk.py:call": "compiled by torch",
        "/tmp/torchinductor_a/iq/ciqrt.py:call": "compiled by torch",
    }
    _, since = peak.at_peak([event("alloc", n, 1, call) for n, call in enumerate(calls)], 0)
    assert peak.kinds(0, since, 0)["places"].keys() == {*calls.values()}


def test_without_an_allocation_the_peak_is_what_was_there():
    assert peak.at_peak([event("free_completed", 7, 1)], 5 * peak.GIB) == (5 * peak.GIB, {})


def test_the_table_shows_every_kind_by_name():
    columns = {*tables.COLUMNS["sft_memory"]} - {"name"}
    assert columns | {"places"} == {*peak.kinds(0, {}, 0)} and tables.HEADINGS.keys() >= columns
