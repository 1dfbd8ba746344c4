"""Questions with reasoning traces, in the formats of s1K and s1K-1.1."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from helpers.data.rows import FILL, DataError, read_rows, skipped, text_field

TRACES = ("deepseek", "gemini")
"""Whose reasoning s1K-1.1 holds: `deepseek_thinking_trajectory` and `deepseek_attempt`, and the same of Gemini."""


def load_s1k(source: str, trace: str = "deepseek", limit: int | None = None) -> Dataset:
    """Load questions with a reasoning trace and the answer that it led to.

    `source` is a `.json` or `.jsonl` file or a data set on the Hugging Face Hub, in either format: s1K-1.1 (two traces
    a question, of which `trace` chooses) or s1K (a list `thinking_trajectories`, whose first is taken, and `attempt`).
    At most the first `limit` rows are used. Returns the columns `question`, `thinking`, `answer` (the attempt, which
    may be wrong), `solution` (the reference) and `domain` (`source_type`: the published files carry no other). Rows
    without a question are skipped, counted and printed. Rows whose trace is empty stay: choosing is the lesson's work.
    """
    if trace not in TRACES:
        raise DataError(f"{source}: {trace!r} is no trace. Choose one of {', '.join(TRACES)}.")
    table = read_rows(source, ("question", "solution"), limit=limit)
    kept: dict[str, list[str]] = {name: [] for name in ("question", "thinking", "answer", "solution", "domain")}
    blank = []
    for number, row in enumerate(table, start=1):
        question = text_field(row, "question", source, number)
        if not question.strip():
            blank.append(number)
            continue
        thinking, answer = _trace(row, trace, source, number)
        solution = text_field(row, "solution", source, number, optional=True)
        domain = text_field(row, "source_type", source, number, optional=True) or "unknown"
        for column, value in zip(kept, (question, thinking, answer, solution, domain), strict=True):
            kept[column].append(value)
    if not kept["question"]:
        raise DataError(f"{source}: none of its {len(table):,} rows has a question. {FILL}")
    print(f"{source}: {len(table):,} rows, {len(kept['question']):,} kept" + skipped("blank question", blank))
    return Dataset.from_dict(kept)


def _trace(row: dict[str, Any], trace: str, source: str, number: int) -> tuple[str, str]:
    """The reasoning and the answer of a row, by the columns that it has."""
    if "thinking_trajectories" in row:
        traces = row["thinking_trajectories"]
        if not (isinstance(traces, list) and all(isinstance(text, str) for text in traces)):
            raise DataError(f"{source}, row {number}: 'thinking_trajectories' is no list of texts. Mend or delete it.")
        return (traces[0] if traces else ""), text_field(row, "attempt", source, number, optional=True)
    if f"{trace}_thinking_trajectory" not in row:
        raise DataError(
            f"{source}, row {number}: has neither '{trace}_thinking_trajectory' (s1K-1.1) nor 'thinking_trajectories' "
            f"(s1K). Choose a file of one of these forms, or delete the row. It has: {list(row)}."
        )
    return tuple(
        text_field(row, f"{trace}_{part}", source, number, optional=True) for part in ("thinking_trajectory", "attempt")
    )
