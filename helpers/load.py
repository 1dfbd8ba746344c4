"""Many requests at once to a server with OpenAI's API: how long each takes, and how much gets through."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pandas as pd
from openai import OpenAI, OpenAIError

from helpers.serve import Server


@dataclass(frozen=True)
class Answer:
    """One streamed answer: its text, its tokens, seconds to the first token and to the last; the error, if any."""

    text: str = ""
    tokens: int = 0
    first: float = float("nan")
    seconds: float = float("nan")
    error: str = ""


def client(server: Server, timeout: float = 600) -> OpenAI:
    """OpenAI's client for `server`; it tries once, so that every failure is seen."""
    return OpenAI(base_url=server.base_url, api_key=server.api_key, timeout=timeout, max_retries=0)


def ask(openai: OpenAI, model: str, question: str, max_tokens: int) -> Answer:
    """Stream the greedy answer to one question; a failing request gives an Answer with its `error`."""
    began = time.perf_counter()
    pieces, first, tokens = [], float("nan"), 0
    try:
        for chunk in openai.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": question}],
            max_tokens=max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ):
            if chunk.choices and chunk.choices[0].delta.content:
                if not pieces:
                    first = time.perf_counter() - began
                pieces.append(chunk.choices[0].delta.content)
            if chunk.usage:
                tokens = chunk.usage.completion_tokens
    except (OpenAIError, ValueError) as error:  # ValueError: broken JSON in the stream, which the client hands on
        return Answer("".join(pieces), tokens, first, error=f"{type(error).__name__}: {error}")
    return Answer("".join(pieces), tokens, first, time.perf_counter() - began)


def measure(server: Server, questions: Sequence[str], at_once: Sequence[int], max_tokens: int) -> pd.DataFrame:
    """Ask all `questions` with 1, 2, 4 … requests under way at any time; one row for each of `at_once`.

    Columns: `answered` and `failed` requests, `tokens/s` and `requests/s` of the whole server, seconds a request took
    (`latency mean`, `p50`, `p95`), seconds to its first token (`first token p50`). One request goes before, unmeasured.
    """
    openai = client(server)
    ask(openai, server.model, questions[0], max_tokens)
    rows = []
    for level in at_once:
        began = time.perf_counter()
        with ThreadPoolExecutor(level) as pool:
            answers = list(pool.map(lambda question: ask(openai, server.model, question, max_tokens), questions))
        wall = time.perf_counter() - began
        rows.append({"at once": level} | figures(answers, wall))
    return pd.DataFrame(rows).set_index("at once")


def figures(answers: Sequence[Answer], wall: float) -> dict[str, float]:
    """What `measure` says of one level that took `wall` seconds; times are of the answered requests only."""
    good = [answer for answer in answers if not answer.error]
    if failed := [answer.error for answer in answers if answer.error]:
        print(f"{len(failed)} of {len(answers)} requests failed, the first with {failed[0]}")
    seconds = pd.Series([answer.seconds for answer in good], dtype=float)
    return {
        "answered": len(good),
        "failed": len(failed),
        "tokens/s": sum(answer.tokens for answer in good) / wall,
        "requests/s": len(good) / wall,
        "latency mean": seconds.mean(),
        "latency p50": seconds.quantile(0.5),
        "latency p95": seconds.quantile(0.95),
        "first token p50": pd.Series([answer.first for answer in good], dtype=float).quantile(0.5),
    }
