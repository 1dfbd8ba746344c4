import json

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
