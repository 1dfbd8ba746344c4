"""Dashboards drawn from a reading: five styles, day and night, kilometres and miles, a few hard to read.

They stand in for photographs. The sample data (`data_samples/odometer`) and the pictures that the nano vision model
learns to see from are both drawn here; `python -m tools.draw_dashboards` draws as many more as you like.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (280, 168)
"""Width and height in pixels: 10 × 6 cells of 28 × 28, each one token for Qwen2.5-VL."""
CELL = 28
FIELDS = ("distance", "speed", "time", "temperature", "gear")
GEARS = ("P", "R", "N", "D")
STYLES = ("segments", "screen", "drum", "needle", "bar")
HARD = ("blur", "glare", "angle", "hidden")
SPEED_UNITS = {"km": "km/h", "mi": "mph"}
DIAL_MAX = {"km": 220, "mi": 140}

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Reading:
    """What a dashboard shows: distance in `unit` (km or mi), speed in that unit an hour, °C or °F, the gear letter."""

    distance: int
    unit: str
    speed: int
    time: str  # HH:MM, 24 hours
    temperature: int
    degrees: str  # "C" or "F"
    gear: str


@dataclass(frozen=True)
class Glyph:
    """A character of a field where it stands in the picture: the left, upper, right and lower edge in pixels."""

    field: str  # one of FIELDS
    place: int  # 0 for the field's first character
    character: str
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Look:
    """How a reading is drawn."""

    style: str
    night: bool
    hard: str = ""  # one of HARD, or nothing


def random_reading(rng: random.Random) -> Reading:
    """A car somewhere: a parked one stands still, a reversing one is slow, in neutral it may roll."""
    unit = "mi" if rng.random() < 0.25 else "km"
    gear = rng.choice(GEARS)
    slowest, fastest = {"P": (0, 0), "R": (1, 12), "N": (0, 60), "D": (5, DIAL_MAX[unit] - 60)}[gear]
    celsius = rng.randint(-19, 39)
    degrees = "F" if unit == "mi" else "C"
    return Reading(
        distance=rng.randint(100, 299_999),
        unit=unit,
        speed=rng.randint(slowest, fastest),
        time=f"{rng.randrange(24):02}:{rng.randrange(60):02}",
        temperature=celsius if degrees == "C" else round(celsius * 9 / 5 + 32),
        degrees=degrees,
        gear=gear,
    )


def value(reading: Reading, field: str) -> str:
    """A field as it is written: number and unit, a time, a letter."""
    return {
        "distance": f"{reading.distance} {reading.unit}",
        "speed": f"{reading.speed} {SPEED_UNITS[reading.unit]}",
        "time": reading.time,
        "temperature": f"{reading.temperature} °{reading.degrees}",
        "gear": reading.gear,
    }[field]


def random_look(rng: random.Random, hard: float = 0.0) -> Look:
    """A style by day or night; with probability `hard`, something that makes it hard to read."""
    return Look(rng.choice(STYLES), rng.random() < 0.5, rng.choice(HARD) if rng.random() < hard else "")


def draw(reading: Reading, look: Look, rng: random.Random) -> Image.Image:
    """The picture, `SIZE` pixels, RGB. `rng` moves things a little, and places what makes it hard."""
    return draw_glyphs(reading, look, rng)[0]


def draw_glyphs(reading: Reading, look: Look, rng: random.Random) -> tuple[Image.Image, list[Glyph]]:
    """The same, with where each character of a field stands (before a `hard` look turns or hides it)."""
    back, ink, accent = _palette(look, rng)
    picture = Image.new("RGB", SIZE, back)
    pen = ImageDraw.Draw(picture)
    nudge = (rng.randint(-1, 1), rng.randint(-1, 1))
    glyphs: list[Glyph] = []

    def write(field: str, text: str, left: int, top: int, colour: Colour, size: int) -> None:
        """A field's text, its first letter's cell at `left`, `top`; 23 points are 14 pixels a letter, 46 are 28."""
        pitch = size * 14 // 23
        for place, character in enumerate(text):
            x, y = left + pitch * place + nudge[0], top + nudge[1]
            if look.style == "segments" and field == "speed":
                _segments(pen, (x + 3, y - 8), (pitch - 6, 48), character, colour)
            else:
                pen.text((x, y - size // 5), character, colour, _font(size))
            glyphs.append(Glyph(field, place, character, (x, y, x + pitch, y + size * 3 // 4)))

    _panel(pen, look, back, ink)
    write("time", reading.time, 14, 7, ink, 23)
    degrees = f"{reading.temperature}°{reading.degrees}"
    write("temperature", degrees, 196, 7, ink, 23)
    unit = SPEED_UNITS[reading.unit]
    speed = str(reading.speed)
    if look.style == "needle":
        _dial(pen, reading, ink, accent)
    else:
        write("speed", speed, 28, 60, ink, 46)
    if look.style == "bar":
        share = reading.speed / DIAL_MAX[reading.unit]
        pen.rectangle((70, 107, 196, 114), outline=ink)
        pen.rectangle((70, 107, 70 + round(126 * share), 114), fill=accent)
    pen.text((176, 84) if look.style == "needle" else (28 + nudge[0], 102), unit, ink, _font(14))
    write("gear", reading.gear, 224, 65, accent, 46)
    rolls, unit = look.style == "drum", reading.unit
    distance = f"{reading.distance:06}" if rolls else str(reading.distance)
    left = 70
    pen.text((14 + nudge[0], 140 + nudge[1]), "ODO", ink, _font(23))
    if rolls:
        for place in range(6):
            x = left + 14 * place
            pen.rectangle((x - 1, 140, x + 12, 165), fill=(24, 24, 24), outline=_mix(back, ink, 0.5))
    write("distance", distance, left, 144, (238, 238, 232) if rolls else ink, 23)
    pen.text((left + 14 * len(distance) + 12 + nudge[0], 140 + nudge[1]), unit, ink, _font(23))
    return _spoil(picture, look.hard, rng), glyphs


def _palette(look: Look, rng: random.Random) -> tuple[Colour, Colour, Colour]:
    """Background, ink and accent: light by day (the screen styles), dark by night, with a little of chance."""

    def near(*colour: int) -> Colour:
        return tuple(max(0, min(255, part + rng.randint(-12, 12))) for part in colour)  # type: ignore[return-value]

    if look.night:
        inks = {
            "segments": (70, 230, 150),
            "screen": (220, 225, 240),
            "drum": (235, 235, 225),
            "needle": (245, 190, 90),
        }
        return near(14, 17, 24), near(*inks.get(look.style, (120, 200, 255))), near(255, 150, 60)
    backs = {"segments": (196, 208, 186), "screen": (236, 238, 242), "drum": (214, 206, 190), "needle": (226, 226, 222)}
    return near(*backs.get(look.style, (202, 214, 228))), near(26, 28, 34), near(150, 30, 24)


def _panel(pen: ImageDraw.ImageDraw, look: Look, back: Colour, ink: Colour) -> None:
    """What stands still on every dashboard of a style: lines and frames."""
    line = _mix(back, ink, 0.3)
    if look.style in ("segments", "screen", "bar"):
        pen.rounded_rectangle((1, 1, SIZE[0] - 2, SIZE[1] - 2), 8, outline=line)
    pen.line((6, 36, SIZE[0] - 7, 36), fill=line)
    if look.style != "needle":
        pen.line((6, 131, SIZE[0] - 7, 131), fill=line)


def _dial(pen: ImageDraw.ImageDraw, reading: Reading, ink: Colour, accent: Colour) -> None:
    """A half circle of ticks, a number every second one, and the needle: 0 points left, the largest speed right."""
    middle, radius, most = (91, 124), 80, DIAL_MAX[reading.unit]

    def point(share: float, distance: float) -> tuple[float, float]:
        angle = math.pi * (1 - share)
        return middle[0] + distance * math.cos(angle), middle[1] - distance * math.sin(angle)

    pen.arc((middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius), 180, 360, fill=ink)
    for speed in range(0, most + 1, 10):
        share = speed / most
        pen.line((*point(share, radius), *point(share, radius - (9 if speed % 20 == 0 else 5))), fill=ink, width=2)
        if speed % 40 == 0:
            pen.text(point(share, radius - 19), str(speed), ink, _font(11), anchor="mm")
    pen.line((*middle, *point(reading.speed / most, radius - 10)), fill=accent, width=4)
    pen.ellipse((middle[0] - 6, middle[1] - 6, middle[0] + 6, middle[1] + 6), fill=accent)


_LIT = {  # the segments a…g of each digit: top, right up, right down, bottom, left down, left up, middle
    "0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd",
    "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg", " ": "",
}  # fmt: skip


def _segments(pen: ImageDraw.ImageDraw, at: tuple[int, int], size: tuple[int, int], digit: str, ink: Colour) -> None:
    """One seven-segment digit with its upper left corner at `at`."""
    (x, y), (w, h), thick = at, size, 5
    half = h // 2
    places = {
        "a": (x + 3, y, x + w - 3, y + thick),
        "b": (x + w - thick, y + 3, x + w, y + half - 1),
        "c": (x + w - thick, y + half + 2, x + w, y + h - 3),
        "d": (x + 3, y + h - thick, x + w - 3, y + h),
        "e": (x, y + half + 2, x + thick, y + h - 3),
        "f": (x, y + 3, x + thick, y + half - 1),
        "g": (x + 3, y + half - thick // 2, x + w - 3, y + half + thick // 2),
    }
    for segment in _LIT[digit]:
        pen.rectangle(places[segment], fill=ink)


def _spoil(picture: Image.Image, hard: str, rng: random.Random) -> Image.Image:
    """Blur it, lay a bright spot on it, turn it, or hide a part of it."""
    width, height = picture.size
    if hard == "blur":
        return picture.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 3.0)))
    if hard == "angle":
        turned = picture.rotate(
            rng.choice((-1, 1)) * rng.uniform(6, 12), Image.Resampling.BICUBIC, fillcolor=(90, 90, 90)
        )
        return turned
    if hard == "glare":
        spot = Image.new("L", picture.size, 0)
        x, y, r = rng.randint(40, width - 40), rng.randint(30, height - 30), rng.randint(34, 52)
        ImageDraw.Draw(spot).ellipse((x - r, y - r, x + r, y + r), fill=235)
        white = Image.new("RGB", picture.size, (255, 255, 250))
        return Image.composite(white, picture, spot.filter(ImageFilter.GaussianBlur(14)))
    if hard == "hidden":
        x = rng.randint(0, width - 80)
        shape = [
            (x, height),
            (x + 24, height - rng.randint(40, 90)),
            (x + 60, height - rng.randint(40, 90)),
            (x + 80, height),
        ]
        ImageDraw.Draw(picture).polygon(shape, fill=(30, 24, 22))  # the rim of the steering wheel, a hand
    return picture


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans Mono, which comes with matplotlib, so that the pictures need no font of the machine."""
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono-Bold.ttf")
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]
