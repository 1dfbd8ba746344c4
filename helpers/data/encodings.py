"""Which encoding a Chinese text file is in, settled over the whole file, and its text in UTF-8, block by block."""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from helpers.data.rows import DataError, allowed

BLOCK = 2**20  # bytes read at once: small enough for the processor's cache
BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    "\ufeff".encode("gb18030"): "gb18030",
}
RESAVE = 'Open it in an editor that names the encoding, repair it, and save it as "UTF-8 with BOM".'


def find_encoding(path: str | Path) -> str:
    """The file's encoding: utf-8, utf-16-le, utf-16-be or gb18030; the whole file has been looked at for the first.

    A file that is no UTF-8 is taken for GB18030 and proved to be so when it is decoded. One that is both (a few short
    fields can be) is UTF-8 when only that reads as everyday Chinese; otherwise `DataError`.
    """
    path = Path(path)
    with allowed(path), path.open("rb") as file:
        head = file.read(4)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path}: is UTF-32. Save it as UTF-8 with BOM.")
    for bom, encoding in BOMS.items():
        if head.startswith(bom):
            return encoding
    if head[1:2] == b"\0":  # the header begins with an ASCII letter
        return "utf-16-le"
    if head[:1] == b"\0":
        return "utf-16-be"
    fault = first_fault(path, "utf-8")
    if fault is not None:
        _refuse_damaged_utf8(path, fault)
        _refuse_other_encodings(path)
        return "gb18030"
    if first_fault(path, "gb18030") is not None:
        return "utf-8"
    with path.open("rb") as file:
        raw = file.read(BLOCK)
    readings = {name: raw[: raw.rfind(b"\n") + 1 or None].decode(name, "ignore") for name in ("utf-8", "gb18030")}
    if readings["utf-8"] == readings["gb18030"]:  # ASCII
        return "utf-8"
    if everyday(readings["utf-8"]) >= 0.8 > everyday(readings["gb18030"]):
        return "utf-8"
    samples = {name: "".join(sign for sign in text if ord(sign) > 127)[:12] for name, text in readings.items()}
    raise DataError(
        f"{path}: too short to tell its encoding. As UTF-8 it reads {samples['utf-8']!r}, as GB18030 "
        f'{samples["gb18030"]!r}. Save it as "UTF-8 with BOM", or pass encoding="utf-8" or encoding="gb18030".'
    )


def known_encoding(name: str, path: Path) -> str:
    """Python's own name of an encoding that may be spelt otherwise (`UTF8`, `utf_16_le`): BOMs are known by it."""
    try:
        "".encode(name)  # refuses those that are not of texts, too: hex, say
    except LookupError:
        raise DataError(
            f"{path}: {name!r} is no encoding that Python knows. Choose utf-8, gb18030, big5 or another, or leave "
            "`encoding` out."
        ) from None
    return codecs.lookup(name).name


def everyday(text: str) -> float:
    """The share of the characters beyond ASCII that are among the 3,755 commonest Han or Chinese punctuation."""
    beyond = [sign for sign in text if ord(sign) > 127]
    return sum(sign in _common() for sign in beyond) / len(beyond) if beyond else 0.0


@cache
def _common() -> frozenset[str]:
    """GB2312's first level (rows 16 to 55) and its punctuation and full-width signs (rows 1 and 3)."""
    rows = [0xA1, 0xA3, *range(0xB0, 0xD8)]
    return frozenset(
        "".join(bytes([row, cell]).decode("gb2312", "ignore") for row in rows for cell in range(0xA1, 0xFF))
    )


def first_fault(path: Path, encoding: str) -> int | None:
    """The place of the first byte that is not in this encoding; None when the whole file is."""
    decoder, done = codecs.getincrementaldecoder(encoding)(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                return done - pending + error.start
            done += len(block)
    pending = len(decoder.getstate()[0])
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return done - pending
    return None


def _refuse_damaged_utf8(path: Path, fault: int) -> None:
    """Raise when the text around the first fault is Chinese in UTF-8 after all: a damaged file, not GB18030."""
    with path.open("rb") as file:
        file.seek(max(0, fault - BLOCK // 16))
        around = file.read(BLOCK // 8)
    text = around.decode("utf-8", "replace")
    common, high = sum(sign in _common() for sign in text), int((np.frombuffer(around, dtype=np.uint8) > 127).sum())
    if 3 * common > high / 2:  # three bytes a Han character
        raise DataError(f"{path}, {place(path, fault)}: not UTF-8, though the text around it is. {RESAVE}")


def _refuse_other_encodings(path: Path) -> None:
    """Raise when a text of some length reads as GB18030, but hardly a character is an everyday one: Big5, say."""
    with path.open("rb") as file:
        raw = file.read(BLOCK // 16)
    text = "".join(sign for sign in raw.decode("gb18030", "ignore") if ord(sign) > 127)
    if len(text) >= 500 and everyday(text) < 0.7:
        raise DataError(
            f"{path}: could be read as GB18030, but is hardly that: it would begin {text[:12]!r}. Save Big5 or "
            'another encoding as "UTF-8 with BOM"; if it is right so, pass encoding="gb18030".'
        )


def utf8_blocks(path: Path, encoding: str, progress: Callable[[int], object] = int) -> Iterator[bytes]:
    """The file's text in UTF-8, without BOM, strictly decoded, in blocks; `progress` is told the bytes of each.

    Raises `DataError` with the byte and the line of what cannot be decoded.
    """
    bom = next((bom for bom, name in BOMS.items() if name == encoding), b"")
    decoder = codecs.getincrementaldecoder(encoding)()
    with allowed(path), path.open("rb") as file:
        start = len(bom) if file.read(len(bom)) == bom else 0
        file.seek(start)
        while True:
            block = file.read(BLOCK)
            if encoding == "gb18030" and len(block) == BLOCK:  # whose characters contain no byte of a line end
                if end := max(block.rfind(b"\n"), block.rfind(b"\r")) + 1:
                    file.seek(end - len(block), os.SEEK_CUR)
                    block = block[:end]
                else:
                    block += file.readline()
            try:
                yield _decode(decoder, block, encoding).encode()
            except UnicodeError as error:
                fault = (
                    start + getattr(error, "start", 0) - (len(decoder.getstate()[0]) if encoding != "gb18030" else 0)
                )
                raise DataError(_undecodable(path, encoding, fault)) from None
            start += len(block)
            progress(len(block))
            if not block:
                return


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, encoding: str) -> str:
    if encoding == "gb18030":
        try:
            return block.decode("gbk")  # the same text where it succeeds, and a third faster
        except UnicodeDecodeError:
            return block.decode("gb18030")
    return decoder.decode(block, final=not block)


def _undecodable(path: Path, encoding: str, fault: int) -> str:
    text = f"{path}, {place(path, fault)}: not {encoding.upper()}"
    if encoding == "gb18030" and (other := first_fault(path, "utf-8")) is not None:
        text += f", and not UTF-8 either ({place(path, other)})"
    return f"{text}. {RESAVE}"


def place(path: Path, offset: int) -> str:
    """`byte 98,116 (line 231)`; bytes count from 0, lines from 1."""
    line, left = 1, offset
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(BLOCK, left))):
            line += block.count(b"\n")
            left -= len(block)
    return f"byte {offset:,} (line {line:,})"
