"""The records as pictures under benchmarks/plots/, by `course bench --report`; the same record gives the same bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
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


# By the beginning of a record's name, the first that fits; None: no picture.
PLOTS: dict[str, Callable[[dict[str, Any], list[Axes]], None] | None] = {
    "medical": scaling,
    "sft_profile": None,
    "sft": speed_and_memory,
}


def draw(record: dict[str, Any], name: str, path: Path) -> bool:
    """Draw a record into an SVG file; False when there is no picture for its kind."""
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
        target = root / FOLDER / f"{path.stem}.svg"
        if draw(json.loads(path.read_text(encoding="utf-8")), path.stem, target):
            drawn.append(target)
    return drawn
