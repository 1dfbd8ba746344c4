"""Preference pairs: a prompt, the answer that was chosen and the one that was rejected."""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from helpers.data.conversations import ROLES, Message, role_of, spoken
from helpers.data.rows import FILL, DataError, read_rows, skipped, text_field

MEND = (
    "Known forms: conversations + chosen + rejected (ShareGPT), prompt + chosen + rejected, chosen + rejected (whole "
    "conversations), question + response_chosen + response_rejected, or instruction + chosen + rejected. Write the row "
    "in one of them, or delete it."
)


def load_preferences(source: str, config: str | None = None, limit: int | None = None) -> Dataset:
    """Load preference pairs in any of the usual forms.

    `source` is a `.json` or `.jsonl` file, or a data set on the Hugging Face Hub; there `config` names its part
    (`zh`). At most the first `limit` rows are used. Returns the columns `prompt` (messages with `role` and
    `content`, the last of them the user's), `chosen` and `rejected` (texts). Pairs with a blank text, pairs of two
    equal answers, and prompts that stood in an earlier row (a copy on the held-out side would be no test) are
    skipped, counted and printed. Raises `DataError` for a row that has none of the forms.
    """
    table = read_rows(source, (), config, limit)
    kept, seen = [], set()
    left_out: dict[str, list[int]] = {"blank text": [], "chosen equals rejected": [], "the same prompt again": []}
    for number, row in enumerate(table, start=1):
        prompt, chosen, rejected = _pair(row, source, number)
        question = tuple((message["role"], " ".join(message["content"].split())) for message in prompt)
        if not (prompt[-1]["content"].strip() and chosen.strip() and rejected.strip()):
            left_out["blank text"].append(number)
        elif chosen.strip() == rejected.strip():
            left_out["chosen equals rejected"].append(number)
        elif question in seen:
            left_out["the same prompt again"].append(number)
        else:
            seen.add(question)
            kept.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    if not kept:
        raise DataError(
            f"{source}: none of its {len(table):,} rows is a pair of two different answers to a prompt. {FILL}"
        )
    said = "".join(skipped(reason, numbers) for reason, numbers in left_out.items() if numbers) or skipped("", [])
    print(f"{source}: {len(table):,} rows, {len(kept):,} pairs kept{said}")
    return Dataset.from_list(kept)


def _pair(row: dict[str, Any], source: str, number: int) -> tuple[list[Message], str, str]:
    """Prompt, chosen and rejected of one row, whichever form it has."""
    place = f"{source}, row {number}"
    if "response_chosen" in row or "response_rejected" in row:
        prompt = [_message("user", text_field(row, "question", source, number))]
        history = row.get("history") or []
        if not isinstance(history, list):
            raise DataError(
                f"{place}: 'history' is a {type(history).__name__}, not a list of turns. Mend or delete the row."
            )
        for turn in reversed(history):
            if not (isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
                raise DataError(
                    f"{place}: a turn in 'history' is no pair of texts, question and answer: {str(turn)[:60]!r}. "
                    "Mend or delete the row."
                )
            prompt = [_message("user", turn[0]), _message("assistant", turn[1]), *prompt]
        answers = [text_field(row, f"response_{name}", source, number) for name in ("chosen", "rejected")]
        return _with_system(row, prompt, source, number), *answers
    if "chosen" not in row or "rejected" not in row:
        raise DataError(f"{place}: is no preference pair. {MEND} It has: {list(row)}.")
    if row.get("conversations") is not None:
        prompt = _with_system(row, _messages(row["conversations"], place, "conversations"), source, number)
    elif row.get("instruction") is not None:
        parts = [text_field(row, name, source, number, optional=name == "input") for name in ("instruction", "input")]
        prompt = _with_system(row, [_message("user", "\n".join(filter(None, parts)))], source, number)
    elif isinstance(row.get("prompt"), str):
        prompt = _with_system(row, [_message("user", row["prompt"])], source, number)
    elif row.get("prompt") is not None:
        prompt = _messages(row["prompt"], place, "prompt")
    else:
        prompt = _shared_start(row, place)
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError(
            f"{place}: the prompt must end with what the user says, and it does not. Mend or delete the row."
        )
    return prompt, *(_answer(row[name], prompt, place, name) for name in ("chosen", "rejected"))


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _messages(turns: Any, place: str, field: str) -> list[Message]:
    """Messages with `role` and `content`, of turns in that form or in ShareGPT's `from` and `value`."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(f"{place}: {field!r} is no list of messages. {MEND}")
    messages = []
    for turn in turns:
        speaker, text = spoken(turn)
        if (role := role_of(speaker)) is None:
            raise DataError(
                f"{place}: unknown speaker {speaker!r} in {field!r}. Known: {', '.join(ROLES)}. "
                "Rename it, or delete the row."
            )
        if not isinstance(text, str):
            raise DataError(f"{place}: a message of {speaker!r} in {field!r} has no text. Add it, or delete the row.")
        messages.append(_message(role, text))
    return messages


def _with_system(row: dict[str, Any], prompt: list[Message], source: str, number: int) -> list[Message]:
    """The prompt with the row's `system` text, if it has one, in front."""
    system = text_field(row, "system", source, number, optional=True)
    return [_message("system", system), *prompt] if system.strip() else prompt


def _shared_start(row: dict[str, Any], place: str) -> list[Message]:
    """The prompt of two whole conversations: all that comes before their last messages, the same in both."""
    if isinstance(row["chosen"], str):
        raise DataError(f"{place}: has no prompt. {MEND} It has: {list(row)}.")
    before = [_messages(row[name], place, name)[:-1] for name in ("chosen", "rejected")]
    if before[0] != before[1]:
        raise DataError(
            f"{place}: chosen and rejected answer different prompts. Give both the same, or delete the row."
        )
    return before[0]


def _answer(value: Any, prompt: list[Message], place: str, field: str) -> str:
    """The text of an answer given as a text, as one message, as a list of one, or as a whole conversation."""
    if isinstance(value, str):
        return value
    messages = _messages(value if isinstance(value, list) else [value], place, field)
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(f"{place}: {field!r} is not what the assistant says. Write its text, or its message.")
    if messages[:-1] not in ([], prompt):
        raise DataError(f"{place}: {field!r} holds another conversation than the prompt. Mend or delete the row.")
    return messages[-1]["content"]
