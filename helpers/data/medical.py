"""Chinese medical dialogues: CSV files in the encodings met in the wild, a folder a department.

The files are read block by block and column by column (Arrow), and the result lies on disk as a memory-mapped
`Dataset`: 800,000 rows take seconds and little memory, where a loop over rows takes minutes and gigabytes.
"""

from __future__ import annotations

import atexit
import csv
import io
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import xxhash
from datasets import Dataset
from tqdm.auto import tqdm

from helpers.data.encodings import find_encoding, known_encoding, utf8_blocks
from helpers.data.rows import DataError, allowed, first_few, there_is

REPOSITORY = "https://github.com/Toyhom/Chinese-medical-dialogue-data"
NAMES = {"section": ("department",), "title": ("title",), "question": ("ask", "question"), "answer": ("answer",)}
"""Our columns and what the files call them; question and answer must be there."""

CSV_BLOCK = 2**21  # bytes; no row may be longer
LONGEST_FIELD = 2**16  # bytes of UTF-8, some 20,000 characters: beyond it, a quotation mark has swallowed rows
NOTHING = pa.array(["", "无", "無"])  # how the files say that a field is empty
MALFORMED = 0.05  # the share of malformed rows above which a file is refused


def read_medical_csv(path: str | Path, encoding: str | None = None) -> Dataset:
    """All rows of one file as they stand, with the columns `section`, `title`, `question` and `answer`.

    The encoding is established over the whole file by strict decoding: UTF-8 with or without BOM, UTF-16, or
    GB18030, which contains GBK and GB2312. A file that could be read in two ways raises `DataError`, as does one that
    is damaged: it names the byte and the line. `encoding` says it instead. Rows with a wrong number of
    fields are skipped, counted and printed (the header is row 1, and blank lines are not counted); more than 5 % of
    them raise `DataError`, too.
    """
    path, counts = _existing(path), Counts()
    with _progress([path]) as bar:
        dataset = _on_disk(_batches(path, encoding, counts, bar), SCHEMA)
    skipped = counts.malformed_text()
    print(f"{path}: {counts.encoding}, {len(dataset):,} rows" + (f"; skipped: {skipped}" if skipped else ""))
    return dataset


def load_medical_dialogues(folder: str | Path, max_chars: int = 1500, encoding: str | None = None) -> Dataset:
    """Questions and answers of all departments: columns `department`, `section`, `title`, `question`, `answer`.

    `folder` holds a folder a department (`IM_内科`: what follows the underscore is its name) with CSV files in it.
    Texts are stripped; a question that is empty or 无 is replaced by its title. Dropped, counted and printed for
    each department: rows without question or answer, repetitions of a question with the same answer, rows of more
    than `max_chars` characters, rows with a wrong number of fields. Raises `DataError` for an absent or empty folder
    and for a file that cannot be read (see `read_medical_csv`).
    """
    files = medical_files(folder)
    seen: set[int] = set()
    counts: dict[str, Counts] = {}

    def cleaned() -> Iterator[pa.RecordBatch]:
        for department, path in ((name, path) for name, paths in files.items() for path in paths):
            tally = counts.setdefault(department, Counts())
            for batch in _batches(path, encoding, tally, bar):
                yield _clean(batch, department, max_chars, seen, tally)

    with _progress([path for paths in files.values() for path in paths]) as bar:
        dataset = _on_disk(cleaned(), pa.schema([pa.field("department", pa.string()), *SCHEMA]))
    print(_report(counts))
    if not len(dataset):
        raise DataError(f"{folder}: no row is left; the table above says why. Check the files, or raise max_chars.")
    return dataset


def medical_files(folder: str | Path) -> dict[str, list[Path]]:
    """The CSV files of each department: of the folder `IM_内科`, the department is 内科.

    Raises `DataError` for a folder that is absent, which says how to get the public one, or that holds no CSV file.
    """
    folder = Path(folder)
    with allowed(folder):
        is_folder, is_something = folder.is_dir(), folder.exists()
    if not is_folder:
        what = "is a file, not a folder" if is_something else f"not found (looked from {Path.cwd()})"
        raise DataError(
            f"{folder}: {what}. DATASET is the folder that holds a folder for each department. Get the public one:\n"
            f"git clone --depth 1 {REPOSITORY}\n"
            "and set DATASET to its folder Data_数据; or set DATASET to data_samples/medical."
        )
    files = [path for path in _below(folder) if path.suffix.lower() == ".csv" and not path.name.startswith(".")]
    files = [path for path in files if there_is(path)]
    if not files:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise DataError(f"{folder}: no CSV file in it or below it; there is {there}. Check DATASET.")
    inside = [path for path in files if path.parent != folder]
    if inside and (outside := [path.name for path in files if path.parent == folder]):
        print(f"{folder}: left out, being in no department's folder: {', '.join(outside)}")
    found: dict[str, list[Path]] = {}
    for path in inside or files:
        found.setdefault(path.parent.name.split("_", 1)[-1], []).append(path)
    return found


def _below(folder: Path) -> list[Path]:
    """The files in a folder and below it. Raises `DataError` for a folder that is closed: rglob passes over it."""

    def refuse(error: OSError) -> None:
        if Path(error.filename).name.startswith((".", "lost+found")):  # a disk's own, where the folder is a whole disk
            return
        with allowed(Path(error.filename)):
            raise error

    return sorted(Path(place) / name for place, _, names in os.walk(folder, onerror=refuse) for name in names)


SCHEMA = pa.schema([pa.field(name, pa.string()) for name in NAMES])


@dataclass
class Counts:
    """What became of a department's rows."""

    encoding: str = ""
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("no question", "no answer", "too long", "duplicate", "malformed"), 0)
    )
    from_title: int = 0
    malformed_rows: list[int] = field(default_factory=list)
    swallowed: list[str] = field(default_factory=list)

    def malformed_text(self) -> str:
        """Where rows were skipped for their form, for the end of a report; empty when none was."""
        rows = self.malformed_rows
        where = f"(row {first_few(rows)}; blank lines not counted)"  # Arrow, which numbers them, drops these unseen
        parts = [f"{len(rows):,} with a wrong number of fields {where}"] if rows else []
        parts += [f"swallowed by a quotation mark that is never closed: {text}" for text in self.swallowed[:5]]
        return "; ".join(parts)


# --- cleaning ---------------------------------------------------------------------------------------------------------


def _clean(batch: pa.RecordBatch, department: str, max_chars: int, seen: set[int], counts: Counts) -> pa.RecordBatch:
    """Strip, fill questions from titles, drop what is unusable; `seen` grows by the hashes of what is kept."""
    section, title, question, answer = (pc.utf8_trim_whitespace(column) for column in batch.columns)
    silent = pc.is_in(question, NOTHING)
    question = pc.if_else(silent, title, question)
    without = pc.is_in(question, NOTHING)
    counts.from_title += (pc.sum(silent).as_py() or 0) - (pc.sum(without).as_py() or 0)
    reasons = {
        "no question": without,
        "no answer": pc.is_in(answer, NOTHING),
        "too long": pc.greater(pc.add(pc.utf8_length(question), pc.utf8_length(answer)), max_chars),
    }
    keep = np.ones(len(batch), dtype=bool)
    for reason, mask in reasons.items():
        hit = mask.to_numpy(zero_copy_only=False) & keep
        counts.dropped[reason] += int(hit.sum())
        keep &= ~hit
    # NUL keeps "ab" + "c" apart from "a" + "bc".
    hashes = _hashes(pc.binary_join_element_wise(question, answer, "\0"))
    for row in np.flatnonzero(keep).tolist():
        if hashes[row] in seen:
            keep[row] = False
            counts.dropped["duplicate"] += 1
        else:
            seen.add(hashes[row])
    counts.kept += int(keep.sum())
    columns = [pa.repeat(pa.scalar(department), len(batch)), section, title, question, answer]
    made = pa.record_batch(columns, names=["department", *SCHEMA.names])
    return made if keep.all() else made.filter(pa.array(keep))


def _hashes(texts: pa.StringArray) -> list[int]:
    """A 64-bit hash of each text; among 800,000 texts two equal ones are a chance of 1 in 60 million."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1].tolist()
    content = memoryview(data) if data is not None else b""
    return [xxhash.xxh3_64_intdigest(content[start:end]) for start, end in pairwise(bounds)]


def _report(counts: dict[str, Counts]) -> str:
    """One line a department: rows read, kept, and dropped by reason; Chinese names take two places a character."""
    reasons = [reason for reason in Counts().dropped if any(c.dropped[reason] for c in counts.values())]
    lines = [["department", "read", "kept", *reasons]]
    numbers = [(name, [c.read, c.kept, *(c.dropped[reason] for reason in reasons)]) for name, c in counts.items()]
    numbers.append(("all", [sum(column) for column in zip(*(row for _, row in numbers))]))
    lines += [[name, *(f"{number:,}" for number in row)] for name, row in numbers]
    widths = [max(map(_width, column)) for column in zip(*lines)]
    table = [
        line[0]
        + " " * (widths[0] - _width(line[0]))
        + "".join(f"  {cell:>{w}}" for cell, w in zip(line[1:], widths[1:]))
        for line in lines
    ]
    if filled := sum(c.from_title for c in counts.values()):
        table.append(f"{filled:,} questions were empty or 无 and are their titles now.")
    table += [f"{name}, malformed: {c.malformed_text()}" for name, c in counts.items() if c.dropped["malformed"]]
    return "\n".join(table)


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


# --- files ------------------------------------------------------------------------------------------------------------


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not there_is(path):
        near = sorted(p.name for p in path.parent.glob("*.csv")) if path.parent.is_dir() else []
        raise DataError(
            f"{path}: not found (looked from {Path.cwd()}). CSV files there: {', '.join(near) or 'none'}. "
            "Check the path."
        )
    return path


def _progress(files: list[Path]) -> tqdm:
    return tqdm(
        total=sum(path.stat().st_size for path in files), desc="reading", unit="B", unit_scale=True, leave=False
    )


def _on_disk(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Dataset:
    """Write the batches to a file that is removed when Python ends, and map it into memory."""
    handle, file = tempfile.mkstemp(suffix=".arrow", dir=_workspace())
    os.close(handle)
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return Dataset.from_file(file)


@cache
def _workspace() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medical-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


# --- CSV --------------------------------------------------------------------------------------------------------------


def _batches(path: Path, encoding: str | None, counts: Counts, bar: tqdm) -> Iterator[pa.RecordBatch]:
    """The rows of one file in blocks, its columns under our names; counts rows read and malformed ones."""
    encoding = known_encoding(encoding, path) if encoding else find_encoding(path)
    counts.encoding = encoding
    blocks = utf8_blocks(path, encoding, bar.update)
    head = b""
    while not re.search(rb"[\r\n]", head.lstrip()):
        if len(head) >= CSV_BLOCK:
            raise DataError(_no_header(path, head, f"no headings that end within {CSV_BLOCK:,} bytes"))
        if (block := next(blocks, None)) is None:
            break
        head += block
    header = _header(path, head)
    stream = io.BufferedReader(_Stream(chain([head], blocks)), CSV_BLOCK)
    malformed: list[int] = []
    swallowed: list[str] = []  # what lies between two stray quotation marks: many rows that look like one

    def skip(row: pa.csv.InvalidRow) -> str:
        if len(row.text.encode()) > LONGEST_FIELD:
            swallowed.append(row.text)
        else:
            malformed.append(row.number or 0)
        return "skip"

    rows = 0
    try:
        reader = pa.csv.open_csv(
            stream,
            pa.csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK),
            pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            pa.csv.ConvertOptions(
                check_utf8=False,  # decoded by us
                strings_can_be_null=False,
                column_types=dict.fromkeys(header.values(), pa.string()),
                include_columns=list(header.values()),
            ),
        )
        for batch in reader:
            empty = pa.repeat(pa.scalar(""), len(batch))
            columns = [batch.column(header[name]) if name in header else empty for name in NAMES]
            made, taken = pa.record_batch(columns, schema=SCHEMA), _swallowed(columns)
            if taken:
                swallowed += ["".join(made.slice(row, 1).to_pylist()[0].values()) for row in taken]
                made = made.take(pa.array(np.setdiff1d(np.arange(len(made)), taken)))
            rows += len(made)
            yield made
    except pa.ArrowKeyError:  # a quotation mark that is never closed: Arrow sees other names than `_header`
        raise DataError(_no_header(path, head, "a quotation mark that is never closed")) from None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not readable as CSV after row {rows:,} ({error}). {QUOTES}") from None
    lost = len(malformed) + sum(text.count("\n") + 1 for text in swallowed)
    counts.read += rows + lost
    counts.dropped["malformed"] += lost
    counts.malformed_rows += malformed
    counts.swallowed += [f"{path.name}, {text.count(chr(10)) + 1:,} lines from {text[:30]!r}" for text in swallowed]
    if lost > MALFORMED * (rows + lost):
        where = f"row {malformed[0]}" if malformed else counts.swallowed[-1].split(", ", 1)[1]
        raise DataError(
            f"{path}, {where}: wrong number of fields, or a quotation mark that is never closed, as in {lost:,} of "
            f"{rows + lost:,} rows (blank lines not counted). {QUOTES}"
        )
    if not rows:
        raise DataError(f"{path}: holds a header and no rows. Delete it, or put the rows in.")


def _swallowed(columns: list[pa.StringArray]) -> list[int]:
    """The rows in which a field is longer than any text should be."""
    longest = np.max([pc.binary_length(column).to_numpy(zero_copy_only=False) for column in columns], axis=0)
    return np.flatnonzero(longest > LONGEST_FIELD).tolist()


QUOTES = 'Put a text with a comma, a line break or a quotation mark into "…", and double the marks inside it: "".'


def _header(path: Path, head: bytes) -> dict[str, str]:
    """Our column names and the file's, from its first line."""
    try:
        raw = next(csv.reader([_first_line(head)]), [])  # cuts as Arrow does
    except csv.Error:  # a field of 131,072 characters
        raw = []
    there = [name.strip().strip('"') for name in raw]
    header = {}
    for ours, theirs in NAMES.items():
        hits = [raw[number] for number, name in enumerate(there) if name.lower() in theirs]
        if len(hits) > 1:
            raise DataError(f"{path}, line 1: the columns {hits} both mean {ours!r}. Rename one.")
        if hits:
            header[ours] = hits[0]
    if missing := [theirs for ours, theirs in NAMES.items() if ours in ("question", "answer") and ours not in header]:
        raise DataError(_no_header(path, head, f"no column {' or '.join(missing[0])}"))
    return header


def _no_header(path: Path, head: bytes, fault: str) -> str:
    """The text of the error for a first line that does not name our columns."""
    line = _first_line(head)
    wanted = ", ".join(" or ".join(theirs) for theirs in NAMES.values())
    whole = "," in line and re.fullmatch(r'"[^"]*"\s*', line)
    return (
        f"{path}, line 1: {fault}. It has: {line[:80] or 'nothing'}. Wanted: {wanted}. "
        + ("Delete the quotation marks around whole lines. " if whole else "")
        + "Rename the columns, or save the table as CSV with commas, its headings in the first line."
    )


def _first_line(head: bytes) -> str:
    return re.split(r"[\r\n]", head.decode("utf-8", "ignore").lstrip("\r\n"), maxsplit=1)[0]


class _Stream(io.RawIOBase):
    """An iterator of byte blocks as a file."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
