"""Pictures as phones, scanners and students make them: refused with the row that names them, or seen upright and whole."""

from __future__ import annotations

import builtins
import io
import struct
import subprocess
import time
import tracemalloc
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from mends import says_what_to_do
from openpyxl import Workbook
from PIL import Image, ImageOps

from helpers import data, pictures, report
from helpers.data import DataError
from helpers.pictures import LONGEST, MOST_PIXELS, upright

pytestmark = pytest.mark.notebook  # together they take longer than the inner loop should

NOISE = Image.effect_noise((64, 64), 90)
PAGE = Image.new("RGB", (168, 112), "white")
PAGE.paste("black", (0, 0, 84, 56))
"""Dark in its upper left quarter: whoever sees it turned, washed out or inside out sees another picture."""


@cache
def processor():
    """As Qwen2.5-VL has it; its import takes seconds, also where no test of this file is run."""
    from transformers import Qwen2VLImageProcessor

    return Qwen2VLImageProcessor(min_pixels=4 * 28 * 28, max_pixels=16384 * 28 * 28)


def saved(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, content: bytes = b"", depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG by hand: what its head says need not be what follows. `colour` 0 is gray, 2 RGB."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + body


def sheet(folder: Path, *pictures: tuple[str, bytes]) -> Path:
    """A sheet of these pictures; each answer is its picture's name."""
    book = Workbook()
    book.active.append(["id", "prompt", "image", "response"])
    for number, (name, content) in enumerate(pictures, start=1):
        (folder / name).write_bytes(content)
        book.active.append([number, "what?", name, f"this is {name}"])
    book.save(folder / "sheet.xlsx")
    return folder / "sheet.xlsx"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n%%EOF\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"><rect width="9" height="9"/></svg>'
HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(500)

REFUSED = {
    "0 bytes": ("x.png", b"", "cannot be read as a picture"),
    "a text": ("x.png", "speed: 34 mph\n里程：12 km".encode(), "cannot be read as a picture", "as PNG or JPEG"),
    "an SVG": ("x.svg", SVG, "cannot be read as a picture", "as PNG or JPEG"),
    "an SVG that says PNG": ("x.png", SVG, "cannot be read as a picture"),
    "an iPhone's HEIC": ("x.heic", HEIC, "cannot be read as a picture", "as PNG or JPEG"),
    "a HEIC that says JPEG": ("x.jpg", HEIC, "cannot be read as a picture"),
    "a PDF": ("x.png", saved(PAGE, "PDF"), "cannot be read as a picture"),
    "an icon": ("x.ico", saved(PAGE, "ICO"), "cannot be read as a picture"),
    "an EPS": ("x.eps", EPS, "cannot be read as a picture"),
    "a zip": ("x.png", b"PK\x03\x04" + bytes(100), "cannot be read as a picture"),
    "noise": ("x.jpg", NOISE.tobytes(), "cannot be read as a picture"),
    "a PNG cut short": ("x.png", saved(NOISE)[:-500], "cannot be read as a picture", "truncated"),
    "a PNG with its head only": ("x.png", saved(NOISE)[:33], "cannot be read as a picture"),
    "a PNG with bytes overwritten": ("x.png", saved(NOISE)[:900] + bytes(100) + saved(NOISE)[1000:], "cannot be read"),
    "a PNG without pixels": ("x.png", png(0, 0), "cannot be read as a picture"),
    "a JPEG cut short": ("x.jpg", saved(NOISE, "JPEG")[:-500], "cannot be read as a picture", "truncated"),
    "a GIF cut short": ("x.gif", saved(NOISE, "GIF")[:-900], "cannot be read as a picture"),
    "a WebP cut short": ("x.webp", saved(NOISE, "WEBP")[:-500], "cannot be read as a picture"),
    "a TIFF cut short": ("x.tif", saved(NOISE, "TIFF")[:-900], "cannot be read as a picture"),
    "a BMP cut short": ("x.bmp", saved(NOISE, "BMP")[:-900], "cannot be read as a picture"),
    "100 million pixels": ("x.png", png(20_000, 5_000), "has 20,000 × 5,000 pixels", "Make it smaller"),
    "a decompression bomb": ("x.png", png(60_000, 60_000), "has far more than 80,000,000 pixels", "Make it smaller"),
    "a bomb in a text chunk": (
        "x.png", png(2, 2, bytes(6), more=chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2**26)))), "cannot be read as a picture",
    ),
    "1 : 300": ("x.png", saved(Image.new("L", (10, 3000))), "has 10 × 3,000 pixels", "200 times", "Cut out"),
    "300 : 1": ("x.png", saved(Image.new("L", (3000, 10))), "has 3,000 × 10 pixels", "200 times", "Cut out"),
    "201 : 1": ("x.png", saved(Image.new("L", (LONGEST + 1, 1))), "has 201 × 1 pixels", "200 times"),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", REFUSED)
def test_a_picture_is_refused_with_its_row(tmp_path: Path, name: str, monkeypatch, recwarn) -> None:
    called, content, *says = REFUSED[name]
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a picture started a program"))
    path = sheet(tmp_path, ("good.png", saved(PAGE)), (called, content))
    with pytest.raises(DataError) as caught:
        data.load_odometer_excel(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, row 3: {tmp_path / called}") and all(part in message for part in says), message
    assert says_what_to_do(message), message
    assert message.endswith(".") and len(message) < len(str(path)) * 2 + 300
    assert [str(w.message) for w in recwarn if "PIL" in w.filename] == []


@pytest.mark.bad_input
@pytest.mark.parametrize("where", ["the picture", "its folder"])
def test_a_picture_that_may_not_be_read(tmp_path: Path, monkeypatch, where: str) -> None:
    path = sheet(tmp_path, ("good.png", saved(PAGE)), ("x.png", saved(PAGE)))
    opened, seen = builtins.open, Path.stat

    def refuse(file, *args, **options):  # a mode would not stop root
        if str(file) == str(tmp_path / "x.png"):
            raise PermissionError(13, "Permission denied", str(file))
        return (seen if where == "its folder" else opened)(file, *args, **options)

    monkeypatch.setattr(*((Path, "stat") if where == "its folder" else (builtins, "open")), refuse)
    with pytest.raises(DataError) as caught:
        data.load_odometer_excel(path)
    said = f"{path}, row 3: {tmp_path / 'x.png'} cannot be read (Permission denied). Allow reading it, or copy it to a folder"
    assert str(caught.value).startswith(said), caught.value


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [name for name in REFUSED if "million" in name or "bomb" in name])
def test_a_bomb_is_never_unpacked(tmp_path: Path, name: str) -> None:
    path = sheet(tmp_path, REFUSED[name][:2])
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            data.load_odometer_excel(path)
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def turned(orientation: int) -> bytes:
    """The page as a camera saves it that was held another way: its pixels lie, a note says how to turn them back."""
    lying = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(PAGE.transpose(lying), "JPEG", exif=exif)


def with_palette() -> bytes:
    """The page with one colour of its palette transparent: the white, which is black below."""
    picture = PAGE.convert("L").point(lambda v: 1 if v > 127 else 0).convert("P")
    picture.putpalette([0, 0, 0, 0, 0, 0] + [90] * 30)
    return saved(picture, transparency=1)


def ink(mode: str) -> bytes:
    """The page as black ink on nothing."""
    alpha = ImageOps.invert(PAGE.convert("L"))
    picture = Image.new("L", PAGE.size, 0)
    picture.putalpha(alpha)
    return saved(picture.convert(mode))


def sixteen(picture: Image.Image = PAGE) -> np.ndarray:
    return np.asarray(picture.convert("L"), dtype=np.uint16) * 100 + 3000  # 3,000 … 28,500 of 65,535


def rgb16() -> bytes:
    rows = np.asarray(PAGE, dtype=">u2") * 257
    return png(*PAGE.size, b"".join(b"\0" + row.tobytes() for row in rows), depth=16, colour=2)


GREY = Image.fromarray(sixteen())
BIG_ENDIAN = Image.frombytes("I;16B", PAGE.size, sixteen().astype(">u2").tobytes())
SHORT_NOTE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"
WRONG_NOTE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"

# All show the page; where black and white are others than 0 and 255, they stand behind.
READ: dict[str, tuple] = {
    "CMYK": ("x.jpg", saved(PAGE.convert("CMYK"), "JPEG")),
    "YCbCr": ("x.jpg", saved(PAGE.convert("YCbCr"), "JPEG")),
    "progressive": ("x.jpg", saved(PAGE, "JPEG", progressive=True)),
    **{f"EXIF {n}": ("x.jpg", turned(n)) for n in range(2, 9)},
    "EXIF cut short": ("x.jpg", saved(PAGE, "JPEG", exif=SHORT_NOTE)),
    "EXIF 99": ("x.jpg", saved(PAGE, "JPEG", exif=WRONG_NOTE)),
    "EXIF of nonsense": ("x.jpg", saved(PAGE, "JPEG", exif=b"Exif\0\0nonsense")),
    "two pictures in one JPEG": ("x.jpg", saved(PAGE, "MPO", save_all=True, append_images=[PAGE.rotate(180)])),
    "a palette with transparency": ("x.png", with_palette()),
    "ink on nothing": ("x.png", ink("RGBA")),
    "gray ink on nothing": ("x.png", ink("LA")),
    "a GIF on nothing": ("x.gif", saved(Image.open(io.BytesIO(ink("RGBA"))), "GIF")),
    "a colour that stands for nothing": ("x.png", saved(PAGE, transparency=(255, 255, 255))),
    "one bit": ("x.png", saved(PAGE.convert("1"))),
    "16-bit gray": ("x.png", saved(GREY), 11, 110),
    "16-bit gray, TIFF": ("x.tif", saved(GREY, "TIFF"), 11, 110),
    "16-bit gray, from the other end": ("x.tif", saved(BIG_ENDIAN, "TIFF"), 11, 110),
    "16-bit RGB": ("x.png", rgb16()),
    "32-bit gray": ("x.tif", saved(Image.fromarray(sixteen().astype(np.int32)), "TIFF")),
    "floating-point gray": ("x.tif", saved(Image.fromarray(sixteen().astype(np.float32) / 65535), "TIFF")),
    "an animated GIF": ("x.gif", saved(PAGE, "GIF", save_all=True, append_images=[PAGE.rotate(180)] * 3)),
    "an animated PNG": ("x.png", saved(PAGE, "PNG", save_all=True, append_images=[PAGE.rotate(180)] * 3)),
    "an animated WebP": ("x.webp", saved(PAGE, "WEBP", save_all=True, append_images=[PAGE.rotate(180)] * 3)),
    "a TIFF of two pages": ("x.tif", saved(PAGE, "TIFF", save_all=True, append_images=[PAGE.rotate(180)])),
    "a PNG that says JPEG": ("x.jpg", saved(PAGE)),
    "a JPEG that says nothing": ("x", saved(PAGE, "JPEG")),
    "20,000 pixels wide": ("x.png", saved(PAGE.convert("1").resize((20_000, 400)))),
    "3 : 200": ("x.png", saved(PAGE.resize((6, 400)))),
}  # fmt: skip


def quarters(picture: np.ndarray) -> list[float]:
    """The brightness of the middles of upper left, upper right, lower left, lower right."""
    height, width = picture.shape[:2]
    return [picture[height * y // 8, width * x // 8].mean() for y in (1, 6) for x in (1, 6)]


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", READ)
def test_model_and_notebook_see_the_page_as_it_was_meant(tmp_path: Path, name: str) -> None:
    called, content, *levels = READ[name]
    dark, light = levels or (0, 255)
    rows = data.load_odometer_excel(sheet(tmp_path, ("good.png", saved(NOISE)), (called, content)))
    assert rows[1] == {"id": "2", "prompt": "what?", "image": str(tmp_path / called), "response": f"this is {called}"}
    seen = pictures.shrink(Image.open(rows["image"][1]), 64)
    assert seen.mode == "RGB" and 1 <= pictures.tokens(seen) <= 64
    (shown,) = report.pictures(rows["image"][1:], columns=1).axes[0].get_images()
    for picture in (np.asarray(seen), shown.get_array()):
        assert quarters(picture) == pytest.approx([dark, light, light, light], abs=8)
    assert (seen.width > seen.height) == (shown.get_array().shape[1] > shown.get_array().shape[0])


SIZES = [(1, 1), (1, 2), (27, 29), (1, 200), (200, 1), (4000, 20), (10, 2000), (3, 599), (4032, 3024), (20_000, 100)]


@pytest.mark.bad_input
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("most", [8, 16, 512])
def test_a_picture_of_any_shape_costs_the_model_what_is_said(size: tuple[int, int], most: int) -> None:
    seen = pictures.shrink(Image.new("L", size), most)
    grid = processor()(images=[seen], return_tensors="pt")["image_grid_thw"][0]
    assert int(grid.prod()) // 4 == pictures.tokens(seen) <= most


@pytest.mark.bad_input
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "I", "F", "I;16", "I;16B", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"])  # fmt: skip
def test_every_mode_becomes_rgb(mode: str) -> None:
    picture = upright(Image.new(mode, (3, 2)))
    assert (picture.mode, picture.size) == ("RGB", (3, 2))


@pytest.mark.bad_input
def test_numbers_that_are_none_are_dark() -> None:
    holes = np.float32([[np.nan, 0.0, 1.0]])
    assert np.asarray(upright(Image.fromarray(holes)))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.bad_input
@pytest.mark.timeout(20)
def test_the_largest_picture_is_read_in_seconds(tmp_path: Path) -> None:
    path = sheet(tmp_path, ("large.png", saved(Image.new("1", (20_000, MOST_PIXELS // 20_000)))))
    began = time.process_time()
    assert len(data.load_odometer_excel(path)) == 1
    assert time.process_time() - began < 10
