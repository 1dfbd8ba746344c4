"""A chat page in the browser: one question, a column for each server, answers streamed side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openai import OpenAIError

from helpers.load import client
from helpers.serve import Server

if TYPE_CHECKING:
    import gradio

# Read when gradio is imported: nothing is reported home, and nothing waits for an answer from there.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def chat_page(
    servers: Mapping[str, Server],
    examples: Sequence[str] = (),
    title: str = "",
    max_tokens: int = 256,
    temperature: float = 0.0,
) -> gradio.Blocks:
    """A Gradio page that asks every server the same question; `servers` by the title of its column.

    `page.launch(prevent_thread_lock=True)` shows it, `page.close()` ends it. Fonts are the browser's own, so the page
    needs no network.
    """
    import gradio as gr

    with gr.Blocks(title=title or "Chat", analytics_enabled=False) as page:
        if title:
            gr.Markdown(f"## {title}")
        with gr.Row():
            columns = {name: gr.Chatbot(label=name, height=420, buttons=["copy"]) for name in servers}
        question = gr.Textbox(show_label=False, placeholder=examples[0] if examples else "", submit_btn=True)
        if examples:
            gr.Examples(list(examples), question)
        gr.ClearButton([question, *columns.values()])
        for name, server in servers.items():
            question.submit(answering(server, max_tokens, temperature), [question, columns[name]], columns[name])
        question.submit(lambda: "", None, question, queue=False)
    return page


def answering(server: Server, max_tokens: int, temperature: float) -> Callable[..., Iterator[list[dict[str, Any]]]]:
    """The function behind one column: takes question and history, gives the history as it grows."""
    openai = client(server)

    def answer(question: str, history: list[dict[str, Any]] | None) -> Iterator[list[dict[str, Any]]]:
        messages = [{"role": turn["role"], "content": plain(turn["content"])} for turn in history or []]
        messages.append({"role": "user", "content": question})
        text = ""
        yield [*messages, {"role": "assistant", "content": "…"}]
        try:
            for chunk in openai.chat.completions.create(
                model=server.model, messages=messages, max_tokens=max_tokens, temperature=temperature, stream=True
            ):
                if chunk.choices and chunk.choices[0].delta.content:
                    text += chunk.choices[0].delta.content
                    yield [*messages, {"role": "assistant", "content": text}]
        # In the column, where who asked will see it; ValueError: broken JSON in the stream, which the client hands on.
        except (OpenAIError, ValueError) as error:
            yield [*messages, {"role": "assistant", "content": f"{text}\n\n{type(error).__name__}: {error}"}]

    return answer


def plain(content: Any) -> str:
    """A turn's text: Gradio hands it back as text or as a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else part.get("text", "") for part in content)
