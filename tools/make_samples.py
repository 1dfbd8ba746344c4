"""Write the small data sets in `data_samples/` from the tables in `tools/samples/`.

    python -m tools.make_samples           write the files
    python -m tools.make_samples --check   say whether the files are what would be written

The same tables always give the same bytes.
"""

from __future__ import annotations

import argparse
import io
import sys

from PIL import Image

from helpers.runtime import root
from tools.samples import alpaca, encyclopedia, forms, gsm8k, medical, medical_o1, odometer, preferences, s1k, town, web

OUT = root() / "data_samples"
PARTS = [alpaca, encyclopedia, forms, gsm8k, medical, medical_o1, odometer, preferences, s1k, town, web]


def contents() -> dict[str, bytes]:
    """What every generated file holds, by its name in `data_samples/`."""
    return {name: content for part in PARTS for name, content in part.files().items()}


def same(name: str, old: bytes, new: bytes) -> bool:
    """Whether two contents of a file are equal; of pictures the pixels count, as PNG packs them in many ways."""
    if not name.endswith(".png") or old == new:
        return old == new
    one, other = (Image.open(io.BytesIO(content)).convert("RGB") for content in (old, new))
    return one.size == other.size and one.tobytes() == other.tobytes()


def main(argv: list[str] | None = None) -> int:
    """Write the files, or with `--check` return 1 and name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file differs")
    check = parser.parse_args(argv).check
    differing = []
    for name, content in contents().items():
        path = OUT / name
        if check:
            if not path.exists() or not same(name, path.read_bytes(), content):
                differing.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            print(f"wrote data_samples/{name}: {len(content):,} bytes")
    if differing:
        print(
            f"not what the generator writes: {', '.join(differing)}; run python -m tools.make_samples", file=sys.stderr
        )
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
