"""A Modelfile whose template and stop tokens come from the tokenizer that trained.

Ollama writes a conversation with a Go template of its own and does not run the Jinja chat template that the tokenizer
carries. `ChatPieces` takes the chat template apart by rendering it with probes; `template` puts the pieces together in
Go's notation; `render` reads that notation, so that what stands in the Modelfile can be held against the original.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError as Refused

from helpers.generation import end_tokens
from helpers.runtime import Stop

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

Message = Mapping[str, str]
SAMPLING = ("temperature", "top_p", "top_k")


class TemplateError(Stop, ValueError):
    """A chat template that is no row of pieces, or a Modelfile that cannot be written; the text says where."""


@dataclass(frozen=True)
class ChatPieces:
    """What a chat template writes around the texts of a conversation.

    A conversation is `system` (its text between the two) or `no_system`, then each message between the two of its
    role, then `opening`, after which the model writes.
    """

    no_system: str
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> ChatPieces:
        """Found by rendering the tokenizer's chat template with texts that occur nowhere else.

        Raises TemplateError for a template that is not made of such pieces.
        """
        if not tokenizer.chat_template:
            raise TemplateError("this tokenizer has no chat template; save the one that the model was trained with.")
        s, u, a, v = (f"PROBE{letter}EBORP" for letter in "SUAV")
        one = [{"role": "user", "content": u}]
        two = [*one, {"role": "assistant", "content": a}]
        three = [*two, {"role": "user", "content": v}]

        def between(text: str, left: str, right: str = "") -> str:
            start = text.find(left) + len(left)
            end = text.find(right, start) if right else len(text)
            if left not in text or end < 0:
                raise TemplateError(f"the chat template drops or changes a message: {text!r}")
            return text[start:end]

        def rest(text: str, known: str, what: str) -> str:
            if not text.startswith(known):
                raise TemplateError(f"the chat template writes {what} otherwise the second time: {text!r}, {known!r}")
            return text.removeprefix(known)

        asked = written(tokenizer, one)
        head, user_after = between(asked, "", u), between(asked, u)
        answered = written(tokenizer, two)
        assistant_before = rest(between(answered, u, a), user_after, "the end of a question")
        assistant_after = between(answered, a)
        user_before = rest(between(written(tokenizer, three), a, v), assistant_after, "the end of an answer")
        if not head.endswith(user_before):
            raise TemplateError(f"the chat template begins the first question otherwise: {head!r}, {user_before!r}")
        instructed = written(tokenizer, [{"role": "system", "content": s}, *one])
        system_after = between(instructed, s, u)
        if not system_after.endswith(user_before):
            raise TemplateError("the chat template writes the system message into the question; Ollama cannot.")
        return cls(
            no_system=head.removesuffix(user_before),
            system=(between(instructed, "", s), system_after.removesuffix(user_before)),
            user=(user_before, user_after),
            assistant=(assistant_before, assistant_after),
            opening=rest(written(tokenizer, one, add_generation_prompt=True), asked, "a question"),
        )

    def without(self, token: str | None) -> ChatPieces:
        """The same without `token` at the very beginning: for a runtime that puts it there itself (BOS)."""
        token = token or ""
        start, end = self.system
        return ChatPieces(
            self.no_system.removeprefix(token),
            (start.removeprefix(token), end),
            self.user,
            self.assistant,
            self.opening,
        )


def written(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], **options: Any) -> str:
    """A conversation as the tokenizer's chat template writes it; TemplateError when the template refuses it."""
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    except Refused as error:  # Gemma's has no place for a system message and says so by an error of its own
        roles = ", ".join(message["role"] for message in messages)
        raise TemplateError(f"the chat template refuses a conversation of {roles}: {error}") from None


def template(pieces: ChatPieces) -> str:
    """The pieces as a Go template in Ollama's terms.

    The last message, when it is an answer, is left open: Ollama lets the model go on with it.
    """
    for piece in (pieces.no_system, *pieces.system, *pieces.user, *pieces.assistant, pieces.opening):
        if "{{" in piece or '"""' in piece:
            raise TemplateError(
                f"a Modelfile cannot hold {piece!r}: it contains a mark of Go templates or of Modelfiles."
            )
    return (
        f"{{{{ if .System }}}}{pieces.system[0]}{{{{ .System }}}}{pieces.system[1]}"
        f"{{{{ else }}}}{pieces.no_system}{{{{ end }}}}"
        "{{ range $i, $message := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{pieces.user[0]}{{{{ .Content }}}}{pieces.user[1]}'
        f'{{{{ else if eq .Role "assistant" }}}}{pieces.assistant[0]}{{{{ .Content }}}}'
        f"{{{{ if not $last }}}}{pieces.assistant[1]}{{{{ end }}}}{{{{ end }}}}"
        f'{{{{ if and $last (ne .Role "assistant") }}}}{pieces.opening}{{{{ end }}}}'
        "{{ end }}"
    )


def stop_tokens(
    tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig | None, pieces: ChatPieces
) -> list[str]:
    """The texts at which Ollama must stop: every end token, and the token that begins a question.

    The second catches a model that goes on by asking itself.
    """
    stops = [tokenizer.convert_ids_to_tokens(i) for i in sorted(end_tokens(generation, tokenizer))]
    # Not all of these are called special: R1's "<｜User｜>" is an added token like any other.
    stops += sorted((token for token in tokenizer.get_added_vocab() if pieces.user[0].startswith(token)), key=len)[-1:]
    return list(dict.fromkeys(stops))


def modelfile(gguf: str, pieces: ChatPieces, stops: Sequence[str], parameters: Mapping[str, Any]) -> str:
    """The text of a Modelfile: which GGUF (relative to it), the template, when to stop, how to sample."""
    if bad := [stop for stop in stops if '"' in stop or "\n" in stop]:
        raise TemplateError(f"a Modelfile cannot hold the stop token {bad[0]!r}.")
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template(pieces)}"""']
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def sampling(generation: GenerationConfig | None) -> dict[str, float]:
    """How the model's makers sample, from its generation config."""
    found = {name: getattr(generation, name, None) for name in SAMPLING}
    return {name: value for name, value in found.items() if value is not None} if found["temperature"] else {}


def read_modelfile(path: str | Path) -> tuple[str, list[str]]:
    """Template and stop tokens as they stand in a Modelfile."""
    text = Path(path).read_text(encoding="utf-8")
    found = re.search(r'^TEMPLATE """(.*?)"""$', text, re.DOTALL | re.MULTILINE)
    if not found:
        raise TemplateError(f'{path}: no TEMPLATE """…""".')
    return found[1], re.findall(r'^PARAMETER stop "(.*)"$', text, re.MULTILINE)


def render(go: str, messages: Sequence[Message]) -> str:
    """Write a conversation with a Go template as Ollama does: the notation that `template` uses, no more of it.

    Raises TemplateError for anything else in the template.
    """
    turns: list[dict[str, str]] = []
    for message in messages:  # Ollama joins what one role says twice in a row
        if turns and turns[-1]["Role"] == message["role"]:
            turns[-1]["Content"] += f"\n\n{message['content']}"
        else:
            turns.append({"Role": message["role"], "Content": message["content"]})
    system = "\n\n".join(turn["Content"] for turn in turns if turn["Role"] == "system")
    data = {"System": system, "Messages": turns}
    parts = iter(re.split(r"\{\{(.*?)\}\}", go, flags=re.DOTALL))
    nodes, end = _block(parts)
    if end:
        raise TemplateError(f"the template has {{{{ {end} }}}} too many.")
    return _write(nodes, data, {"$": data})


# A node is a literal, or (action, [(condition, nodes), …]).
Node = Any


def _block(parts: Iterator[str]) -> tuple[list[Node], str]:
    """Nodes up to `else`, `end` or the template's end, and which of them it was."""
    nodes: list[Node] = []
    for literal in parts:
        if "{{" in literal:
            raise TemplateError(f"an action is not closed: {literal!r}")
        nodes.append(literal)
        action = next(parts, "").strip()
        if action == "end" or action.startswith("else"):
            return nodes, action
        if action.startswith(("if ", "range ")):
            branches, condition = [], action
            while True:
                inner, end = _block(parts)
                branches.append((condition, inner))
                if end == "end":
                    break
                if not end:
                    raise TemplateError("the template lacks an {{ end }}.")
                condition = end.removeprefix("else").strip() or "else"
            nodes.append(branches)
        elif action:
            nodes.append((action,))
    return nodes, ""


def _write(nodes: list[Node], dot: Any, names: dict[str, Any]) -> str:
    out = ""
    for node in nodes:
        if isinstance(node, str):
            out += node
        elif isinstance(node, tuple):
            name, assigned, expression = node[0].partition(":=")
            value = _value(expression if assigned else name, dot, names)
            if assigned:
                names[name.strip()] = value
            else:
                out += str(value)
        elif node[0][0].startswith("range "):
            (head, inner), *_ = node
            variables, _, expression = head.removeprefix("range ").partition(":=")
            index, item = (name.strip() for name in variables.split(","))
            for number, element in enumerate(_value(expression, dot, names)):
                out += _write(inner, element, names | {index: number, item: element})
        else:
            for condition, inner in node:
                if condition == "else" or _value(condition.removeprefix("if "), dot, names):
                    out += _write(inner, dot, dict(names))
                    break
    return out


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "not": lambda a: not a,
    "len": len,
    "slice": lambda items, start: items[start:],
}


def _value(expression: str, dot: Any, names: dict[str, Any]) -> Any:
    """An expression's value: words apart, the first a function when there are several, brackets first."""
    words = re.findall(r'\(|\)|"(?:[^"\\]|\\.)*"|[^\s()]+', expression)
    value = _call(words, dot, names)
    if words:
        raise TemplateError(f"not understood in the template: {expression!r}")
    return value


def _call(words: list[str], dot: Any, names: dict[str, Any]) -> Any:
    values = []
    function = FUNCTIONS.get(words[0]) if words else None
    if function:
        words.pop(0)
    while words and words[0] != ")":
        word = words.pop(0)
        if word == "(":
            values.append(_call(words, dot, names))
            words.pop(0)
        elif word.startswith('"'):
            values.append(json.loads(word))
        elif word.isdigit():
            values.append(int(word))
        else:
            name, *fields = word.split(".")
            value = dot if not name else names.get(name, TemplateError)
            for field in fields:
                value = value.get(field, TemplateError) if isinstance(value, dict) else TemplateError
            if value is TemplateError:
                raise TemplateError(f"not understood in the template: {word!r}")
            values.append(value)
    if function:
        return function(*values)
    if len(values) != 1:
        raise TemplateError(f"not understood in the template: {values!r}")
    return values[0]
