"""Dialogues in JSON, however their turns are written down, as the `messages` that chat templates take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from helpers.data.rows import FILL, DataError, from_hub, is_file, read_json_rows, skipped

Message = dict[str, str]

TURN_COLUMNS = ("messages", "conversations", "conversation", "data", "utterances")
"""Where the turns stand: the names of OpenAI, ShareGPT, DISC-Med-SFT, HuatuoGPT-sft-data-v1 and processed MedDialog."""
ROLES = {
    **dict.fromkeys(("user", "human", "patient", "问", "病人", "患者", "用户"), "user"),
    **dict.fromkeys(("assistant", "gpt", "doctor", "答", "医生", "助手"), "assistant"),
    "system": "system",
}
SPEAKER = re.compile(r"\s*([^\s:：]{1,12})\s*[:：]\s*")


def load_conversations(source: str, config: str | None = None) -> Dataset:
    """Load dialogues of one or more turns.

    `source` is a `.json` or `.jsonl` file, or the name of a data set on the Hugging Face Hub; there `config` names its
    part, if it has several. Each row holds its turns in one of `TURN_COLUMNS` (a file may also be a list of bare
    lists): objects (`from` and `value`, or `role` and `content`), or texts that begin with the speaker (`问：…`,
    `doctor: …`). Returns the column `messages`: each row a list of `{"role", "content"}`, perhaps a system message,
    then user and assistant in turn, the assistant last.

    Two turns of one speaker become one; a last question without an answer is cut off. Rows with a blank turn, and
    rows in which the assistant speaks first or never, are skipped. All of it is counted and printed.
    """
    rows = read_json_rows(source, listed=TURN_COLUMNS[-1]) if is_file(source) else from_hub(source, (), config)
    dialogues = ((number, _messages(row, source, number)) for number, row in enumerate(rows, start=1))
    return Dataset.from_dict({"messages": [messages for _, messages in tidy(dialogues, source)]})


def _messages(row: Mapping[str, Any], source: str, number: int) -> list[Message]:
    column = next((name for name in TURN_COLUMNS if row.get(name) is not None), None)
    turns = row[column] if column else None
    if not isinstance(turns, list):
        fault = f"{column!r} is a {type(turns).__name__}, not a list" if column else "holds no turns"
        raise DataError(
            f"{source}, row {number}: {fault}. Put the turns into one of {', '.join(TURN_COLUMNS)}; "
            f"the row has: {list(row)}. Question and answer in two columns? Use load_qa or load_alpaca."
        )
    return [_message(turn, f"{source}, row {number}, turn {place}") for place, turn in enumerate(turns, start=1)]


def _message(turn: object, where: str) -> Message:
    if isinstance(turn, str):
        match = SPEAKER.match(turn)
        speaker, content = (match[1], turn[match.end() :]) if match else (None, turn)
    elif isinstance(turn, Mapping):
        speaker, content = spoken(turn)
    else:
        raise DataError(f"{where}: is a {type(turn).__name__}, neither a text nor an object. Repair or delete the row.")
    role = role_of(speaker)
    if role is None:
        begins = repr(turn[:20]) if isinstance(turn, str) else repr(speaker)
        raise DataError(
            f"{where}: no known speaker, it has {begins}. Known are: {', '.join(ROLES)}. Rename it or delete the row."
        )
    if content is not None and not isinstance(content, str):
        raise DataError(f"{where}: its text is a {type(content).__name__}. Write a text, or delete the row.")
    return {"role": role, "content": (content or "").strip()}


def spoken(turn: Mapping[str, Any]) -> tuple[Any, Any]:
    """Speaker and text of a turn with `role` and `content`, or `from` and `value`; Arrow fills what is absent by None."""
    speaker = turn.get("from") if turn.get("role") is None else turn["role"]
    return speaker, turn.get("value") if turn.get("content") is None else turn["content"]


def role_of(speaker: Any) -> str | None:
    """The role that a speaker's name stands for; None for an unknown one."""
    return ROLES.get(speaker.lower()) if isinstance(speaker, str) else None


def tidy(dialogues: Iterable[tuple[int, Sequence[Message]]], source: str) -> Iterator[tuple[int, list[Message]]]:
    """Yield each dialogue in the shape that `load_conversations` promises; then print what was changed or skipped.

    A dialogue comes and goes with its number in the source. Raises `DataError` when none is left.
    """
    blank, headless, joined, cut, total, kept = [], [], 0, 0, 0, 0
    for number, messages in dialogues:
        total += 1
        if not messages or not all(message["content"] for message in messages):
            blank.append(number)
            continue
        system = [dict(message) for message in messages[:1] if message["role"] == "system"]
        turns: list[Message] = []
        for message in messages[len(system) :]:
            if turns and turns[-1]["role"] == message["role"]:
                turns[-1]["content"] += "\n" + message["content"]
                joined += 1
            else:
                turns.append(dict(message))
        unanswered = bool(turns) and turns[-1]["role"] == "user"
        turns = turns[: len(turns) - unanswered]
        if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
            headless.append(number)
            continue
        cut += unanswered
        kept += 1
        yield number, system + turns
    if not kept:
        raise DataError(f"{source}: none of its {total:,} dialogues has a question and an answer to it. {FILL}")
    said = skipped("blank turn", blank)
    said += skipped("no question before the first answer, or no answer", headless) if headless else ""
    said += f"; {joined:,} turns joined to the one before (same speaker)" if joined else ""
    said += f"; {cut:,} last questions without an answer cut off" if cut else ""
    print(f"{source}: {total:,} dialogues, {kept:,} kept{said}")


def to_alpaca(dataset: Dataset) -> Dataset:
    """`messages`, or `question` and `answer`, as the columns `instruction`, `input` and `output`.

    A dialogue gives one row an answer: the question before it is the instruction, and all that was said earlier is
    the input, a line a message (`user: …`), so that a template without turns can train on it. Raises ValueError for
    a data set with other columns.
    """
    made: dict[str, list[str]] = {"instruction": [], "input": [], "output": []}
    if {"question", "answer"} <= set(dataset.column_names):
        made = {"instruction": dataset["question"][:], "input": [""] * len(dataset), "output": dataset["answer"][:]}
    elif "messages" in dataset.column_names:
        for messages in dataset["messages"]:
            for place, message in enumerate(messages):
                if message["role"] == "assistant":
                    earlier = [f"{one['role']}: {one['content']}" for one in messages[: place - 1]]
                    made["instruction"].append(messages[place - 1]["content"])
                    made["input"].append("\n".join(earlier))
                    made["output"].append(message["content"])
    else:
        raise ValueError(f"needs 'messages', or 'question' and 'answer'; the data set has {dataset.column_names}.")
    return Dataset.from_dict(made)
