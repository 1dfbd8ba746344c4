"""The benches' records and what is worked out from them; the measuring itself needs a GPU."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from helpers.runtime import NotEnough
from helpers.vram import SHAPES
from tools.bench import (
    attention,
    first_loss,
    grpo,
    inference,
    medical,
    peak,
    plots,
    records,
    scale,
    sft,
    sft_vision,
    suite,
    tables,
    training,
    vram,
    weights,
)
from tools.lessons import ROOT, LessonError, load_course

RECORDS = ROOT / "benchmarks" / "records"


def rows_of(record: str) -> dict[str, dict]:
    rows = json.loads((RECORDS / f"{record}.json").read_text(encoding="utf-8"))["rows"]
    return {row["name"]: row for row in rows}


def assert_told(lesson: str, figures: list[str]) -> None:
    """Each figure stands in a page of the lesson, in both languages."""
    for language in ("en", "zh"):
        text = "".join(page.read_text("utf-8") for page in (ROOT / "lessons" / lesson).glob(f"*.{language}.md"))
        assert [figure for figure in figures if figure not in text] == [], language


@pytest.mark.parametrize("path", sorted(RECORDS.glob("sft*.json")), ids=lambda path: path.stem)
def test_the_sft_records_are_of_sides_that_the_bench_has(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    known = [
        *sft.sides(), *sft.profiled(), *sft.held(), *sft_vision.sides(), *sft_vision.profiled(), *sft_vision.held(),
        *(side for model in sft.SHAPES for some in (sft.sides_of, sft.profiled) for side in some(model)),
    ]  # fmt: skip
    kind = sft_vision.Side if "vision" in path.stem else sft.Side
    rows = [records.side_of(row, kind) for row in record["rows"]]
    if not any("cudnn" in row for row in record["rows"]):  # before the bench had a word on it
        known = [replace(side, cudnn=True) for side in known if "cuDNN" not in side.name]
    assert rows == [side for side in known if side in rows]  # in the bench's order
    assert {"profile", "memory"} & {*path.stem.split("_")} or record["ratios"] == sft.ratios(record["rows"])


@pytest.mark.parametrize("name", ["sft_h200", "sft_quick_host_h200", "sft_shapes_h200"])
def test_packed_sides_did_the_same_work(name):
    record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    models = {row.get("model", sft.MODEL) for row in record["rows"]}
    for model in models:
        first, *others = (r for r in record["rows"] if r["packing"] and r.get("model", sft.MODEL) == model)
        for other in others:
            assert other["useful_tokens_per_step"] == first["useful_tokens_per_step"]
            assert other["losses"] == pytest.approx(first["losses"], abs=2e-3)


def test_ratios_take_the_best_side_that_keeps_checkpointing():
    def row(engine, speed, packing=True, checkpointing=True):
        made = {"engine": engine, "useful_tokens_per_s": speed, "packing": packing, "checkpointing": checkpointing}
        return made | {"liger": False}

    rows = [row("trl", 10, packing=False), row("trl", 40), row("unsloth", 50), row("unsloth", 90, checkpointing=False)]
    assert sft.ratios(rows) == {"course / tutorial": 5.0, "course / TRL's best": 1.25}
    assert sft.ratios(rows[:2]) == sft.ratios([rows[2]]) == {}
    two = [row | {"model": model} for model in ("A", "B") for row in rows]
    assert sft.ratios(two)["B, course / tutorial"] == 5.0


def test_another_model_has_both_trainers_at_the_same_batch():
    tutorial, other, trl, lesson, course, unchecked = sides = [*sft.sides_of("Llama-3.1-8B")]
    assert {side.model for side in sides} == {"Llama-3.1-8B"}
    assert replace(lesson, name=course.name, attention="varlen") == course
    assert (trl.batch, trl.accumulation, trl.packing) == (course.batch, course.accumulation, course.packing)
    assert not tutorial.packing and trl.liger and course.checkpointing and not unchecked.checkpointing
    assert replace(other, name=tutorial.name, cudnn=True) == tutorial


def test_a_trainers_figures_leave_the_first_steps_out():
    class Trainer:
        args = SimpleNamespace(gradient_accumulation_steps=2)
        state = SimpleNamespace(log_history=[{"loss": 2.34567}, {"train_runtime": 9}])

        def training_step(self, model, inputs):
            return inputs

    useful: list[int] = []
    trainer = training.counting(Trainer, useful, lambda inputs: sum(inputs["mask"]))()
    for size in (1, 2, 30, 40, 50, 60):
        assert trainer.training_step(None, {"mask": [1] * size}) == {"mask": [1] * size}
    found = training.figures(trainer, useful, [5.0, 1.0, 3.0], 1, 2**30)
    told = {"useful_tokens_per_s": 45, "seconds_per_step": 2, "useful_tokens_per_step": 61, "loaded_gib": 1}
    assert found == found | told | {"losses": [2.3457]}


def test_the_rows_of_a_side_without_unsloth_do_not_import_it():
    """Nor `helpers.vision`, which does so where there is a GPU: Unsloth replaces parts of what is measured."""
    code = (
        "import sys\n"
        "from tools.bench import sft, sft_vision, training\n"
        "sft.rows(2), sft_vision.for_trl(sft_vision.rows()[:1])\n"
        "training.assert_plain('trl')\n"
        "assert 'helpers.vision' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_side_that_unsloth_has_touched_is_no_measurement(monkeypatch):
    monkeypatch.delitem(sys.modules, "unsloth", raising=False)
    training.assert_plain("trl")
    monkeypatch.setitem(sys.modules, "unsloth", SimpleNamespace())
    training.assert_plain("unsloth")
    with pytest.raises(RuntimeError, match="engine is trl, .* Unsloth"):
        training.assert_plain("trl")


@pytest.mark.parametrize("kind", ["sdpa", "varlen", "xformers"])
def test_unsloth_sees_the_attention_of_its_side_alone(monkeypatch, kind):
    import torch.nn.attention.varlen as module

    dispatch = SimpleNamespace(HAS_XFORMERS=kind == "xformers")
    for name, there in (("xformers", SimpleNamespace()), ("unsloth.utils.attention_dispatch", dispatch)):
        monkeypatch.setitem(sys.modules, name, there)
    monkeypatch.setattr(module, "varlen_attn", lambda query, *, window_size=(-1, -1): None)
    monkeypatch.setenv("UNSLOTH_TORCH_VARLEN", "")
    side = sft.Side("one", "unsloth", attention=kind)
    with sft.attention_of(side):
        assert (sys.modules["xformers"] is not None) == (kind == "xformers")
        assert ("enable_gqa" in inspect.signature(module.varlen_attn).parameters) == (kind == "varlen")
        assert os.environ["UNSLOTH_TORCH_VARLEN"] == ("1" if kind == "varlen" else "0")
    if kind == "xformers":
        dispatch.HAS_XFORMERS = False
        with pytest.raises(RuntimeError, match="one: xformers .* does not load"), sft.attention_of(side):
            pass


def test_kernels_are_told_apart_by_name():
    names = ("nvjet_sm90_tst_192x208_TNT", "triton_tem_fused_flex_attention_0", "kDequantizeBlockwise<bf16>", "roll")
    seconds = dict(zip(names, (0.4, 0.2, 0.1, 0.04)))
    found = sft.shares({name: value * sft.PROFILED for name, value in seconds.items()})
    told = {"matrices_ms": 400, "attention_ms": 200, "unpacking_ms": 100, "other_ms": 40, "gpu_ms": 740}
    assert found == found | told
    assert next(iter(found["longest"])) == names[0]


def test_the_readings_on_packing_say_what_was_measured():
    here, quick = rows_of("sft_h200"), rows_of("sft_quick_host_h200")
    speeds, there = ({name: row["useful_tokens_per_s"] for name, row in rows.items()} for rows in (here, quick))
    plain, apart, best = "TRL, as tutorials do", "course, packed, 8 x 1", "TRL, packed, flex attention, Liger, 8 x 1"
    without, liger = f"{plain}, without cuDNN's attention", "TRL, packed, flex attention, Liger"
    few, lesson = "course, packed, varlen", "course, packed, varlen, 8 x 1"
    lean, free = f"{few}, no checkpointing", f"{lesson}, no checkpointing"
    (xformers,) = rows_of("sft_xformers_h200").values()
    shown = [speeds[name] for name in (without, liger, few, best, lesson, lean, free, plain)]
    shown += [there[name] for name in (plain, lesson, free)] + [xformers["useful_tokens_per_s"]]
    told = [f"{figure:,}" for figure in shown]
    for name in (lesson, apart):
        told += [f"{speeds[name] / speeds[without]:.1f}", f"{speeds[name] / speeds[best]:.2f}"]
    told.append(f"{there[lesson] / there[plain]:.1f}")
    assert [round(100 * there[name] / speeds[name] - 100) for name in (lesson, free)] == [5, 2]
    assert xformers["seconds_per_step"] == pytest.approx(here[lesson]["seconds_per_step"], rel=0.02)  # equally fast
    assert round(speeds[lesson] / speeds[apart], 2) == 1.26  # `helpers.attention` says so
    assert [round(speeds[name] / speeds[best], 1) for name in (lean, free)] == [1.3, 1.7]
    assert round(speeds[lesson] / speeds[few], 1) == 1.4  # the parameters cell says so, and how much more
    assert round(here[lesson]["peak_gib"] - here[few]["peak_gib"], 1) == 2.1
    assert round(here[best]["peak_gib"] - here[lesson]["peak_gib"], 1) == 3.5
    told += [f"{here[name]['peak_gib']:.1f} GiB" for name in (lean, free)]
    told += [
        f"{speeds[free] / speeds[lesson]:.2f}",
        *(f"{here[lesson][figure]}" for figure in ("loaded_gib", "peak_gib")),
    ]
    profiled = rows_of("sft_profile_h200")
    eight = [profiled[name] for name in (apart, best, lesson, free)]
    assert [round(row["matrices_ms"] / row["gpu_ms"], 2) for row in eight] == [0.61, 0.69, 0.77, 0.83]
    cut, one = profiled[apart], profiled[lesson]
    told += [f"{row['gpu_ms'] / 1000:.2f}" for row in (cut, one)] + [f"{here[apart]['seconds_per_step']:.2f}"]
    told += [f"{row[kind]:.0f}" for row in (cut, one) for kind in ("attention_ms", "copies_ms")]
    by_name = ("FillFunctor", cut), ("CUDAFunctor_add", cut), ("CUDAFunctor_add", one)
    told += [f"{next(ms for name, ms in row['longest'].items() if kernel in name):.0f}" for kernel, row in by_name]
    passes = 16384 * 2 * (2 * 7.07e9 + 6.53e9 + 3.2 * 0.04e9)  # forward, back and once more the layers; the adapters
    products = profiled[best]["matrices_ms"] / 1000
    assert (round(passes / 1e14, 1), round(products, 2)) == (6.8, 1.03) and round(passes / products / 989e12, 1) == 0.7
    told += [f"{products:.2f}", "6.8 · 10¹⁴"]
    assert_told("01_alpaca_sft", told)


def test_the_readings_on_memory_say_what_was_measured():
    rows = rows_of("sft_memory_h200")
    trl, course = rows["TRL, packed, flex attention, Liger, 8 x 1"], rows["course, packed, varlen, 8 x 1"]
    few = "course, packed, varlen"
    width, inner, layers, tokens = 3584, 18944, 28, 8 * 2048
    inputs, matrices = (2 * tokens * numbers / peak.GIB for numbers in (layers * width, 3 * inner))
    assert trl["kept_gib"] == pytest.approx(inputs, abs=0.01)
    assert course["places"]["unsloth/kernels/utils.py:matmul_lora"] == pytest.approx(matrices, abs=0.01)
    told = [inputs, course["kept_gib"], matrices, course["recomputed_gib"], rows[few]["recomputed_gib"]]
    measured = rows_of("sft_h200")
    alone = trl["weights_gib"]
    added = {name: row["peak_gib"] - alone for name, row in measured.items()}
    plain = added["TRL, as tutorials do, without cuDNN's attention"]
    assert round(plain - rows["TRL, as tutorials do, without cuDNN's attention"]["peak_gib"] + alone, 1) == 0.2
    assert (round(0.4 / plain, 1), round(added[few], 1)) == (0.4, 1.4)
    most, whole = added[trl["name"]], added[course["name"]]
    assert round(whole / most, 1) == 0.5
    assert_told("01_alpaca_sft", [f"{figure:.2f}" for figure in [*told, plain]] + [f"{whole:.1f} GiB", f"{most:.1f}"])


def test_the_readings_on_other_sizes_say_what_was_measured():
    record = json.loads((RECORDS / "sft_shapes_h200.json").read_text(encoding="utf-8"))
    profile = json.loads((RECORDS / "sft_profile_shapes_h200.json").read_text(encoding="utf-8"))["rows"]
    for model in sft.SHAPES:
        steps = {row["name"]: row["seconds_per_step"] for row in record["rows"] if row["model"] == model}
        busy = {row["name"]: row for row in profile if row["model"] == model}
        plain, trl, course, free = steps
        for name in (trl, course):
            assert 0.435 < busy[name]["matrices_ms"] / busy[name]["gpu_ms"] < 0.775
        told = [steps[plain], busy[plain]["gpu_ms"] / 1000, steps[course], steps[trl]]
        shown = [f"{figure:.2f}" for figure in told] + [f"{busy[name]['gpu_ms']:,.0f}" for name in (course, trl)]
        if model == "Qwen2.5-0.5B":
            assert 0.45 < busy[course]["gpu_ms"] / 1000 / steps[course] < 0.55
            kinds = [busy[name][kind] for kind in ("other_ms", "copies_ms") for name in (course, trl)]
            shown += [f"{figure:.0f}" for figure in (*kinds, busy[free]["copies_ms"])]
        if model == "Llama-3.1-8B":
            assert busy[course]["gpu_ms"] / 1000 > steps[course]  # copies run beside the rest
            shown += [f"{busy[name]['gpu_ms']:,.0f}" for name in (free, "course, packed, 8 x 1")]
        assert_told("01_alpaca_sft", shown)
    for model in sft.SHAPES:
        plain, trl, course, _ = (row for row in record["rows"] if row["model"] == model)
        # Above the weights alone: when TRL's are loaded its adapter is still to come, the course's is there.
        added = (course["peak_gib"] - trl["loaded_gib"]) / (trl["peak_gib"] - trl["loaded_gib"])
        tutorial, best = (record["ratios"][f"{model}, course / {other}"] for other in ("tutorial", "TRL's best"))
        step = plain["seconds_per_step"]
        above, few = (row["peak_gib"] - trl["loaded_gib"] for row in (course, plain))
        inner = SHAPES[model].intermediate
        matrices = 3 * 2 * 8 * 2048 * inner / peak.GIB
        assert round(above / few) == 3 and 0.395 < matrices / above < 0.515
        memory = f"{above:.2f}", f"{few:.2f}", f"{matrices:.2f}", f"{inner:,}"
        assert_told("01_alpaca_sft", [f"{step:.1f}", f"{100 * added:.0f}", f"{tutorial:.0f}", f"{best}", *memory])


@pytest.mark.parametrize("side", [*attention.sides()], ids=str)
def test_attention_is_timed_at_lengths_that_are_new_and_at_the_same_again(monkeypatch, side):
    called = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(attention, "LENGTHS", range(8, 32, 8))
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda query, key, value, mask, is_causal: (
            called.append((query.shape[2], key.shape[2], mask is not None, query.requires_grad))
            or real(query, key, value, mask, is_causal=is_causal)
        ),
    )
    row = attention.measure(side, "")
    lengths = [*attention.WARM, 8, 16, 24, 8, 16, 24]
    assert called == [(n if side.training else 1, n, side.padded, side.training) for n in lengths]
    assert row["new_ms"] > 0 and row["again_ms"] > 0


def test_attentions_ratios_are_cudnn_over_the_others():
    rows = [{"name": "a", "cudnn": True, "new_ms": 90.0}, {"name": "b", "cudnn": True, "new_ms": 1.0}]
    assert attention.ratios([*rows, {"name": "a", "cudnn": False, "new_ms": 0.9}]) == {"a": 100.0}


def test_the_readings_on_cudnn_say_what_was_measured():
    here, quick = rows_of("sft_h200"), rows_of("sft_quick_host_h200")
    plain, course = "TRL, as tutorials do", "course, packed, varlen, 8 x 1"
    without, free = f"{plain}, without cuDNN's attention", f"{course}, no checkpointing"
    speeds = {name: row["useful_tokens_per_s"] for name, row in here.items()}
    told = [f"{rows[plain]['seconds_per_step']:.2f}" for rows in (quick, here)]
    told += [f"{speeds[fast] / speeds[slow]:.1f}" for fast in (course, free) for slow in (without, plain)]
    told.append(f"{here[without]['seconds_per_step']:.2f}")
    share = 1 - here[without]["seconds_per_step"] / here[plain]["seconds_per_step"]
    assert round(share, 2) == 0.24  # a quarter
    profiled = rows_of("sft_profile_h200")
    for name in (plain, without):  # four fifths of the step the GPU waits; a quarter of its work is unpacking
        assert profiled[name]["gpu_ms"] / 1000 < 0.2 * here[name]["seconds_per_step"]
        assert 0.22 < profiled[name]["unpacking_ms"] / profiled[name]["gpu_ms"] < 0.27
        told.append(f"{profiled[name]['attention_ms']:.0f}")
    assert 0.40 <= profiled[plain]["gpu_ms"] / 1000 <= 0.41
    assert_told("01_alpaca_sft", told)


def test_the_readings_on_pictures_say_what_was_measured():
    record = json.loads((RECORDS / "sft_vision_h200.json").read_text(encoding="utf-8"))
    trl, course = (
        next(row for row in record["rows"] if row["name"].endswith(end)) for end in ("Liger, 8 x 1", "course, 8 x 1")
    )
    assert [round(ratio, 1) for ratio in record["ratios"].values()] == [3.9, 2.1]
    # Above the weights alone: when TRL's are loaded its adapter is still to come, the course's is there.
    added = {row["name"]: row["peak_gib"] - trl["loaded_gib"] for row in record["rows"]}
    plain = added["TRL, as tutorials do"]
    assert round(100 * added[course["name"]] / added[trl["name"]]) == 45
    assert round(100 * added["course"] / plain) == 61 and round(6 * added[course["name"]] / plain) == 7
    steps = {row["name"]: row["seconds_per_step"] for row in record["rows"]}
    pairs = [("TRL, as tutorials do, without cuDNN's attention", "TRL, as tutorials do"),
             ("course, 8 x 1", "course, 8 x 1, with cuDNN's attention")]  # fmt: skip
    assert [round(100 * (1 - steps[without] / steps[with_it])) for without, with_it in pairs] == [8, 17]
    assert round(steps["course, 8 x 1"] / steps["course, 8 x 1, no checkpointing"], 1) == 1.5
    assert round(steps[pairs[0][0]] / steps["course"], 1) == 2.1
    assert course["useful_tokens_per_step"] == trl["useful_tokens_per_step"]
    profiled = rows_of("sft_profile_vision_h200")
    tutorial, whole = profiled[pairs[0][0]], profiled["course, 8 x 1"]
    free = profiled["course, 8 x 1, no checkpointing"]
    busy = [row["gpu_ms"] / 1000 for row in (whole, tutorial)]
    told = [f"{figure:.2f}" for figure in (*busy, steps["course, 8 x 1"], steps[tutorial["name"]])]
    told.append(f"{steps[tutorial['name']] / busy[0]:.1f}")
    assert round(1000 * steps[tutorial["name"]] / free["gpu_ms"]) == 19
    assert [round(tutorial["gpu_ms"] / row["gpu_ms"], 1) for row in (whole, free)] == [2.3, 3.5]
    told += [f"{row['copies_ms'] + row['other_ms']:.0f}" for row in (tutorial, whole)]
    drawn = next((ROOT / "data_samples" / "odometer" / "pictures").glob("*.png"))
    width, height = (pixels // 28 for pixels in sft_vision.picture(str(drawn)).size)
    windows = -(-width // 4) * -(-height // 4)  # of 4 x 4 tokens
    counted = [width * height, 4 * width * height, windows, windows * 28 * 8, course["useful_tokens_per_s"]]
    told += [f"{figure:,}" for figure in counted]
    kept = rows_of("sft_memory_vision_h200")
    liger, ours = kept["TRL, Liger, 8 x 1"], kept["course, 8 x 1"]
    inputs = 2 * (36 * 2048 * course["useful_tokens_per_step"] + 32 * 1280 * 8 * 4 * width * height) / peak.GIB
    assert inputs < liger["kept_gib"] == max(liger[kind] for kind in peak.KINDS)
    assert ours["recomputed_gib"] == max(ours[kind] for kind in peak.KINDS)
    figures = [inputs, *(row[kind] for row in (liger, ours) for kind in ("kept_gib", "recomputed_gib"))]
    assert_told("05_qwen2_5_vl_odometer", told + [f"{figure:.2f}" for figure in figures])


def test_the_readings_on_serving_say_what_was_measured():
    record = json.loads((RECORDS / "inference_h200.json").read_text(encoding="utf-8"))
    rows = {(row["engine"], row["weights"]): row for row in record["rows"]}
    assert set(rows) <= {(side.engine, side.weights) for side in inference.sides()}
    assert record["ratios"] == inference.ratios(record["rows"])
    for batch in inference.BATCHES:
        key = f"tokens_per_s_batch_{batch}"
        assert 5.5 < rows["vLLM", "bf16"][key] / rows["transformers", "bf16"][key] < 7.5
        for engine in ("transformers", "Unsloth"):
            assert rows[engine, "nf4"][key] < rows[engine, "bf16"][key]
    assert round(record["ratios"]["llama.cpp, CPU, q8_0: 32 / 1"]) == 3
    eight, four = json.loads((RECORDS / "inference_llama_cpp_h200.json").read_text(encoding="utf-8"))["rows"]
    faster = [four[f"tokens_per_s_batch_{batch}"] / eight[f"tokens_per_s_batch_{batch}"] for batch in inference.BATCHES]
    assert [round(ratio, 1) for ratio in faster] == [1.5, 1.8]
    assert {row["cores"] for row in [*record["rows"], eight, four]} == {16}


@pytest.mark.parametrize("name", ["medical_cpu", "medical_published_cpu"])
def test_every_side_of_lesson_02s_bench_gave_the_same_rows(name):
    record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    assert {(row["name"], row["rows"]) for row in record["rows"]} == {
        (side, rows) for side in medical.SIDES for rows in medical.ROWS
    }
    for rows in medical.ROWS:
        assert len({row["digest"] for row in record["rows"] if row["rows"] == rows}) == 1
    assert record["ratios"]["speed, course / usual"] >= 10 and record["ratios"]["memory, course / usual"] <= 1 / 3


def test_the_readings_on_columns_say_what_was_measured():
    record, own = (
        json.loads((RECORDS / f"medical{which}_cpu.json").read_text(encoding="utf-8")) for which in ("_published", "")
    )
    last, own = ({row["name"]: row for row in of["rows"] if row["rows"] == max(medical.ROWS)} for of in (record, own))
    assert round(last["course"]["peak_gib"] / last["usual"]["peak_gib"], 1) in (0.2, 0.3)
    assert all(last["course"]["seconds"] < row["seconds"] for name, row in last.items() if name != "course")
    polars = last["polars"]
    assert polars["seconds"] == min(row["seconds"] for name, row in last.items() if name != "course")
    assert round(polars["peak_gib"] / last["course"]["peak_gib"]) == 6
    assert round(own["polars"]["peak_gib"] / own["course"]["peak_gib"]) == 5
    speeds = record["ratios"]["speed, course / usual"], round(polars["seconds"] / last["course"]["seconds"], 1)
    shown = [f"{own[name]['seconds']:.2f} " for name in ("course", "polars")]
    assert_told("02_chinese_medical_sft", [*(f"{speed} " for speed in speeds), *shown])


def test_the_way_to_the_first_loss_is_split_by_what_cells_are_for():
    def cell(start, seconds, source):
        times = {"start_time": f"2026-01-02T03:04:{start:02}+00:00", "duration": seconds}
        return {"cell_type": "code", "source": source, "metadata": {"papermill": times}}

    cells = [
        {"cell_type": "markdown", "source": "# trainer.train()", "metadata": {}},
        cell(2, 1.0, "from helpers import runtime"),
        cell(4, 5.0, "import unsloth"),
        cell(9, 0.5, "rows = data.load_alpaca(DATASET)"),
        cell(10, 2.0, "model = FastLanguageModel.from_pretrained(MODEL)"),
        cell(12, 3.0, "before = answer(questions)"),
        cell(15, 1.0, "trainer = SFTTrainer(model=model)"),
        cell(16, 4.0, "trainer.train()"),
        cell(20, 9.0, "after = answer(questions)"),
    ]
    began = datetime(2026, 1, 2, 3, 4, tzinfo=UTC).timestamp()
    found = first_loss.parts(cells, began)
    assert found == {"start": 2, "imports": 7, "data": 0.5, "model": 2.5, "asking": 3, "training": 5}
    with pytest.raises(ValueError, match="trainer.train"):
        first_loss.parts(cells[:5], began)


def test_the_way_to_the_first_loss_is_measured_in_rounds_on_models_built_before(monkeypatch, tmp_path):
    done = []
    seconds = iter((10.0, 12.0, 11.0))

    def measure(lesson):
        done.append(lesson)
        return {"imports_s": 5.0, "torch_alone_s": 1.1, "seconds_to_first_loss": next(seconds)}

    monkeypatch.setattr(first_loss, "measure", measure)
    monkeypatch.setattr(first_loss.run, "prepare", lambda values: done.append(values["MODEL"]))
    assert first_loss.main(["01", "--out", str(tmp_path / "r.json")]) == 0
    assert done == ["nano/qwen2", "01", "01", "01"]
    record = json.loads((tmp_path / "r.json").read_text("utf-8"))
    spread = {"seconds_to_first_loss": 0.091}
    row = {"name": "lesson 01", "imports_s": 5.0, "torch_alone_s": 1.1, "seconds_to_first_loss": 11.0, "spread": spread}
    assert record["rows"] == [row] and record["settings"] == {"max_steps": 1, "rounds": 3}
    shares = {"lesson 01, share of imports": 0.45, "lesson 01, share of all else": 0.55}
    assert record["ratios"] == shares | {"lesson 01, import torch / first loss": 0.1}
    assert record["spread"] == 0.091


def test_the_readmes_say_how_much_of_the_way_are_imports():
    record = json.loads((RECORDS / "first_loss_cpu.json").read_text(encoding="utf-8"))
    shares = [row["imports_s"] / row["seconds_to_first_loss"] for row in record["rows"]]
    assert [round(share, 1) for share in shares] == [0.6, 0.6]
    assert record["ratios"] == first_loss.ratios(record["rows"])


def test_the_readmes_say_how_long_the_notebooks_take():
    rows = json.loads((RECORDS / "suite_cpu.json").read_text(encoding="utf-8"))["rows"]
    seconds = {(row["name"], row["language"]): row["seconds"] for row in rows}
    whole = seconds.pop(("all of them", "both"))
    assert set(seconds) == {(lesson.slug, language) for lesson in load_course().lessons for language in ("en", "zh")}
    assert whole < 25 * 60
    for name, minute in {"README.md": " minutes", "README.zh.md": " 分钟"}.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"{whole / 60:.1f}{minute}" in text and f"{max(seconds.values()) / 60:.1f}" in text


def test_of_the_suite_each_notebook_has_its_seconds_and_a_failure_counts_for_nothing(tmp_path):
    def report(*cases):
        inner = "".join(f'<testcase classname="notebooks.{name}.ipynb" time="{time}">{what}</testcase>'
                        for name, time, what in cases)  # fmt: skip
        (tmp_path / "r.xml").write_text(f"<testsuites><testsuite>{inner}</testsuite></testsuites>")
        return suite.rows(tmp_path / "r.xml")

    two = ("zh.01_alpaca_sft", "9.96", ""), ("en.01_alpaca_sft", "8.14", "")
    assert report(*two) == [
        {"name": "01_alpaca_sft", "language": "en", "seconds": 8.1},
        {"name": "01_alpaca_sft", "language": "zh", "seconds": 10.0},
    ]
    with pytest.raises(SystemExit, match=r"09_dpo\.ipynb: failure"):
        report(*two, ("en.09_dpo", "3", "<failure/>"))


def test_the_memory_record_holds_every_case():
    record = json.loads((RECORDS / "vram_h200.json").read_text(encoding="utf-8"))
    names = asdict(next(vram.cases()))
    assert [{name: row[name] for name in names} for row in record["rows"]] == [asdict(case) for case in vram.cases()]


def test_random_weights_are_the_same_in_each_run(tmp_path, monkeypatch):
    from safetensors.torch import load_file

    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: None)  # for the whole process
    config = Qwen2Config(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        vocab_size=8,
    )
    processor = SimpleNamespace(save_pretrained=lambda folder: None)
    once, again = (
        load_file(weights._save(AutoModelForCausalLM, config, processor, tmp_path / name) / "model.safetensors")
        for name in ("once", "again")
    )
    assert once.keys() == again.keys() and all(torch.equal(once[name], again[name]) for name in once)
    assert once["model.embed_tokens.weight"].std() > 0


def test_rows_have_the_recorded_lengths_and_one_end_each():
    rows = sft.rows(end=2, repeat=1)
    lengths = json.loads((ROOT / "benchmarks" / "alpaca_lengths.json").read_text(encoding="utf-8"))["lengths"]
    assert [len(row) for row in rows] == lengths
    assert all(row[-1] == 2 and 2 not in row[:-1] for row in rows)


@pytest.mark.parametrize("name", ["grpo_4_bits_h200", "grpo_quick_host_h200"])
def test_the_grpo_records_are_of_the_sides_that_the_bench_has_and_of_the_same_work(name):
    record = json.loads((RECORDS / f"{name}.json").read_text(encoding="utf-8"))
    names = [row["name"] for row in record["rows"]]
    assert names == [side.name for side in grpo.sides(4) if side.name in names]
    assert {row["tokens_per_step"] for row in record["rows"]} == {grpo.BATCH * grpo.ACCUMULATION * grpo.COMPLETION}
    assert record["ratios"] == grpo.ratios(record["rows"])
    vllm, _, trl, *_ = (row["seconds_per_step"] for row in record["rows"])
    assert record["ratios"]["course, vLLM / TRL, generate"] == pytest.approx(trl / vllm, abs=0.02)


def test_the_readings_on_grpo_say_what_was_measured():
    vllm, course, trl, lean = rows_of("grpo_4_bits_h200").values()
    told = [f"{row['seconds_per_step'] / vllm['seconds_per_step']:.1f}" for row in (course, trl, lean)]
    told += [f"{vllm[kind]:.{digits}f}" for kind, digits in (("writing_s", 1), ("start_s", 0))]
    told += [f"{row['writing_s']:.0f}" for row in (course, trl, lean)]
    training = [row["seconds_per_step"] - row["writing_s"] for row in (vllm, course, trl, lean)]
    told += [f"{seconds:.1f}" for seconds in (min(training), max(training))]
    told.append(f"{course['seconds_per_step'] / 4 - training[0]:.1f}")  # what 4 times would leave for writing
    told.append(f"{1000 * vllm['writing_s'] / grpo.COMPLETION:.1f}")
    told += [f"{row['first_step_s']:.0f}" for row in (trl, lean)]
    quick = [row["seconds_per_step"] for row in rows_of("grpo_quick_host_h200").values()]
    told += [f"{seconds:.1f}" for seconds in (*quick, quick[1] / quick[0], quick[2] / quick[0])]
    assert_told("04_grpo_gsm8k", told)
    start = vllm["start_s"] + vllm["first_step_s"] - course["start_s"] - course["first_step_s"]
    assert 5 < 1 + start / (course["seconds_per_step"] - vllm["seconds_per_step"]) < 6  # "the sixth step"


def test_a_record_becomes_a_table_in_either_language():
    record = {
        "hardware": "CPU, 2 cores, A chip", "date": "2026-01-02", "versions": {"torch": "2.11"},
        "rows": [
            {"name": "TRL, generate", "seconds_per_step": 5.348, "writing_s": 3.1, "tokens_per_s": 1234.5, "start_s": 4}
        ],
    }  # fmt: skip
    english = tables.table(record, "grpo_x", "en")
    assert english.splitlines()[:3] == [
        "| who writes the answers | seconds a step | of them writing | tokens/s | seconds to load |",
        "|---|---|---|---|---|",
        "| TRL, generate | 5.35 | 3.1 | 1,234 | 4 |",
    ]  # fmt: skip
    assert "CPU, 2 cores, A chip, 2026-01-02; torch 2.11." in english and "benchmarks/records/grpo_x.json" in english
    chinese = tables.table(record, "grpo_x", "zh")
    assert "| TRL，generate | 5.35 |" in chinese and "CPU，2 核，A chip，2026-01-02" in chinese
    with pytest.raises(LessonError, match="nobody.json"):
        tables.table(record, "nobody", "en")


def test_every_text_of_a_shown_record_has_its_chinese():
    for path in RECORDS.glob("*.json"):
        if kind := tables.kind_of(path.stem):
            rows = tables.shown(path)["rows"]
            texts = {row[key] for row in rows for key in tables.COLUMNS[kind] if key in row}
            assert {text for text in texts if isinstance(text, str) and " " in text} <= set(tables.CHINESE), path.name


def test_a_table_is_written_anew_between_its_marks_and_nothing_else_is_touched():
    stale = "before\n<!-- record: sft_h200 -->\nold\n<!-- /record -->\nafter\n<!-- record: grpo_4_bits_h200 -->\n<!-- /record -->"
    text = tables.with_records(stale, "page.md", "en", RECORDS)
    assert text.startswith("before\n<!-- record: sft_h200 -->\n| one H200 |") and "old" not in text
    assert "<!-- /record -->\nafter\n<!-- record: grpo_4_bits_h200 -->\n| who writes" in text
    assert tables.with_records(text, "page.md", "en", RECORDS) == text
    with pytest.raises(LessonError, match=r"page.md: there is no record 'x'; there are .*sft_h200"):
        tables.with_records("<!-- record: x -->\n<!-- /record -->", "page.md", "en", RECORDS)


@pytest.mark.parametrize(("name", "lesson"), [("vram_h200", "00_start_here"), ("dpo_memory", "09_dpo")])
def test_a_reading_shows_what_it_chose_of_a_record(name, lesson):
    record = tables.shown(RECORDS / f"{name}.json")
    for language in ("en", "zh"):
        text = (ROOT / f"lessons/{lesson}/reading.{language}.md").read_text(encoding="utf-8")
        assert f"<!-- record: {name} -->\n{tables.table(record, name, language)}\n<!-- /record -->" in text


def test_peaks_are_shown_as_measured_and_as_estimated(tmp_path):
    rows = json.loads((RECORDS / "vram_h200.json").read_text(encoding="utf-8"))["rows"]
    shown = tables.peaks(RECORDS / "vram_h200.json")
    assert [row["name"] for row in shown] == [*tables.PEAKS]
    assert shown[2] == {"name": "7B, QLoRA, Unsloth, 2 × 2,048", "measured": "6.66", "estimated": "6.63"}
    (tmp_path / "vram.json").write_text(json.dumps({"rows": rows[1:]}))
    with pytest.raises(LessonError, match=r"vram.json: .*Qwen2.5-14B.*'14B, the same'"):
        tables.peaks(tmp_path / "vram.json")


def test_dpos_references_are_columns_and_the_weights_rows(tmp_path):
    def row(bits, reference, peak):
        return {"bits": bits, "reference": reference, "peak_gib": peak}

    rows = [row(4, "none: SFT", 1.04), row(4, "second model", 2), row(4, "adapter copy", 3)]
    rows += [row(4, "computed beforehand", 9), row(16, "none: SFT", 4)]
    (tmp_path / "dpo_memory.json").write_text(json.dumps({"rows": rows}))
    assert tables.shown(tmp_path / "dpo_memory.json")["rows"] == [
        {"weights": "weights in 4 bits", "sft": "1.0", "second_model": "2.0", "adapter_copy": "3.0"},
        {"weights": "weights in 16 bits", "sft": "4.0"},
    ]


def test_a_side_runs_apart_and_a_failing_one_is_said(monkeypatch, tmp_path, capsys):
    (tmp_path / "side.py").write_text("import json, sys\nprint('noise')\nprint(json.dumps({'got': sys.argv[1:]}))\n")
    (tmp_path / "broken.py").write_text("raise SystemExit('no memory left')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert records.apart("side", "a", "b c") == {"got": ["--one", "a", "b c"]}
    assert records.apart("broken") is None
    assert "FAILED" in (said := capsys.readouterr().out) and "no memory left" in said


def test_only_some_sides_are_measured_and_the_others_rows_stay(monkeypatch, tmp_path, capsys):
    source = "import json, sys\nprint(json.dumps(json.loads(sys.argv[2]) | {'figure': sys.argv[3]}))\n"
    (tmp_path / "some_bench.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # this machine may have a GPU
    sides = [inference.Side("A", "x"), inference.Side("A", "y"), inference.Side("B", "x")]

    def run(path, *arguments):
        options = records.parser("", "r").parse_args(["--out", str(tmp_path / "r.json"), *arguments])
        record = records.new("s", "m", "u", {"steps": 3}, ())
        status = records.run_sides("some_bench", record, sides, path, options, lambda rows: {"rows": len(rows)})
        there = json.loads((tmp_path / "r.json").read_text("utf-8"))
        assert [records.side_of(row, inference.Side) for row in there["rows"]] == sides
        return status, [row["figure"] for row in there["rows"]], there["ratios"]

    assert run("1st") == (0, ["1st"] * 3, {"rows": 3})
    assert run("2nd", "--only", '"x"') == (0, ["2nd", "1st", "2nd"], {"rows": 3})
    assert "2 of 2 measured" in capsys.readouterr().out
    assert run("3rd", "--only", "B") == (0, ["2nd", "1st", "3rd"], {"rows": 3})
    old = json.loads((tmp_path / "r.json").read_text("utf-8"))
    records.save(old | {"rows": [*old["rows"], {"engine": "C", "weights": "x"}]}, tmp_path / "r.json")
    assert run("4th", "--only", "B") == (0, ["2nd", "1st", "4th"], {"rows": 3})
    assert "left out" in (said := capsys.readouterr().out) and "engine='C'" in said
    with pytest.raises(SystemExit, match=r"(?s)--only C: no side.*weights='y'"):
        run("5th", "--only", "C")
    records.save(old | {"settings": {"steps": 9, "rounds": 1}}, tmp_path / "r.json")
    with pytest.raises(SystemExit, match=r"r.json was measured with .*9.* and this bench now has .*3.*--out"):
        run("6th", "--only", "B")
    monkeypatch.setattr(records, "new", lambda *what: {"hardware": "a GPU", "versions": {}, "settings": {}, "rows": []})
    with pytest.raises(SystemExit, match=r"r.json was measured on CPU, .* and this is a GPU.*--out"):
        run("7th", "--only", "B")


def test_a_record_says_what_it_was_measured_with(tmp_path, capsys):
    record = records.new("s", "m", "u", {"steps": 3}, ("torch", "no-such-package"))
    assert set(record["versions"]) == {"torch"} and record["rows"] == [] and record["settings"] == {"steps": 3}
    records.save(record, tmp_path / "deep" / "r.json")
    assert json.loads((tmp_path / "deep" / "r.json").read_text("utf-8")) == record
    assert records.verdict(record, 1) == 1 and records.verdict(record, 0) == 0
    assert "0 of 1 measured" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_a_record_says_what_all_its_sides_share(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    settings = record["settings"]
    assert settings and all(isinstance(value, str | int | float | bool) for value in settings.values())
    steps = settings.get("max_steps", settings.get("steps"))
    assert {len(row["losses"]) for row in record["rows"] if "losses" in row} <= {steps}
    for name, setting in (("batch", "per_device_train_batch_size"), ("length", "max_length"), ("steps", "max_steps")):
        if setting in settings:
            assert {row.get(name) for row in record["rows"]} <= {settings[setting], None}


def test_a_cpu_is_called_by_its_cores_and_model(monkeypatch):
    text = "processor\t: 0\nmodel name\t: A chip: fast\nflags\t: x\nprocessor\t: 1\nmodel name\t: Another\n"
    monkeypatch.setattr(records.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Path, "is_file", lambda path: str(path) == "/proc/cpuinfo")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert records.processor() == "CPU, 2 cores, A chip: fast"
    monkeypatch.setattr(Path, "is_file", lambda path: False)  # no Linux
    monkeypatch.setattr(records.platform, "processor", lambda: "arm")
    assert records.processor() == "CPU, 2 cores, arm"
    monkeypatch.setattr(records.platform, "processor", lambda: "")
    monkeypatch.setattr(records.platform, "machine", lambda: "")
    assert records.processor() == "CPU, 2 cores"


def test_rounds_of_a_side_become_their_median_and_spread():
    rounds = [{"name": "a", "batch": 8, "ok": True, "s": s, "gib": 2.0} for s in (1.0, 1.4, 1.1)]
    row = records.middle(rounds)
    assert row == rounds[2] | {"spread": {"s": 0.182}}  # half of 0.4, over 1.1
    assert records.middle(rounds[:1]) == rounds[0]  # of one round nothing is known
    assert records.widest([row, {"spread": {"gib": 0.3}}]) == {"spread": 0.3}
    assert records.widest([row, {"spread": {"gib": 0.3}}], ("s",)) == {"spread": 0.182}
    assert records.widest([row, {"name": "b"}]) == records.widest([row], ("gib",)) == {}


def test_a_side_is_measured_as_often_as_asked(monkeypatch, tmp_path):
    (tmp_path / "counting_bench.py").write_text(
        "import json, pathlib, sys\nplace = pathlib.Path(sys.argv[3])\nplace.write_text(place.read_text() + '.')\n"
        "print(json.dumps(json.loads(sys.argv[2]) | {'ms': 10.0 + len(place.read_text())}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "count").write_text("")
    options = records.parser("", "r", rounds=3).parse_args(["--out", str(tmp_path / "r.json")])
    record, sides = records.new("s", "m", "u", {}, ()), [inference.Side("A", "x")]
    assert records.run_sides("counting_bench", record, sides, str(tmp_path / "count"), options, lambda rows: {}) == 0
    there = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert there["rows"] == [{"engine": "A", "weights": "x", "ms": 12.0, "spread": {"ms": 0.083}}]
    assert (there["spread"], there["settings"]) == (0.083, {"rounds": 3})


@pytest.mark.notebook
def test_lesson_02s_bench_notes_its_spread(tmp_path):
    out = tmp_path / "r.json"
    medical.main(["--rows", "240", "--rounds", "2", "--out", str(out)])  # too few rows for its aim
    record = json.loads(out.read_text("utf-8"))
    names = [row["name"] for row in record["rows"]]
    assert {"usual", "pandas", "arrow", "course"} <= set(names) and len(names) == len(set(names))
    assert len({row["digest"] for row in record["rows"]}) == 1 and all("spread" in row for row in record["rows"])
    assert record["settings"] == medical.SETTINGS | {"rounds": 2} and record["hardware"].startswith("CPU, ")


@pytest.mark.parametrize("gpus", [2, 4])
def test_every_case_of_the_scale_bench_has_a_name_in_both_languages(gpus):
    cases = [case for part in scale.PARTS for case in scale.cases_of(part, gpus)]
    assert {scale.named(case) for case in cases} <= set(tables.CHINESE)
    assert all(case["gpus"] in (1, 2, 4) and case["gpus"] <= gpus for case in cases)
    ddp = [(case["gpus"], case["scaling"], case["accumulation"]) for case in scale.ddp_cases(2)]
    assert ddp == [(1, "one", 4), (2, "strong", 4), (2, "weak", 8)]  # launch.share divides by the GPUs


def test_efficiency_is_against_the_one_gpu_of_the_same_part():
    rows = [
        {"gpus": 1, "tokens_per_s": 100},
        {"gpus": 2, "tokens_per_s": 150},
        {"gpus": 4, "error": "x", "tokens_per_s": "failed"},
    ]
    one, two, failed = scale.with_efficiency(rows)
    assert (one["efficiency"], two["efficiency"]) == (1, 0.75) and "efficiency" not in failed
    assert scale.with_efficiency(rows[1:]) == rows[1:]  # nothing to compare with


@pytest.mark.parametrize("path", sorted(RECORDS.glob("scale_*.json")), ids=lambda path: path.stem)
def test_a_scale_record_is_of_the_cases_that_the_bench_has(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    cases = scale.cases_of(path.stem.split("_")[1], int(record["hardware"].split(" x ")[0]))
    assert [{name: row[name] for name in case} for row, case in zip(record["rows"], cases, strict=True)] == cases
    assert all(row.get("same_weights_everywhere", True) for row in record["rows"])
    assert not any("error" in row for row in record["rows"] if row["gpus"] > 1)


def test_the_readings_on_several_gpus_say_what_was_measured():
    one, shared, _ = json.loads((RECORDS / "scale_ddp_2xh200.json").read_text(encoding="utf-8"))["rows"]
    assert max(abs(a - b) for a, b in zip(one["losses"], shared["losses"], strict=True)) < 2.5e-3
    assert round(100 * (1 - shared["efficiency"])) == 3
    small, copies, shares, none, large = json.loads((RECORDS / "scale_fsdp_2xh200.json").read_text("utf-8"))["rows"]
    assert round(copies["seconds_per_step"] - small["seconds_per_step"], 1) == 0.1
    assert shares["tokens_per_s"] > copies["tokens_per_s"] and none["error"] == "out of memory" and large["peak_gib"]
    whole, cut = json.loads((RECORDS / "scale_tp_2xh200.json").read_text(encoding="utf-8"))["rows"]
    assert [round(cut[f"tokens_per_s_{n}"] / whole[f"tokens_per_s_{n}"], 2) for n in ("one", "many")] == [1.44, 1.52]
    every, qlora = json.loads((RECORDS / "scale_trl_2xh200.json").read_text(encoding="utf-8"))["rows"]
    assert 57 < every["peak_gib"] < 64 and 1 / 9 < qlora["peak_gib"] / every["peak_gib"] < 1 / 7
    assert qlora["tokens_per_s"] < every["tokens_per_s"] and qlora["tokens_per_s"] < one["tokens_per_s"]
    for language in ("en", "zh"):
        text = (ROOT / f"lessons/13_scale_out/reading.{language}.md").read_text(encoding="utf-8")
        assert "3 %" in text and "2.5·10⁻³" in text and "14B" in text and "1.44" in text and "1.52" in text


def test_the_committed_plots_are_those_of_the_records(tmp_path):
    found = {path.name: path.read_text("utf-8") for path in (ROOT / plots.FOLDER).glob("*.svg")}
    for path in sorted(RECORDS.glob("*.json")):
        for name in plots.names(path.stem):
            if plots.draw(json.loads(path.read_text("utf-8")), name, tmp_path / f"{name}.svg"):
                drawn = (tmp_path / f"{name}.svg").read_text("utf-8")
                assert found.pop(f"{name}.svg") == drawn, "run: course bench --report"
    assert not found  # no plot without its record


def test_random_weights_that_were_cut_off_are_written_anew_and_whole_ones_kept(tmp_path, monkeypatch):
    folder, written = tmp_path / "weights" / "Qwen2.5-7B", []

    def write(command, check):
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        written.append(command)
        if len(written) == 1:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(records.subprocess, "run", write)
    with records.scratch(folder.parent), pytest.raises(subprocess.CalledProcessError):
        records.random_weights("Qwen2.5-7B", str(folder))
    for _ in range(2):
        records.random_weights("Qwen2.5-7B", str(folder))
    assert len(written) == 2


def test_a_record_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    records.save({"rows": [1]}, tmp_path / "r.json")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(NotEnough, match="takes no more"):
        records.save({"rows": [1, 2]}, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text()) == {"rows": [1]} and len(list(tmp_path.iterdir())) == 1
