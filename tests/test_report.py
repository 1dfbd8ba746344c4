import json

import pandas as pd
import pytest

from helpers import report

LOG = [
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": 1.0, "lr": 0.1},
    {"step": 2, "eval_loss": 3.0},
    {"train_runtime": 9},
]


class Letters:
    """A tokenizer whose tokens are code points."""

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_losses_are_the_training_losses_only():
    assert report.losses(LOG).to_dict() == {1: 2.0, 2: 1.0}


def test_loss_table_has_the_steps_that_both_runs_have():
    table = report.loss_table(LOG, [1.5, 1.25, 1.0], "theirs")
    assert table.to_dict("list") == {"this run": [2.0, 1.0], "theirs": [1.5, 1.25]}
    assert list(table.index) == [1, 2]


def test_loss_plot_draws_both_runs():
    (axes,) = report.loss_plot(LOG, [1.5, 1.25], "theirs").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2.0, 1.0], [2.0, 1.5], [1.5, 1.25]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["this run (mean of 10)", "theirs"]


def test_length_plot_counts_what_is_too_long():
    (axes,) = report.length_plot([10, 20, 20, 21, 400], 20).axes
    assert axes.get_title() == "2 of 5 rows are longer than 20"
    fits, beyond = axes.containers
    assert sum(bar.get_height() for bar in fits) == 3
    assert sum(bar.get_height() for bar in beyond) == 2
    assert [list(line.get_xdata()) for line in axes.lines] == [[20, 20]]


def test_label_mask_colours_what_is_trained_and_escapes():
    page = report.label_mask(Letters(), [ord(c) for c in "a<b\n"], [-100, -100, ord("b"), ord("\n")]).data
    assert "2 of 4 tokens are trained on" in page
    assert '<span style="color:#9e9e9e">&lt;</span>' in page
    assert page.count("#c8e6c9") == 2
    assert "⏎" in page


def test_label_mask_wants_labels_of_the_same_sequence():
    with pytest.raises(ValueError, match="2 input ids but 1 labels"):
        report.label_mask(Letters(), [65, 66], [65])


def test_side_by_side_keeps_every_text_as_text():
    page = report.side_by_side([{"before": "<script>", "after": "a\nb"}]).data
    assert "&lt;script&gt;" in page
    assert "a\nb" in page
    assert "pre-wrap" in page


def test_summary_is_shown_and_kept(tmp_path):
    table = report.summary(tmp_path / "new", loss=1.5, answer="是")
    assert table.loc["answer", "value"] == "是"
    assert json.loads((tmp_path / "new" / "summary.json").read_text("utf-8")) == {"loss": 1.5, "answer": "是"}


def grpo_log(steps, **rewards):
    """What TRL logs: for each reward function its mean and spread, at each step."""
    log = []
    for step in range(steps):
        entry = {"step": step + 1, "reward": step / 10, "reward_std": 0.5, "completions/mean_length": 20.0, "loss": 0.0}
        for name, (mean, std) in rewards.items():
            entry[f"rewards/{name}/mean"] = mean(step) if callable(mean) else mean
            entry[f"rewards/{name}/std"] = std
        log.append(entry)
    return [*log, {"step": steps, "train_runtime": 9.0}]


def test_rewards_are_one_row_a_step():
    table = report.rewards(grpo_log(3, int_reward_func=(lambda step: step / 2, 0.1)))
    assert table.to_dict("list") == {
        "int_reward_func": [0.0, 0.5, 1.0],
        "reward": [0.0, 0.1, 0.2],
        "reward_std": [0.5] * 3,
        "length": [20.0] * 3,
    }
    assert list(table.index) == [1, 2, 3]
    with pytest.raises(ValueError, match="holds no reward"):
        report.rewards(LOG)


def test_reward_plot_draws_every_reward_its_spread_and_the_length():
    figure = report.reward_plot(grpo_log(12, int_reward_func=(0.25, 0.1), correctness_reward_func=(0, 0)))
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["int", "correctness", "reward", "reward_std", "length"]
    steps, smooth = shown[2].lines
    assert list(steps.get_ydata()) == pytest.approx([step / 10 for step in range(12)])
    assert smooth.get_ydata()[-1] == pytest.approx(0.65)


def test_dead_rewards_are_named_with_the_mend():
    log = grpo_log(
        30,
        never=(0, 0),
        always=(0.5, 0),
        falling_silent=(lambda step: 0.1 if step < 10 else 0, 0),
        late=(lambda step: 0.1 if step == 29 else 0, 0),
        same_mean=(0.25, 0.2),
        moving=(lambda step: step / 30, 0.2),
    )
    dead = report.dead_rewards(log, last=20)
    assert list(dead) == ["never", "always", "falling_silent"]
    assert dead["never"].startswith("always 0 in the last 20 steps. Nobody earns it: print some completions")
    assert dead["always"].startswith("always 0.5 in the last 20 steps. All earn it: nothing is left")
    assert list(report.dead_rewards(log, last=30)) == ["never", "always"]


def test_of_a_short_run_all_steps_count():
    dead = report.dead_rewards(grpo_log(3, never=(0, 0), late=(lambda step: step // 2, 0)), last=20)
    assert list(dead) == ["never"] and dead["never"].startswith("always 0 in the last 3 steps")
    assert report.dead_rewards(LOG) == {}


def test_a_reward_that_was_not_given_is_not_dead():
    assert report.dead_rewards(grpo_log(20, sometimes=(float("nan"), float("nan")))) == {}


@pytest.mark.parametrize("plot", [lambda: report.loss_plot(LOG), lambda: report.reward_plot(grpo_log(3, int=(0, 0)))])
def test_plots_show_themselves_without_pyplot(plot):
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(plot())
    assert shown["image/png"].startswith(b"\x89PNG")


def test_agreement_plot_draws_every_pair_and_the_two_bounds():
    axes = report.agreement_plot([1.0, 10.0], [1.1, 9.0], "measured", "estimated", 0.15).axes[0]
    assert axes.collections[0].get_offsets().tolist() == [[1.0, 1.1], [10.0, 9.0]]
    slopes = sorted(line.get_ydata()[0] / line.get_xdata()[0] for line in axes.lines)
    assert slopes == pytest.approx([0.85, 1, 1.15])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("measured", "estimated")


def test_budget_plot_joins_one_budget_turned_up_and_marks_every_kind():
    runs = [
        {"kind": kind, "run": run, "tokens": tokens, "accuracy": accuracy, "error": 0.05}
        for kind, run, tokens, accuracy in [
            ("extended", "1 × Wait", 40, 0.9),
            ("cut", "at most 0", 0, 0.1),
            ("majority vote", "3 votes", 60, 0.5),
            ("as it likes", "as it likes", 20, 0.4),
        ]
    ]
    (axes,) = report.budget_plot(runs).axes
    assert axes.lines[0].get_xydata().tolist() == [[0, 0.1], [20, 0.4], [40, 0.9]]
    assert [text.get_text() for text in axes.texts] == [run["run"] for run in runs]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {run["kind"] for run in runs}


def load_run(*speeds):
    names = ["tokens/s", "latency p50", "latency p95", "first token p50"]
    return pd.DataFrame({name: speeds for name in names}, index=[1, 2, 8])


def test_load_plot_draws_a_line_for_each_run():
    figure = report.load_plot({"4 bits": load_run(1, 2, 3), "16 bits": load_run(4, 5, 6)})
    speed, latency, first = figure.axes
    assert [list(line.get_ydata()) for line in speed.lines] == [[1, 2, 3], [4, 5, 6]]
    assert [len(axes.lines) for axes in figure.axes] == [2, 4, 2]
    assert list(latency.lines[0].get_xdata()) == [1, 2, 8]
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["4 bits", "16 bits"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_load_plot_leaves_no_run_out():
    names = [f"run {number}" for number in range(6)]
    speed, _, first = report.load_plot({name: load_run(1, 2, 3) for name in names}).axes
    assert len({line.get_color() for line in speed.lines}) == 6
    assert [text.get_text() for text in first.get_legend().get_texts()] == names


def test_pictures_opens_no_other_formats_than_the_loader(tmp_path):
    from PIL import Image, UnidentifiedImageError

    for name in ("a.png", "a.ppm"):  # Pillow knows PPM; FORMATS says why it may not be used
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert report.pictures([tmp_path / "a.png"]).axes[0].get_title() == "a.png"
    with pytest.raises(UnidentifiedImageError):
        report.pictures([tmp_path / "a.ppm"])
