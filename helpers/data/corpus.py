"""Plain text to pre-train on: one document a row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset

from helpers import hub
from helpers.data.rows import (
    FILL,
    DataError,
    check_limit,
    hub_error,
    is_file,
    not_found,
    read_json_rows,
    read_utf8,
    skipped,
    text_field,
    there_is,
)

SUFFIXES = (".jsonl", ".json", ".txt", ".parquet")


def load_corpus(
    source: str, config: str | None = None, limit: int | None = None, column: str = "text", shortest: int = 1
) -> Dataset:
    """Load documents, in the column `text`.

    `source` is a `.jsonl`, `.json`, `.parquet` or `.txt` file (in a `.txt` file a blank line ends a document), a file
    on the Hub (`hf://datasets/owner/name/file.json`), or a data set on the Hub, where `config` names its part; a
    revision may follow the name, `owner/name@revision`, and the commit is printed. From the Hub rows are streamed, so
    that the first `limit` of them cost no more than their own download. Documents that are blank, of fewer than
    `shortest` characters, or that stood in an earlier row are skipped, counted and printed.
    Raises `DataError` for a file or row that cannot be read, and when nothing is left.
    """
    check_limit(source, limit)
    kept: dict[str, None] = {}  # in order, and each only once
    left_out: dict[str, list[int]] = {"blank": [], f"under {shortest} characters": [], "an earlier document again": []}
    blank, short, again = left_out.values()
    number = 0
    for number, row in enumerate(islice(_rows(source, config, limit, column), limit), start=1):
        text = text_field(row, column, source, number).strip()
        if not text:
            blank.append(number)
        elif len(text) < shortest:
            short.append(number)
        elif text in kept:
            again.append(number)
        else:
            kept[text] = None
    if not kept:
        raise DataError(
            f"{source}: none of its {number:,} rows holds a document of {shortest} characters or more. {FILL}"
        )
    said = "".join(skipped(reason, numbers) for reason, numbers in left_out.items() if numbers) or skipped("", [])
    size = sum(map(len, kept))
    print(f"{source}: {number:,} rows, {len(kept):,} documents kept ({size:,} characters){said}")
    return Dataset.from_dict({"text": list(kept)})


def _rows(source: str, config: str | None, limit: int | None, column: str) -> Iterator[dict[str, Any]]:
    """The rows of a file or of the Hub, one after another."""
    path = Path(source)
    if source.startswith("hf://") or not is_file(source):
        return _stream(source, config, limit)
    if not there_is(path):
        raise DataError(not_found(path))
    if path.suffix.lower() == ".txt":
        return ({column: text} for text in re.split(r"\n\s*\n", read_utf8(path)))
    if path.suffix.lower() == ".parquet":
        return _parquet(path, column)
    if path.suffix.lower() in SUFFIXES:
        return iter(read_json_rows(path))
    raise DataError(f"{path}: is not one of {', '.join(SUFFIXES)}. Save the texts in one of these forms.")


def _parquet(path: Path, column: str) -> Iterator[dict[str, Any]]:
    """The column of a parquet file, a batch in memory at a time."""
    try:
        file = pq.ParquetFile(path)
        if column not in file.schema_arrow.names:
            raise DataError(f"{path}: has the columns {file.schema_arrow.names}, not {column!r}. Set the column.")
        for batch in file.iter_batches(columns=[column]):  # a damaged page is met here, behind a sound footer
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be read as parquet ({reason}). Download it again.") from None


def _stream(source: str, config: str | None, limit: int | None) -> Iterator[dict[str, Any]]:
    """Rows from the Hub as they are asked for."""
    if limit is None:
        raise DataError(f"{source}: a corpus on the Hub may be hundreds of gigabytes. Say how many rows you want.")
    form = {".parquet": "parquet", ".txt": "text"}.get(Path(source).suffix, "json")
    address = re.fullmatch(r"(hf://datasets/)([^/@]+/[^/@]+)(@[^/]+)?(/.+)", source)
    kind, name, rest = (address[1], address[2] + (address[3] or ""), address[4]) if address else ("", source, "")
    repository, revision = hub.split_revision(name)
    named = {"path": form, "data_files": source} if source.startswith("hf://") else {"path": repository, "name": config}
    if revision and not rest:
        named["revision"] = revision
    try:
        hub.say_commit(kind + name, hub.dataset_commit(repository, revision), rest)
        yield from load_dataset(**named, split="train", streaming=True)
    except Exception as error:  # datasets raises a dozen kinds; each means "not loaded" to a student
        raise hub_error(source, error, "data_samples/general_en.jsonl") from None
