"""The drawn dashboards: deterministic, within their frame, true to their reading; and the command that draws more."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, PngImagePlugin

from helpers import data, report
from helpers.nano import dashboards, vl
from helpers.nano.dashboards import DIAL_MAX, FIELDS, HARD, SIZE, STYLES, Look, Reading, draw
from tools import draw_dashboards, make_samples
from tools.samples import odometer

LOOKS = [Look(style, night) for style in STYLES for night in (False, True)]
READING = Reading(61923, "km", 57, "14:30", -12, "C", "D")


def picture(reading: Reading, look: Look, seed: int = 0) -> Image.Image:
    return draw(reading, look, random.Random(seed))


@given(st.integers())
def test_readings_are_such_as_a_car_shows(seed: int) -> None:
    reading = dashboards.random_reading(random.Random(seed))
    assert 100 <= reading.distance < 1_000_000 and 0 <= reading.speed <= DIAL_MAX[reading.unit]
    assert reading.gear != "P" or reading.speed == 0
    assert (reading.unit, reading.degrees) in {("km", "C"), ("mi", "F")}
    hour, minute = map(int, reading.time.split(":"))
    assert hour < 24 and minute < 60 and len(reading.time) == 5


@settings(max_examples=30, deadline=None)
@given(st.integers(), st.sampled_from(LOOKS), st.sampled_from(["", *HARD]))
def test_a_seed_draws_one_picture(seed: int, look: Look, hard: str) -> None:
    reading, look = dashboards.random_reading(random.Random(seed)), replace(look, hard=hard)
    one, other = picture(reading, look, seed), picture(reading, look, seed)
    assert one.size == SIZE and one.mode == "RGB" and one.tobytes() == other.tobytes()


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.style}-{'night' if look.night else 'day'}")
@pytest.mark.parametrize(
    "change",
    [{"distance": 61928}, {"speed": 97}, {"time": "14:36"}, {"temperature": 12}, {"gear": "P"}, {"unit": "mi"}],
    ids=str,
)
def test_each_field_shows(look: Look, change: dict) -> None:
    other = picture(replace(READING, **change), look)
    assert ImageChops.difference(picture(READING, look), other).getbbox() is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(), st.sampled_from(LOOKS))
def test_glyphs_spell_the_reading_and_stand_in_the_picture(seed: int, look: Look) -> None:
    reading = dashboards.random_reading(random.Random(seed))
    _, glyphs = dashboards.draw_glyphs(reading, look, random.Random(seed))
    spelt = {field: "".join(g.character for g in glyphs if g.field == field) for field in FIELDS}
    assert spelt["time"] == reading.time and spelt["gear"] == reading.gear
    assert int(spelt["distance"]) == reading.distance
    assert spelt["speed"] == ("" if look.style == "needle" else str(reading.speed))
    assert spelt["temperature"] == f"{reading.temperature}°{reading.degrees}"
    for glyph in glyphs:
        left, upper, right, lower = glyph.box
        assert 0 <= left < right <= SIZE[0] and 0 <= upper < lower <= SIZE[1]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: f"{look.style}-{'night' if look.night else 'day'}")
def test_a_glyph_is_drawn_where_its_box_says(look: Look) -> None:
    with_gear, glyphs = dashboards.draw_glyphs(READING, look, random.Random(3))
    without = picture(replace(READING, gear=" "), look, 3)
    (box,) = [glyph.box for glyph in glyphs if glyph.field == "gear"]
    left, upper, right, lower = ImageChops.difference(with_gear, without).getbbox()
    assert box[0] <= left and right <= box[2] and abs(upper - box[1]) < 8 and abs(lower - box[3]) < 8


@pytest.mark.parametrize("hard", HARD)
def test_hard_pictures_differ_from_clear_ones(hard: str) -> None:
    clear, spoilt = picture(READING, LOOKS[1], 5), picture(READING, replace(LOOKS[1], hard=hard), 5)
    assert ImageChops.difference(clear, spoilt).getbbox() is not None


def test_the_eyes_labels_cover_every_glyph() -> None:
    seen = vl.look(random.Random(2))
    characters = {vl.CHARACTERS[character] for row in seen.cells for character, _ in row}
    assert set(seen.reading.time) | {seen.reading.gear} <= characters
    places = {place for row in seen.cells for _, place in row}
    assert 0 in places and max(places) <= len(FIELDS) * vl.PLACES


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_nano_model_is_not_taught_the_lessons_format(language: str) -> None:
    rng = random.Random(0)
    for _ in range(300):
        said = vl.caption(dashboards.random_reading(rng), language, rng)
        assert not data.parse_reading(said), said


def test_samples_are_small_and_of_every_kind() -> None:
    folder = make_samples.OUT / "odometer"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 2_000_000
    looks = [entry["look"] for entry in json.loads((folder / "truth.json").read_text(encoding="utf-8")).values()]
    assert {look["style"] for look in looks} == set(STYLES)
    assert {look["hard"] for look in looks} == {"", *HARD}
    assert {look["night"] for look in looks} == {True, False}
    units = {entry["distance"].split()[1] for entry in json.loads((folder / "truth.json").read_text()).values()}
    assert units == {"km", "mi"}


def test_pictures_are_compared_by_their_pixels() -> None:
    image = Image.effect_noise((8, 8), 90).convert("RGB")

    def png(image: Image.Image, **options) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        return buffer.getvalue()

    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "packed otherwise")
    assert make_samples.same("a.png", png(image), png(image, pnginfo=note, compress_level=0))
    other = image.copy()
    other.putpixel((3, 3), (1, 2, 3))
    assert not make_samples.same("a.png", png(image), png(other))
    assert not make_samples.same("a.png", png(image), png(image.resize((8, 9))))
    assert not make_samples.same("a.json", b"{}", b"{ }")


def test_more_can_be_drawn(tmp_path, capsys) -> None:
    out = tmp_path / "more"
    assert draw_dashboards.main(["--count", "6", "--seed", "3", "--out", str(out)]) == 0
    for language in odometer.LABELS:
        rows = data.load_odometer_excel(out / f"odometer_{language}.xlsx")
        assert len(rows) == 6 and not data.check_labels(rows, data.load_truth(out / "truth.json"))
    again = tmp_path / "again"
    draw_dashboards.main(["--count", "6", "--seed", "3", "--out", str(again)])
    names = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert len(names) == 9 and all((out / n).read_bytes() == (again / n).read_bytes() for n in names)
    assert draw_dashboards.main(["--count", "6", "--out", str(out)]) == 1
    assert draw_dashboards.main(["--count", "0", "--out", str(tmp_path / "no")]) == 1
    assert "not empty" in (said := capsys.readouterr().err) and "--count" in said


def test_a_contact_sheet_names_its_pictures(tmp_path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.new("RGB", (28, 14), "red").save(path)
    figure = report.pictures(paths, columns=4)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [path.name for path in paths] and len(figure.axes) == 8
    assert shown[0].images[0].get_array().shape == (14, 28, 3)
