"""Pictures as a viewer shows them, and what they cost: the loader, the model and the notebook see the same."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What may be opened. Pillow knows more, among them EPS, which starts a program that draws what the file says."""
MOST_PIXELS = 80_000_000
"""Width × height of the largest picture that is opened: up to 1.5 GB for a moment. Phones have 12 to 64 million."""
LONGEST = 200
"""How many times as long as wide a picture may be: beyond it, Qwen2.5-VL's processor refuses."""
CELL = 28
"""Pixels on a side of what becomes one token: 2 × 2 patches of 14 × 14 (Qwen2-VL and Qwen2.5-VL)."""


def upright(picture: Image.Image) -> Image.Image:
    """The picture, of several the first, in RGB: turned as its EXIF note says, in 8 bits, transparency on white."""
    import numpy as np
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on damaged notes
        picture = ImageOps.exif_transpose(picture)  # a phone's photograph lies on its side, with a note
    if picture.mode.startswith(("I", "F")):  # convert() would make everything above 255 white
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float32))
        low, high = (0, 65535) if picture.mode.startswith("I;16") else (grey.min(), grey.max())
        picture = Image.fromarray(np.uint8((grey - low) / ((high - low) or 1) * 255))
    if picture.has_transparency_data:  # below what is transparent stands any colour, black for the most part
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def shrink(picture: Image.Image, max_tokens: int) -> Image.Image:
    """The picture upright, in RGB, its sides rounded to multiples of 28: at most `max_tokens` tokens; see `tokens`.

    Qwen2.5-VL's processor does the same, by the same function; done here, the cost is in plain sight. Its smallest
    picture has 4 to 8 tokens; below 8, `max_tokens` is a wish that it may overrule. A strip one cell high is shortened
    to what is allowed. Raises ValueError for `max_tokens` below 1, or a picture more than 200 times as long as wide.
    """
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    if max_tokens < 1:
        raise ValueError(f"max_tokens={max_tokens}: a picture costs at least one token.")
    picture = upright(picture)
    fewest = 4 if max_tokens >= 8 else 1
    height, width = smart_resize(picture.height, picture.width, CELL, fewest * CELL**2, max_tokens * CELL**2)
    if min(height, width) == CELL:  # rounded up, and so longer for its width than it was
        longest = min(max_tokens, LONGEST) * CELL
        height, width = min(height, longest), min(width, longest)
    return picture if picture.size == (width, height) else picture.resize((width, height))


def tokens(picture: Image.Image) -> int:
    """How many tokens a picture from `shrink` costs: (height / 28) · (width / 28)."""
    return (picture.height // CELL) * (picture.width // CELL)


def check_picture(path: Path) -> None:
    """Decode the whole picture as `upright` does; raise ValueError that says why it cannot be used, and what to do."""
    from PIL import Image, UnidentifiedImageError

    mend = "Replace it, or save it again as PNG or JPEG"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's on large pictures and damaged EXIF notes
            with Image.open(path, formats=FORMATS) as picture:
                fault = _too_large(*picture.size)
                if not fault:
                    upright(picture)  # verify() would miss a file cut short
    except Image.DecompressionBombError:
        fault = f"has far more than {MOST_PIXELS:,} pixels. Make it smaller"
    except UnidentifiedImageError:
        fault = f"cannot be read as a picture (none of {', '.join(FORMATS)}). {mend}"
    except PermissionError as error:
        fault = f"cannot be read ({error.strerror}). Allow reading it, or copy it to a folder of your own"
    except Exception as error:  # each format has errors of its own
        fault = f"cannot be read as a picture ({str(error) or type(error).__name__}). {mend}"
    if fault:
        raise ValueError(f"{path} {fault}.")


def _too_large(width: int, height: int) -> str:
    if width * height > MOST_PIXELS:
        return f"has {width:,} × {height:,} pixels; {MOST_PIXELS:,} at most. Make it smaller"
    if max(width, height) > LONGEST * min(width, height):
        return f"has {width:,} × {height:,} pixels; at most {LONGEST} times as long as wide. Cut out what is to be read"
    return ""
