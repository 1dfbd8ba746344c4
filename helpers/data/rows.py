"""What the loaders share: rows from files and from the Hub, and errors that name the file, the row and the mend."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, load_dataset

from helpers import hub
from helpers.runtime import Stop, say, without_login, writing


class DataError(Stop, ValueError):
    """Data that cannot be used; the message says where it is and what to do."""


FILL = "Fill in what is missing, or choose another file or data set."
"""The mend where no row is left."""
JSON = (".json", ".jsonl")
OTHERS = (".csv", ".tsv", ".xlsx", ".parquet")
"""Files of tables that most loaders do not read."""
ONLY_JSON = "Save the rows as .json or .jsonl: only these are read here."


def read_json_rows(path: str | Path, listed: str | None = None) -> list[dict[str, Any]]:
    """Read a JSON list of objects (`.json`) or one object a line (`.jsonl`), in UTF-8.

    A row that is a list becomes the field `listed`, if that is given. Raises `DataError` for a missing or empty file,
    text that is not UTF-8 or not JSON, and a row that is no object or holds half a character; rows count from 1.
    """
    path = Path(path)
    lines = path.suffix.lower() == ".jsonl"
    if not there_is(path):
        raise DataError(not_found(path) + (f" {ONLY_JSON}" if path.suffix.lower() in (*OTHERS, ".txt") else ""))
    if path.suffix.lower() in OTHERS:
        raise DataError(f"{path}: is a {path.suffix} file. {ONLY_JSON}")
    text = read_utf8(path)
    halves = re.search(r"\\u[dD][89a-fA-F]", text) is not None  # of emoji, say; each must have its other half
    number = 1  # the line that is being read
    try:
        if lines:
            rows = []
            for number, line in enumerate(text.split("\n"), start=1):
                if line.strip():
                    rows.append(json.loads(line))
        else:
            rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        mend = "Correct this place, or download or save the file again." if path.suffix.lower() in JSON else ONLY_JSON
        if error.msg == "Extra data":
            mend = f"{_extra(error, lines)} {mend}"
        raise DataError(f"{path}, line {line}, column {error.colno}: not JSON ({error.msg}). {mend}") from None
    except RecursionError:
        raise DataError(f"{path}, line {number}: nested too deeply for rows of text. Choose another file.") from None
    except ValueError as error:  # Python refuses to read numbers of more than 4,300 digits
        raise DataError(f"{path}, line {number}: {error}. Write such a number as a text.") from None
    if not isinstance(rows, list):
        raise DataError(f"{path}: holds one {type(rows).__name__}, not a list of rows. Wrap the rows in [ … ].")
    if not rows:
        raise DataError(f"{path}: holds no rows. Choose another file, or add rows to this one.")
    if listed:
        rows = [{listed: row} if isinstance(row, list) else row for row in rows]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, row {number}: is a {type(row).__name__}, not an object with named fields. "
                'Write it as one, {"name": …}, or delete the row.'
            )
        if halves and not _is_whole(row):
            raise DataError(
                f"{path}, row {number}: holds half a character (one \\ud8… escape without its other half), as from a "
                "text that was cut. Mend the text, or delete the row."
            )
    return rows


def _extra(error: json.JSONDecodeError, lines: bool) -> str:
    """What to do about more than one value, in a line or in a file that should hold a list."""
    comma = error.doc[error.pos] == ","
    if lines:
        if comma and not error.doc[error.pos + 1 :].strip():
            return "Delete the comma behind each row: in a .jsonl the line's end parts the rows."
        return "Put each object on a line of its own."
    return "Rows with commas between them? Wrap them in [ … ]." if comma else "One object a line? Name the file .jsonl."


def _is_whole(row: dict[str, Any]) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_utf8(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark. Raises `DataError` for anything else."""
    try:
        with allowed(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start:,} is not UTF-8. Save the file as UTF-8.") from None


@contextmanager
def allowed(path: Path) -> Iterator[None]:
    """Raise `DataError` where the system does not allow to read `path`, or to look into its folder."""
    try:
        yield
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {ALLOW}") from None


ALLOW = "Allow reading it, or copy it to a folder of your own."


def there_is(path: Path) -> bool:
    """Whether there is a file. Raises `DataError` for a folder, and for a file that may not be read."""
    with allowed(path):
        try:
            mode = path.stat().st_mode
        except PermissionError:
            raise
        except (OSError, ValueError):  # nothing, or a name that no file can have
            return False
        if stat.S_ISDIR(mode):
            inside = ", ".join(sorted(p.name for p in path.iterdir() if p.suffix)[:8]) or "no file"
            raise DataError(f"{path}: is a folder, not a file. In it there is: {inside}. Give a file in it.")
        if stat.S_ISREG(mode):
            path.open("rb").close()  # Arrow and Pillow would say less about it
        return stat.S_ISREG(mode)


def is_file(source: str) -> bool:
    """A path rather than a Hub name: it exists, or it ends like a data file."""
    try:
        Path(source).stat()
    except PermissionError:  # in a closed folder, which no Hub name lies in
        return True
    except (OSError, ValueError):
        return Path(source).suffix.lower() in (*JSON, *OTHERS, ".txt")
    return True


def read_rows(
    source: str, columns: tuple[str, ...], config: str | None = None, limit: int | None = None
) -> list[dict[str, Any]] | Dataset:
    """The rows of a file, or of a data set on the Hub (`from_hub`); at most the first `limit`."""
    check_limit(source, limit)
    if is_file(source):
        return read_json_rows(source)[:limit]
    rows = from_hub(source, columns, config)
    return rows.select(range(min(len(rows), limit or len(rows))))


def check_limit(source: str, limit: int | None) -> None:
    """Raise `DataError` for a number of rows below 1; None stands for all."""
    if limit is not None and limit < 1:
        raise DataError(f"{source}: {limit} rows are asked for. Choose 1 or more, or None for all.")


def from_hub(name: str, columns: tuple[str, ...], config: str | None = None) -> Dataset:
    """The `train` split of a data set on the Hub, of its part `config` if it has several.

    It has rows, and the `columns`. `name` may end in `@revision`; the commit that was read is printed.
    """
    repository, revision = hub.split_revision(name)
    with writing(datasets.config.HF_DATASETS_CACHE, "HF_HOME"):
        try:
            data = load_dataset(repository, config, split="train", **({"revision": revision} if revision else {}))
        except Exception as error:  # datasets raises a dozen kinds; each means "not loaded" to a student
            raise hub_error(name, error, "data_samples/alpaca_en.json") from None
    if not len(data):
        raise DataError(f"Data set {name!r} holds no rows in its split 'train'. Choose another data set.")
    missing = [column for column in columns if column not in data.column_names]
    if missing:
        raise DataError(
            f"Data set {name!r} has the columns {data.column_names}; missing: {missing}. "
            "Choose a data set that has them."
        )
    for file in data.cache_files[:1]:  # lies in a folder with the commit's name
        hub.say_commit(name, file["filename"])
    return data


def hub_error(name: str, error: Exception, file: str) -> DataError:
    """What to raise when the Hub does not give the data set `name`; `file` is one that could stand in for it."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DataError(say(hub.WORDS, "no data", name=name, error=without_login(reason), file=file))  # a mirror's login


def text_field(row: dict[str, Any], column: str, source: str, number: int, optional: bool = False) -> str:
    """The text of one field of row `number` (from 1); an absent optional field is an empty text."""
    value = row.get(column)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        fault = f"has no {column!r}" if value is None else f"{column!r} is a {type(value).__name__}, not text"
        raise DataError(f"{source}, row {number}: {fault}. Add the text, or delete the row. It has: {list(row)}.")
    return value


def skipped(reason: str, numbers: list[int]) -> str:
    """The end of a loader's report: how many rows were skipped, why, and which."""
    if not numbers:
        return ", none skipped"
    return f", {len(numbers):,} skipped ({reason}: row {first_few(numbers)})"


def first_few(numbers: Sequence[int]) -> str:
    """The first five of the numbers of rows, for a report: `2, 3, 5, 8, 13, …`."""
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


def not_found(path: Path) -> str:
    """The text of the error for a missing file: where it was looked for, and what is there instead."""
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: not found, and there is no folder {folder} (looked from {Path.cwd()}). Check DATASET."
    with allowed(folder):
        near = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in JSON)
    there = ", ".join(near) or "no JSON file"
    return f"{path}: not found (looked from {Path.cwd()}). In {folder} there is: {there}. Check DATASET."
