"""What a notebook shows: loss plots and tables, answers side by side, the label mask, a summary."""

from __future__ import annotations

import html
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML
from matplotlib import figure

from helpers import runtime

IGNORED = -100
"""The label that the loss skips (PyTorch's `ignore_index`)."""

Log = Sequence[Mapping[str, Any]]


class Figure(figure.Figure):
    """A plot that a notebook shows: matplotlib's own does so only where pyplot has set up its backend."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=90)
        return picture.getvalue()


def losses(log_history: Log) -> pd.Series:
    """Training loss by step, from `trainer.state.log_history`."""
    logged = {entry["step"]: entry["loss"] for entry in log_history if "loss" in entry}
    return pd.Series(logged, name="this run", dtype=float).rename_axis("step")


def loss_table(log_history: Log, published: Sequence[float], name: str = "published") -> pd.DataFrame:
    """This run's loss beside a published run's, for the steps that both have (steps count from 1)."""
    other = pd.Series(published, index=range(1, len(published) + 1), name=name, dtype=float)
    return pd.concat([losses(log_history), other], axis=1, join="inner").round(4).rename_axis("step")


def loss_plot(log_history: Log, published: Sequence[float] = (), name: str = "published") -> Figure:
    """Plot the training loss; a thin line is each step, a thick one the mean of the last ten."""
    mine = losses(log_history)
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(mine.index, mine, color="tab:blue", alpha=0.35, linewidth=1)
    axes.plot(mine.index, mine.rolling(10, min_periods=1).mean(), color="tab:blue", label="this run (mean of 10)")
    if len(published):
        axes.plot(range(1, len(published) + 1), published, color="tab:orange", marker=".", linewidth=1, label=name)
    axes.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def rewards(log_history: Log) -> pd.DataFrame:
    """What GRPO logs at each step: the mean of every reward function (by its name), `reward` (their sum),
    `reward_std` and the completion `length` in tokens. Raises ValueError when no step logged a reward.
    """
    columns = {"reward": "reward", "reward_std": "reward_std", "completions/mean_length": "length"}
    rows = {}
    for entry in (entry for entry in log_history if "reward" in entry):
        means = {_reward_name(key): entry[key] for key in entry if _reward_name(key)}
        rows[entry["step"]] = means | {name: entry[key] for key, name in columns.items() if key in entry}
    if not rows:
        raise ValueError("the log holds no reward; pass trainer.state.log_history of a GRPO run, after training.")
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).rename_axis("step")


def reward_plot(log_history: Log) -> Figure:
    """One small plot a reward, then their sum, its spread and the completion length; thick: the mean of ten steps."""
    table = rewards(log_history)
    across = 4
    figure = Figure(figsize=(12, 2.6 * -(-len(table.columns) // across)), layout="constrained")
    panels = figure.subplots(-(-len(table.columns) // across), across, squeeze=False, sharex=True).flat
    for name, axes in zip(table.columns, panels):
        axes.plot(table.index, table[name], color="tab:blue", alpha=0.35, linewidth=1)
        axes.plot(table.index, table[name].rolling(10, min_periods=1).mean(), color="tab:blue")
        axes.set_title(name.removesuffix("_reward_func"), fontsize=10)
        axes.set_ylim(min(0.0, table[name].min()), None)
        axes.grid(alpha=0.3)
    for axes in list(panels):  # what is left of the last row
        axes.set_visible(False)
    return figure


def dead_rewards(log_history: Log, last: int = 20) -> dict[str, str]:
    """The reward functions that gave every completion of the last `last` steps the same value, and what to do.

    Such a reward cannot teach: GRPO compares completions with one another. Of a shorter run all steps count.
    """
    entries = [entry for entry in log_history if "reward" in entry][-last:]
    dead = {}
    for key in filter(_reward_name, entries[-1] if entries else ()):
        name = _reward_name(key)
        means = [entry.get(key, float("nan")) for entry in entries]
        spreads = [entry.get(f"rewards/{name}/std", float("nan")) for entry in entries]
        if max(means) - min(means) < 1e-6 and max(spreads) < 1e-6:
            dead[name] = f"always {means[-1]:g} in the last {len(entries)} steps. " + (
                "All earn it: nothing is left to learn from it, leave it or drop it."
                if means[-1] > 0
                else "Nobody earns it: print some completions, check the function on them, "
                "make the first success easier (prompt, an easier reward, more generations)."
            )
    return dead


def _reward_name(key: str) -> str | None:
    """`correctness_reward_func` of `rewards/correctness_reward_func/mean`; None of any other key."""
    parts = key.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "rewards" and parts[2] == "mean" else None


def length_plot(lengths: Sequence[int], limit: int, what: str = "tokens a row") -> Figure:
    """A histogram of lengths with a line at `limit`; what lies beyond it, and will be cut, is red."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    fits, beyond = [n for n in lengths if n <= limit], [n for n in lengths if n > limit]
    axes.hist([fits, beyond], bins=40, stacked=True, color=["tab:blue", "tab:red"])
    axes.axvline(limit, color="black", linewidth=1, linestyle="--")
    axes.set(xlabel=what, ylabel="rows", yscale="log")
    axes.set_title(f"{len(beyond):,} of {len(lengths):,} rows are longer than {limit:,}", fontsize=10)
    return figure


def budget_plot(runs: Sequence[Mapping[str, Any]]) -> Figure:
    """Accuracy against thinking tokens: a point a run, a colour a `kind`, error bars of one standard error.

    A run has `kind`, `run` (its label), `tokens` (the mean), `accuracy` and `error`. The runs of the kinds `cut`,
    `as it likes` and `extended` are joined by a line: they are one budget, turned up.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    joined = sorted(
        (run["tokens"], run["accuracy"]) for run in runs if run["kind"] in ("cut", "as it likes", "extended")
    )
    axes.plot(*zip(*joined), color="lightgrey", zorder=0)
    for kind in dict.fromkeys(run["kind"] for run in runs):
        these = pd.DataFrame([run for run in runs if run["kind"] == kind])
        axes.errorbar(these["tokens"], these["accuracy"], these["error"], fmt="o", capsize=3, label=kind)
        for _, run in these.iterrows():
            axes.annotate(run["run"], (run["tokens"], run["accuracy"]), (5, 6), textcoords="offset points", fontsize=8)
    axes.set(xlabel="thinking tokens a question (mean)", ylabel="share right", ylim=(0, 1.05))
    axes.margins(x=0.1)  # room for the last label
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def side_by_side(rows: Iterable[Mapping[str, str]], most: int | None = None) -> HTML:
    """A table of texts, one column a key, line breaks kept; for prompts, answers and references.

    `rows` may be a Dataset. Of more than `most`, if that is given, the first ones are shown.
    """
    frame = pd.DataFrame(list(itertools.islice(rows, most)))
    cell = {"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap", "max-width": "28em"}
    head = {"selector": "th", "props": [("text-align", "left")]}
    style = frame.style.format(escape="html").set_properties(**cell).set_table_styles([head])
    return HTML(style.hide(axis="index").to_html())


def label_mask(tokenizer: Any, input_ids: Sequence[int], labels: Sequence[int]) -> HTML:
    """Show which tokens the loss sees: trained tokens on green, ignored ones (label −100) in grey.

    `input_ids` and `labels` are one sequence, of equal length. Tokens are decoded one by one, so
    that a character split over several of them appears as �.
    """
    ids, wanted = [int(i) for i in input_ids], [int(i) for i in labels]
    if len(ids) != len(wanted):
        raise ValueError(f"{len(ids)} input ids but {len(wanted)} labels: pass one sequence with its own labels.")
    spans, trained = [], 0
    for token, label in zip(ids, wanted):
        text = html.escape(tokenizer.decode([token])).replace("\n", "⏎\n")
        learns = label != IGNORED
        trained += learns
        style = "background:#c8e6c9;color:#000" if learns else "color:#9e9e9e"
        spans.append(f'<span style="{style}">{text}</span>')
    head = f"<b>{trained} of {len(ids)} tokens are trained on</b> (green); the grey ones are read only."
    return HTML(f'{head}<pre style="white-space:pre-wrap">{"".join(spans)}</pre>')


def summary(folder: str | Path, **figures: Any) -> pd.DataFrame:
    """Show a lesson's figures and keep them in `folder/summary.json`, where `course run` finds them.

    Raises NotEnough when the disk is full; an earlier summary stays as it was.
    """
    runtime.write_text(Path(folder, "summary.json"), json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
    return pd.DataFrame({"value": figures.values()}, index=pd.Index(figures, name="figure"))


def pictures(paths: Sequence[str | Path], columns: int = 4) -> Figure:
    """A contact sheet of picture files, upright, each under its file name."""
    from PIL import Image

    from helpers.pictures import FORMATS, upright

    rows = -(-len(paths) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.8 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    for axes, path in zip(grid, paths):
        with Image.open(path, formats=FORMATS) as picture:
            axes.imshow(upright(picture))
        axes.set_title(Path(path).name, fontsize=8)
    return figure


def agreement_plot(x: Sequence[float], y: Sequence[float], x_name: str, y_name: str, tolerance: float) -> Figure:
    """Two figures for each case against one another, on logarithmic axes: equal on the line, off by `tolerance` on the
    dotted ones.
    """
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    low, high = 0.8 * min(*x, *y), 1.25 * max(*x, *y)
    for slope, style in ((1, "-"), (1 + tolerance, ":"), (1 - tolerance, ":")):
        axes.plot([low, high], [slope * low, slope * high], color="grey", linewidth=1, linestyle=style)
    axes.scatter(x, y, color="tab:blue", s=16, zorder=2)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), xlabel=x_name, ylabel=y_name)
    axes.grid(alpha=0.3)
    return figure


def preferences(log_history: Log, held_out: bool = False) -> pd.DataFrame:
    """What DPO logs at each step: `loss`, `margins`, `accuracies`, the implicit rewards `chosen` and `rejected`, and
    the answers' log-probabilities `logps/chosen` and `logps/rejected` (sums over tokens, batch means).

    With `held_out`, what `trainer.evaluate()` logged. Raises ValueError when no step logged a margin.
    """
    prefix = "eval_" if held_out else ""
    names = {"loss": "loss", "logps/chosen": "logps/chosen", "logps/rejected": "logps/rejected"}
    names |= {f"rewards/{name}": name for name in ("margins", "accuracies", "chosen", "rejected")}
    rows = {
        entry["step"]: {name: entry[prefix + key] for key, name in names.items()}
        for entry in log_history
        if f"{prefix}rewards/margins" in entry
    }
    if not rows:
        raise ValueError("the log holds no margins; pass trainer.state.log_history of a DPO run, after training.")
    return pd.DataFrame.from_dict(rows, orient="index").astype(float).rename_axis("step")


def preference_plot(log_history: Log) -> Figure:
    """Loss, margin, accuracy, implicit rewards and log-probabilities of a DPO run; dots are held-out pairs."""
    train = preferences(log_history)
    held_out = preferences(log_history, held_out=True) if any("eval_loss" in e for e in log_history) else train[:0]
    figure = Figure(figsize=(14, 2.8), layout="constrained")
    panels = {"loss": ["loss"], "margin": ["margins"], "accuracy": ["accuracies"]}
    panels |= {"implicit reward": ["chosen", "rejected"], "log-probability": ["logps/chosen", "logps/rejected"]}
    for (title, columns), axes in zip(panels.items(), figure.subplots(1, len(panels))):
        for column, color in zip(columns, ("tab:blue", "tab:red")):
            axes.plot(train.index, train[column], color=color, alpha=0.3, linewidth=1)
            smooth = train[column].rolling(10, min_periods=1).mean()
            axes.plot(smooth.index, smooth, color=color, label=column.removeprefix("logps/"))
            axes.plot(held_out.index, held_out[column], "o", color=color, markersize=4)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if len(columns) > 1:
            axes.legend(frameon=False, fontsize=8)
    return figure


def load_plot(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Throughput, latency and time to the first token against requests at once; `runs` by name, from `load.measure`."""
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    panels = {
        "tokens/s, all requests together": ["tokens/s"],
        "seconds a request (dotted: p95)": ["latency p50", "latency p95"],
    }
    panels |= {"seconds to the first token": ["first token p50"]}
    for (title, columns), axes in zip(panels.items(), figure.subplots(1, len(panels))):
        for number, (name, run) in enumerate(runs.items()):
            for column, style in zip(columns, ("o-", "o:")):
                label = name if style == "o-" else None
                axes.plot(run.index, run[column], style, color=f"C{number}", label=label)  # begins again after ten
        axes.set_xscale("log", base=2)
        axes.set(xlabel="requests at once", title=title, ylim=(0, None), xticks=list(run.index))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure
