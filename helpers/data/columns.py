"""Whole columns at once: fill a template, draw a balanced sample."""

from __future__ import annotations

from string import Formatter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset


def add_text(dataset: Dataset, template: str, column: str = "text") -> Dataset:
    """Add the column that `template.format(**row)` would give for each row, computed a thousand rows at a time.

    `template` names columns of text in braces, without conversions. Raises ValueError for a name that is no column.
    """
    pieces = [(literal, name) for literal, name, _, _ in Formatter().parse(template)]
    if missing := [name for _, name in pieces if name is not None and name not in dataset.column_names]:
        raise ValueError(f"the template names {missing}; the data set has the columns {dataset.column_names}.")

    def fill(table: pa.Table) -> pa.Table:
        parts = []
        for literal, name in pieces:
            # A literal as a column: as a scalar, Arrow 26 takes time quadratic in the rows.
            parts += [pa.repeat(pa.scalar(literal), len(table))] if literal else []
            parts += [table[name].combine_chunks()] if name is not None else []
        return table.append_column(column, pc.binary_join_element_wise(*parts, ""))

    return dataset.with_format("arrow").map(fill, batched=True, desc="template").with_format(None)


def balanced(dataset: Dataset, column: str, seed: int = 0) -> Dataset:
    """As many rows of each value of `column` as the rarest value has, drawn with `seed` and shuffled."""
    rng = np.random.default_rng(seed)
    values = dataset.with_format("arrow")[column][:].dictionary_encode()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in values.unify_dictionaries().chunks])
    groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    size = min(map(len, groups))
    return dataset.select(rng.permutation(np.concatenate([rng.choice(g, size, replace=False) for g in groups])))
