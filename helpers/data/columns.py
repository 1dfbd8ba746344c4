"""Whole columns at once: fill a template, count what forges one, draw a balanced sample."""

from __future__ import annotations

import re
from string import Formatter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Value

from helpers.data.rows import DataError, first_few
from helpers.prompts import CONTROL_TOKEN

SHOWN = 5  # marks named in a report


def add_text(dataset: Dataset, template: str, column: str = "text") -> Dataset:
    """Add the column that `template.format(**row)` would give for each row, computed a thousand rows at a time.

    `template` names columns of text in braces, without conversions; a `column` that is there already is replaced. Rows
    that forge a turn are reported (`report_marks`). Raises ValueError for a name that is no column and a conversion,
    DataError for a field without text.
    """
    pieces, names = _pieces(dataset, template)
    if not len(dataset):
        dataset = dataset.remove_columns([column] if column in dataset.column_names else [])
        return dataset.add_column(column, [], feature=Value("string"))

    def fill(table: pa.Table) -> pa.Table:
        parts = []
        for literal, name in pieces:
            # A literal as a column: as a scalar, Arrow 26 takes time quadratic in the rows.
            parts += [pa.repeat(pa.scalar(literal), len(table))] if literal else []
            # Polars writes large_string, which Arrow does not join with string.
            parts += [table[name].combine_chunks().cast(pa.string())] if name is not None else []
        if column in table.column_names:
            table = table.drop_columns(column)
        return table.append_column(column, pc.binary_join_element_wise(*parts, ""))

    filled = dataset.with_format("arrow").map(fill, batched=True, desc="template").with_format(None)
    asked = dataset if column in names else filled  # the latter's rows lie in order, which reads several times faster
    found, empty = _look(asked, pieces, names)
    for name, numbers in empty.items():
        raise DataError(
            f"column {name!r} has no text in {len(numbers):,} of {len(asked):,} rows (row {first_few(numbers)}). "
            f"Leave them out: rows.filter(lambda row: row[{name!r}] is not None)."
        )
    _report(found, len(asked))
    return filled


def report_marks(dataset: Dataset, template: str) -> dict[str, list[int]]:
    """Print how many rows hold, within their own text, what the template or a chat format steers by, and which.

    That is a control token, `<|im_end|>` say (`prompts.CONTROL_TOKEN`), or a mark of the template: a line of it that
    begins with #, such as `### Response:`, and a tag, such as `<think>`, with its closing one. The tokenizer and the
    label mask cannot tell a typed one from the template's own: a question that holds `### Response:` has what follows
    trained as an answer. The rows are not changed: a text about chat formats may hold such a mark rightly.

    `template` names columns in braces; `prompts.alpaca("{instruction}", "{input}", "{output}")` is one. Gives for
    each mark the numbers of its rows, from 1. Raises as `add_text` does, but a field without text is an empty one, and
    a column may hold messages: looked through is their `content`.
    """
    found, _ = _look(dataset, *_pieces(dataset, template, messages=True))
    _report(found, len(dataset))
    return found


def _look(
    dataset: Dataset, pieces: list[tuple[str, str | None]], names: list[str]
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """The rows, from 1, of each mark, and of each column those without a text; the columns are read once, in blocks."""
    literals = "\n".join(literal for literal, _ in pieces)
    marks = {line.strip() for line in literals.splitlines() if line.startswith("#")}
    marks |= {f"<{slash}{tag}>" for tag in re.findall(r"</?(\w+)>", literals) for slash in ("", "/")}
    pattern = "|".join([CONTROL_TOKEN, *map(re.escape, sorted(marks))])
    found: dict[str, list[int]] = {}
    empty: dict[str, list[int]] = {}
    before = 0
    for table in dataset.select_columns(names).with_format("arrow").iter(1000):
        fields = [_texts(table[name].combine_chunks()) for name in names]
        for name, texts in zip(names, fields):
            if texts.null_count:
                places = np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False))
                empty.setdefault(name, []).extend((before + places + 1).tolist())
        hits = [
            pc.match_substring_regex(texts, pattern).fill_null(False).to_numpy(zero_copy_only=False) for texts in fields
        ]
        for place in np.flatnonzero(np.any(hits, axis=0)).tolist():
            texts = [field[place].as_py() or "" for field in fields]
            for mark in sorted({mark for text in texts for mark in re.findall(pattern, text)}):
                found.setdefault(mark, []).append(before + place + 1)
        before += len(table)
    return found, empty


def _holds_messages(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_struct(kind.value_type) and "content" in kind.value_type.names


def _texts(column: pa.Array) -> pa.Array:
    """The column itself, or of messages a text a row: what they say, one below the other."""
    if not _holds_messages(column.type):
        return column
    said = pc.fill_null(pc.struct_field(column.values, "content").cast(pa.string()), "")
    return pc.binary_join(pa.ListArray.from_arrays(column.offsets, said), "\n")


def _report(found: dict[str, list[int]], rows: int) -> None:
    """Print which marks were found in which of so many rows, the frequent ones first; nothing where there is none."""
    if not found:
        return
    print(
        f"marks: {len(set().union(*found.values())):,} of {rows:,} rows hold a control token or a mark of the template "
        "within their own text, and training takes it for a real one:"
    )
    for mark, numbers in sorted(found.items(), key=lambda item: -len(item[1]))[:SHOWN]:
        print(f"  {mark}: {len(numbers):,} (row {first_few(numbers)})")
    if len(found) > SHOWN:
        print(f"  and {len(found) - SHOWN:,} more")
    print("Read these rows; what does not belong there is to be mended or left out. Nothing was changed.")


def _pieces(dataset: Dataset, template: str, messages: bool = False) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The literals of a template, each with the column that follows it or None, and the columns, each once.

    Raises ValueError for other forms, for no column and a missing one, DataError for a column that is not text,
    nor `messages` where these will do.
    """
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"the template: {error}. A brace of the text itself is written twice, {{{{ or }}}}.") from None
    for _, name, spec, conversion in pieces:
        if name is not None and (spec or conversion):
            raise ValueError(f"the template has a conversion or a format behind {name!r}; write {{{name}}} alone.")
    names = list(dict.fromkeys(name for _, name, _, _ in pieces if name is not None))
    if not names:
        raise ValueError(f"the template names no column; in braces, one or more of {dataset.column_names}.")
    if missing := [name for name in names if name not in dataset.column_names]:
        raise ValueError(f"the template names {missing}; the data set has the columns {dataset.column_names}.")
    for name in names:
        kind = getattr(dataset.features[name], "dtype", type(dataset.features[name]).__name__)
        if kind not in {"string", "large_string"} and not (
            messages and _holds_messages(dataset.features.arrow_schema.field(name).type)
        ):
            raise DataError(
                f"column {name!r} is {kind}, not text. Make it text: rows.map(…) with str, or another column."
            )
    return [(literal, name) for literal, name, _, _ in pieces], names


def balanced(dataset: Dataset, column: str, seed: int = 0) -> Dataset:
    """As many rows of each value of `column` as the rarest value has, drawn with `seed` and shuffled.

    Raises `DataError` where rows have no value there, or there are no rows.
    """
    rng = np.random.default_rng(seed)
    values = dataset.with_format("arrow")[column][:]
    if values.null_count or not len(dataset):
        raise DataError(
            f"{values.null_count} of {len(dataset)} rows have no {column!r} to balance by. Filter them out."
        )
    values = values.dictionary_encode()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in values.unify_dictionaries().chunks])
    groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    size = min(map(len, groups))
    return dataset.select(rng.permutation(np.concatenate([rng.choice(g, size, replace=False) for g in groups])))
