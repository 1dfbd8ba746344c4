"""The raw text files of MedDialog (Medical-Dialogue-System): consultations one after another, in sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from helpers.data.conversations import ROLES, Message, tidy
from helpers.data.encodings import first_fault, place
from helpers.data.rows import DataError, allowed, first_few, there_is

ID = re.compile(r"id=\s*(\d+)\s*")
SECTION = re.compile(r"(Description|Dialogue|Doctor faculty|Diagnosis and suggestions)\s*", re.IGNORECASE)
SPEAKER = re.compile(r"(病人|医生|Patient|Doctor)\s*[:：](.*)", re.IGNORECASE)


def load_meddialog(source: str) -> Dataset:
    """Load consultations from MedDialog's raw text.

    `source` is a text file in UTF-8, or a folder of `.txt` files, which are read in the order of their names. A
    consultation begins with a line `id=…`; a line `Description` opens what the patient wrote into the form, a line
    `Dialogue` the turns, each under a line `病人：` / `医生：` (`Patient:` / `Doctor:`). Other sections are left out.
    Returns the columns `description` and `messages`, the latter as `load_conversations` gives them; where the doctor
    speaks first, the description is the patient's opening. What is joined, cut or skipped is counted and printed, lines
    of a dialogue before its first speaker too.
    """
    path = Path(source)
    with allowed(path):
        files = sorted(p for p in path.iterdir() if p.match("*.txt")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no .txt file in this folder. Unpack the data set here, or name its folder.")
    descriptions: dict[int, str] = {}
    unspoken: list[int] = []  # for each line before a first speaker, its consultation

    def dialogues() -> Iterator[tuple[int, list[Message]]]:
        number = 0
        for file in files:
            for description, messages, early in _consultations(file):
                number += 1
                descriptions[number] = description
                unspoken.extend([number] * early)
                opening = [{"role": "user", "content": description}] if description else []
                yield number, opening + messages if messages and messages[0]["role"] == "assistant" else messages

    kept: dict[str, list] = {"description": [], "messages": []}
    for number, messages in tidy(dialogues(), source):
        kept["description"].append(descriptions[number])
        kept["messages"].append(messages)
    if unspoken:
        where = first_few(list(dict.fromkeys(unspoken)))
        print(f"{source}: {len(unspoken):,} lines before the first speaker left out (dialogue {where})")
    return Dataset.from_dict(kept)


def _consultations(file: Path) -> Iterator[tuple[str, list[Message], int]]:
    """The description and the turns of each consultation of a file, and how many lines came before the first turn."""
    if not there_is(file):
        raise DataError(f"{file}: not found (looked from {Path.cwd()}). Check DATASET.")
    section, description, messages, early, found = "", [], [], 0, False
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for line in lines:
                line = line.rstrip("\n")
                if ID.fullmatch(line):
                    if found:
                        yield "\n".join(description), messages, early
                    section, description, messages, early, found = "", [], [], 0, True
                elif not found and line.strip():
                    raise DataError(
                        f"{file}: begins with {line[:40]!r}, not with a line like 'id=1'. Choose a raw MedDialog "
                        "file, or use load_conversations for a processed one, which is JSON."
                    )
                elif match := SECTION.fullmatch(line):
                    section = match[1].lower()
                elif section == "description" and line.strip():
                    description.append(line.strip())
                elif section == "dialogue" and line.strip():
                    early += not _add(line, messages)
    except UnicodeDecodeError:  # which counts from the block's beginning
        fault = place(file, first_fault(file, "utf-8") or 0)
        raise DataError(f"{file}: {fault} is not UTF-8. Save the file as UTF-8.") from None
    if not found:
        raise DataError(f"{file}: holds no consultation. Choose another file, or delete this one.")
    yield "\n".join(description), messages, early


def _add(line: str, messages: list[Message]) -> bool:
    """Begin a turn, or go on with the last one; False where there is none."""
    if match := SPEAKER.fullmatch(line):
        messages.append({"role": ROLES[match[1].lower()], "content": match[2].strip()})
    elif messages:
        messages[-1]["content"] = f"{messages[-1]['content']}\n{line.strip()}".strip()
    return bool(messages)
