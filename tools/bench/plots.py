"""The records as pictures under benchmarks/plots/, by `course bench --report`; the same record gives the same bytes."""

from __future__ import annotations

import io
import json
import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = Path("benchmarks") / "plots"


def scaling(record: dict[str, Any], axes: list[Axes]) -> None:
    """Seconds (logarithmic) and memory against rows, a line a side."""
    for axis, figure, label in zip(axes, ("seconds", "peak_gib"), ("seconds", "GiB resident at the most")):
        for name in dict.fromkeys(row["name"] for row in record["rows"]):
            rows = [row for row in record["rows"] if row["name"] == name]
            width = 2.5 if name == "course" else 1.2
            axis.plot([row["rows"] for row in rows], [row[figure] for row in rows], "o-", label=name, linewidth=width)
        axis.set(xscale="log", xlabel="rows", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    axes[0].legend(frameon=False)


def speed_and_memory(record: dict[str, Any], axes: list[Axes]) -> None:
    """Tokens a second, and memory: what the weights take, and what training adds."""
    rows = record["rows"][::-1]
    axes[0].figure.set_figheight(max(3, len(rows) / 3))
    several = len({row.get("model") for row in rows}) > 1
    names = [f"{row['model']}: {row['name']}" if several else row["name"] for row in rows]
    axes[0].barh(names, [row["useful_tokens_per_s"] for row in rows])
    axes[0].set_xlabel("useful tokens/s")
    axes[0].locator_params(axis="x", nbins=5)
    loaded = [row["loaded_gib"] for row in rows]
    axes[1].barh(names, loaded, color="0.8", label="loaded")
    axes[1].barh(names, [row["peak_gib"] - row["loaded_gib"] for row in rows], left=loaded, label="training")
    axes[1].set(xlabel="GiB", yticklabels=[])
    axes[1].legend(frameon=False)


def losses(record: dict[str, Any], axes: list[Axes]) -> None:
    """The packed sides' losses, one on top of the other, and how far each is from their mean."""
    rows = [row for row in record["rows"] if row["packing"]]
    steps = range(1, len(rows[0]["losses"]) + 1)
    mean = [statistics.mean(at_step) for at_step in zip(*(row["losses"] for row in rows), strict=True)]
    for place, row in enumerate(rows):
        width = 6 - 5 * place / len(rows)  # the ones below stay visible
        axes[0].plot(steps, row["losses"], linewidth=width, label=row["name"])
        axes[1].plot(steps, [1000 * (loss - middle) for loss, middle in zip(row["losses"], mean)])
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + (high - low) / 3)  # room for the names
    axes[0].legend(frameon=False, fontsize=7)
    axes[0].figure.suptitle(f"QLoRA SFT, the losses of the packed sides ({record['hardware']})", fontsize=9)
    for axis, label in zip(axes, ("loss", "from their mean, 1/1000")):
        axis.set(xlabel="step", ylabel=label, xticks=steps[4::5])
        axis.grid(alpha=0.3)


# By the beginning of a picture's name, the first that fits; None: no picture.
PLOTS: dict[str, Callable[[dict[str, Any], list[Axes]], None] | None] = {
    "medical": scaling,
    "sft_h200_losses": losses,
    "sft_profile": None,
    "sft_memory": None,
    "sft_quick": None,
    "sft_xformers": None,
    "sft": speed_and_memory,
}


def names(stem: str) -> Iterator[str]:
    """What a record's pictures are called: as the record, and those that say more of it."""
    yield stem
    yield from (name for name in PLOTS if name.startswith(f"{stem}_"))


def draw(record: dict[str, Any], name: str, path: Path) -> bool:
    """Draw a record's picture of this name into an SVG file; False when there is none for its kind."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    plot = next((plot for kind, plot in PLOTS.items() if name.startswith(kind)), None)
    if plot is None:
        return False
    svg = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure = Figure(figsize=(9, 3), layout="constrained")
        FigureCanvasSVG(figure)
        plot(record, list(figure.subplots(1, 2)))
        if not figure.get_suptitle():
            figure.suptitle(f"{record['subject']} ({record['hardware']})", fontsize=9)
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    # Matplotlib names a clip by a hash of its exact place, which another kind of CPU computes to other last digits.
    drawn = svg.getvalue()
    for number, clip in enumerate(dict.fromkeys(re.findall(r"\bp[0-9a-f]{10}\b", drawn))):
        drawn = drawn.replace(clip, f"clip{number}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawn, encoding="utf-8")
    return True


def report(root: Path) -> list[Path]:
    """Draw every record that has a picture; the files written."""
    drawn = []
    for path in sorted((root / "benchmarks" / "records").glob("*.json")):
        for name in names(path.stem):
            target = root / FOLDER / f"{name}.svg"
            if draw(json.loads(path.read_text(encoding="utf-8")), name, target):
                drawn.append(target)
    return drawn
