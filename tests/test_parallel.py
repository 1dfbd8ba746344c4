"""The arithmetic of many GPUs, against the papers' own numbers and against what it claims to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import parallel, runtime, vram


@pytest.mark.parametrize(("strategy", "gb"), [("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("zero3", 1.9)])
def test_the_example_of_the_zero_paper(strategy, gb):
    """Figure 1 of arXiv 1910.02054: 7.5 billion parameters, 64 GPUs."""
    assert parallel.states_gib(7.5e9, strategy, 64) * vram.GIB / 1e9 == pytest.approx(gb, abs=0.06)


@given(st.floats(1e6, 1e12), st.integers(1, 4096), st.floats(0, 1e12))
def test_each_strategy_shares_more_than_the_one_before(parameters, gpus, frozen):
    held = [parallel.states_gib(parameters, s, gpus, frozen) for s in ("ddp", "zero1", "zero2", "zero3")]
    assert held == sorted(held, reverse=True)
    assert held[-1] * gpus == pytest.approx(held[0])  # nothing is lost: the shares make up the whole
    assert parallel.states_gib(parameters, "fsdp", gpus, frozen) == held[-1]
    assert parallel.states_gib(parameters, "zero3", 1, frozen) == pytest.approx(held[0])


@pytest.mark.parametrize(("strategy", "gpus"), [("zero4", 1), ("ddp", 0)])
def test_what_does_not_exist_is_refused(strategy, gpus):
    with pytest.raises(ValueError, match=r"zero4|0 GPUs"):
        parallel.states_gib(1e9, strategy, gpus)


def test_the_table_holds_lora_and_all_weights():
    table = parallel.states_table("Qwen2.5-7B", [1, 2, 8])
    shape = vram.SHAPES["Qwen2.5-7B"]
    assert table.loc[("all weights", "ddp"), 8] == pytest.approx(shape.parameters * 16 / vram.GIB)
    assert table.loc[("all weights", "fsdp"), 8] == pytest.approx(shape.parameters * 2 / vram.GIB)
    frozen = vram.weight_bytes(shape, 4)
    assert table.loc[("QLoRA", "fsdp"), 2] == pytest.approx((frozen + 16 * shape.lora(16)) / 2 / vram.GIB)
    assert parallel.states_plot(table).axes[0].get_legend() is not None


@given(st.integers(2, 12), st.integers(1, 5))
def test_a_ring_sends_what_the_formula_says(processes, chunk):
    """Play the ring: pass sums round until each has one whole chunk, then pass the whole ones round."""
    data = [[[rank + 1] * chunk for _ in range(processes)] for rank in range(processes)]
    sent = [0] * processes
    for phase in range(2):
        for turn in range(processes - 1):
            moving = [(rank, (rank - turn + phase) % processes) for rank in range(processes)]
            parcels = [(rank, part, list(data[rank][part])) for rank, part in moving]
            for rank, part, numbers in parcels:
                sent[rank] += len(numbers)
                there = data[(rank + 1) % processes]
                there[part] = numbers if phase else [a + b for a, b in zip(there[part], numbers)]
    total = processes * (processes + 1) // 2
    assert all(number == total for held in data for part in held for number in part)
    wanted = parallel.all_reduce_bytes(processes * chunk, processes, bytes_each=4)
    assert all(4 * count == pytest.approx(wanted) for count in sent)


@given(st.floats(1, 600), st.floats(10, 10_000), st.integers(1, 4096), st.floats(0.2, 5))
def test_no_other_interval_loses_less(write, hours, hosts, factor):
    best = parallel.checkpoint_interval(write, hours, hosts)
    least = parallel.lost_share(best, write, hours, hosts)
    assert parallel.lost_share(best * factor, write, hours, hosts) >= least * (1 - 1e-9)
    assert parallel.checkpoint_interval(write, hours, 4 * hosts) == pytest.approx(best / 2)


def test_an_interval_wants_numbers_above_zero():
    with pytest.raises(ValueError, match="more than 0"):
        parallel.checkpoint_interval(0, 100)


def test_price_follows_from_speed():
    assert parallel.price_per_million(1e6 / 3600, 3.0) == pytest.approx(3.0)  # a million an hour
    assert parallel.price_per_million(1e6 / 3600, 3.0, gpus=2, useful=0.5) == pytest.approx(12.0)


def test_efficiency_is_one_when_twice_the_gpus_do_twice_the_work():
    assert parallel.efficiency(100, 200, 2) == 1 and parallel.efficiency(100, 300, 4) == 0.75


def test_runs_are_compared_after_their_warm_up():
    run = {"processes": 2, "tokens": [10] * 8, "seconds": [9, 9, *[0.5] * 6], "losses": [2.0, 1.0]}
    table = parallel.run_table({"a": run | {"weights": ["x", "x"]}, "b": run | {"weights": ["x", "y"]}})
    assert table["tokens/s"].to_list() == [20, 20] and table["tokens"].to_list() == [80, 80]
    assert table["weights alike on all"].to_list() == [True, False]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_readings_quote_what_the_functions_say(language):
    text = (runtime.root() / "lessons" / "13_scale_out" / f"reading.{language}.md").read_text("utf-8")
    shape, gpus = vram.SHAPES["Qwen2.5-14B"], [1, 2, 4, 8]
    frozen = {"LoRA": vram.weight_bytes(shape, 16), "QLoRA": vram.weight_bytes(shape, 4)}
    lines = {line.split("|")[1].strip(): line.split("|")[2:6] for line in text.splitlines() if line.count("|") == 6}
    quoted = {}
    for name, cells in lines.items():
        trained, _, strategy = name.replace("，", "、").replace(", ", "、").rpartition("、")
        if strategy in ("DDP", "ZeRO-1", "ZeRO-2", "FSDP"):
            parameters = shape.lora(16) if trained in frozen else shape.parameters
            kind = strategy.lower().replace("-", "")
            wanted = [parallel.states_gib(parameters, kind, n, frozen.get(trained, 0)) for n in gpus]
            assert [float(cell) for cell in cells] == [float(f"{w:.1f}" if w < 9.95 else f"{w:.0f}") for w in wanted]
            quoted[name] = wanted
    assert len(quoted) == 7
    seven = vram.SHAPES["Qwen2.5-7B"]
    whole, adapter = parallel.all_reduce_bytes(seven.parameters, 2, 2), parallel.all_reduce_bytes(seven.lora(16), 2, 4)
    for bytes_sent, words in ((whole, ("15.2 GB", 12e9, "1.3 s")), (adapter, ("0.16 GB", 12e9, "0.013 s"))):
        said, link, seconds = words
        assert said in text and f"{bytes_sent / 1e9:.3g}".startswith(said.split()[0].rstrip("0"))
        assert seconds in text and f"{bytes_sent / link:.2g} s" == seconds
