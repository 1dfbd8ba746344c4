"""Pictures as a viewer shows them: what the loader checks, the model sees and the notebook shows is the same."""

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
