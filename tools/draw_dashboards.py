"""Draw dashboards to train on: pictures, a sheet in each language and the truth.

    python -m tools.draw_dashboards --count 200 --seed 7 --out folder

The result has the layout of `data_samples/odometer`; give a sheet of it to the lesson as DATASET.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tools.samples import odometer


def main(argv: list[str] | None = None) -> int:
    """Write the folder; 1 and a reason when it holds something already or the numbers make no sense."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="how many pictures (default 200)")
    parser.add_argument("--seed", type=int, default=7, help="another seed draws other dashboards (default 7)")
    parser.add_argument("--hard", type=float, default=odometer.HARD, help="share that is hard to read (default 0.1)")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write, new or empty")
    asked = parser.parse_args(argv)
    if not 1 <= asked.count <= 99_999 or not 0 <= asked.hard <= 1:
        print("--count must be 1 to 99,999 and --hard 0 to 1.", file=sys.stderr)
        return 1
    if asked.out.exists() and any(asked.out.iterdir()):
        print(f"{asked.out} is not empty; name another folder.", file=sys.stderr)
        return 1
    drawings = odometer.drawn(asked.count, asked.seed, asked.hard)
    readings = [reading for reading, *_ in drawings]
    written = {odometer.name(number): png for number, (*_, png) in enumerate(drawings, start=1)}
    for language in odometer.LABELS:
        written[f"odometer_{language}.xlsx"] = odometer.sheet(odometer.rows(readings, language, wrong=None))
    written["truth.json"] = odometer.truth(drawings)
    for name, content in written.items():
        path = asked.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    print(f"wrote {asked.count} pictures, two sheets and truth.json to {asked.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
