"""Budget forcing: decide how many tokens a model thinks before it answers.

The method of s1 (Muennighoff et al., 2025, "s1: Simple test-time scaling", arXiv 2501.19393). Where the thinking
reaches its cap, the end-of-thinking delimiter is written for the model, and it must answer. Where the model wants to
end too early, its delimiter is left out and "Wait" is written instead, and it thinks on.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from helpers.generation import end_tokens
from helpers.prompts import check_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = list[int]


@dataclass(frozen=True)
class Budgeted:
    """What a model thought and answered under a budget.

    `thinking_tokens` counts what was thought and every "Wait" that was put in, not the delimiter, and is never more
    than `budget`. The thinking ended by itself unless `cut`; `suppressed` says how often it wanted to end and was
    told to go on. `stopped`: the answer ended by itself, within its own limit.
    """

    thinking: str
    answer: str
    thinking_tokens: int
    answer_tokens: int
    budget: int
    suppressed: int
    cut: bool
    stopped: bool


class Generator(Protocol):
    """What the loop needs of a model, be it transformers' or vLLM's."""

    context: int
    """The most tokens that prompt and completion may have together."""

    def extend(
        self, prompts: Sequence[Ids], limits: Sequence[int], stop: str | None, temperature: float
    ) -> list[tuple[Ids, bool]]:
        """Continue each prompt by at most its limit of tokens, until its text holds `stop` or the model ends (EOS).

        Gives for each its new tokens, without EOS, and whether EOS came. With `stop`, the token that completes it is
        the last that counts; tokens after it are ignored.
        """
        ...


def generate_with_budget(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_thinking_tokens: int | None = None,
    num_ignore: int = 0,
    wait: str = "Wait",
    *,
    begin: str = "<think>\n",
    end: str = "</think>",
    forced_end: str | None = None,
    max_answer_tokens: int = 256,
    temperature: float = 0.0,
    context: int | None = None,
    batch_size: int = 32,
    lora_request: Any = None,
) -> list[Budgeted]:
    """Let the model think within a budget on each prompt, then answer; greedily unless `temperature` is above 0.

    `model` is one of transformers (Unsloth's and PEFT's too), an Unsloth model with `fast_inference`, whose vLLM is
    then used, a `vllm.LLM`, or any `Generator`. Prompts are texts as the chat template gives them; `begin` is added
    to those that do not end with it already.

    - `max_thinking_tokens`: the cap. 0: no thinking, the delimiter comes at once. None: as much as fits. More than
      fits into the context, beside the prompt and `max_answer_tokens`: as much as fits, with a warning, and `budget`
      says how much that was. A prompt that leaves no room for the answer raises ValueError.
    - `num_ignore`: how often an end is suppressed and `wait` written instead. A model that stops for good (EOS) while
      thinking also wants to end. Where the budget has no room for `wait` and a token more, the end is let through.
    - `end`: the delimiter, recognised in the text, in however many tokens it comes (`</think>`,
      `<|im_start|>answer`, `Final Answer:`). `forced_end` is what is written when the model does not end by itself;
      it must hold `end`. Default: `end` between a line break and an empty line.

    Raises ValueError for negative numbers, an empty `end`, a prompt without text or one that no tokenizer takes, and
    names the setting.
    """
    _check(max_thinking_tokens, num_ignore, max_answer_tokens, temperature, wait, end)
    check_prompts(prompts)
    forced_end = f"\n{end}\n\n" if forced_end is None else forced_end
    if end not in forced_end:
        raise ValueError(f"forced_end is {forced_end!r}; it must hold the delimiter {end!r}, or nothing ends there.")
    generator = as_generator(model, tokenizer, batch_size, lora_request)
    loop = _Loop(tokenizer, end, forced_end, tokenizer.encode(wait, add_special_tokens=False), num_ignore)
    rows = [loop.start(prompt, begin, number) for number, prompt in enumerate(prompts, start=1)]
    _share_out(rows, max_thinking_tokens, max_answer_tokens, context or generator.context, loop)

    active = [row for row in rows if row.left]
    while active:
        # Room for the delimiter on top: it is no thinking, and must not be cut in the middle.
        limits = [row.left + loop.reserve for row in active]
        pieces = generator.extend([row.prompt + row.ids for row in active], limits, end, temperature)
        active = [row for row, (ids, ended) in zip(active, pieces, strict=True) if loop.thinks_on(row, ids, ended)]
    for row in rows:
        loop.close(row)

    finals = generator.extend(
        [row.prompt + row.ids + row.closing for row in rows], [max_answer_tokens] * len(rows), None, temperature
    )
    return [loop.result(row, ids, ended) for row, (ids, ended) in zip(rows, finals, strict=True)]


def as_generator(
    model: Any, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32, lora_request: Any = None
) -> Generator:
    """The `Generator` for a model: vLLM where the model is or brings one, else transformers; a Generator stays."""
    if hasattr(model, "extend"):
        return model
    engine = getattr(model, "vllm_engine", None) or (model if hasattr(model, "llm_engine") else None)
    if engine is not None:
        return VllmGenerator(engine, lora_request)
    if lora_request is not None:
        raise ValueError("lora_request is for vLLM; a model of transformers carries its adapter in itself.")
    return TransformersGenerator(model, tokenizer, batch_size)


@dataclass
class _Row:
    """One prompt on its way. `ids` are the tokens after the prompt, up to the end of thinking."""

    prompt: Ids
    breaks: bool  # the text so far ends with a line break
    left: int = 0  # tokens that may still be thought
    budget: int = 0
    ids: Ids = field(default_factory=list)
    closing: Ids = field(default_factory=list)  # the delimiter, the model's own or ours
    spill: str = ""  # what stands after the delimiter already, and belongs to the answer
    suppressed: int = 0
    ended: bool = False  # by itself


@dataclass(frozen=True)
class _Loop:
    tokenizer: PreTrainedTokenizerBase
    end: str
    forced_end: str
    wait: Ids
    num_ignore: int

    @property
    def reserve(self) -> int:
        """Tokens kept free for the delimiter; a model may spell it in more tokens than the tokenizer would."""
        return len(self.encode(self.forced_end)) + len(self.end)

    def encode(self, text: str) -> Ids:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def start(self, prompt: str, begin: str, number: int) -> _Row:
        if not prompt.strip():
            raise ValueError(f"prompt {number} is empty; there is nothing to think about.")
        if begin.strip() and not prompt.rstrip().endswith(begin.strip()):
            prompt += begin
        return _Row(self.encode(prompt), prompt.endswith("\n"))

    def thinks_on(self, row: _Row, ids: Ids, ended: bool) -> bool:
        """Take in what was generated; True when there is more to think."""
        found = self.find_end(ids)
        thought, closing, spill = found or (ids, [], "")
        if (found or ended) and len(thought) <= row.left:
            row.ids += thought
            row.left -= len(thought)
            if row.suppressed < self.num_ignore and row.left > len(self.wait):
                row.ids += self.wait
                row.left -= len(self.wait)
                row.suppressed += 1
                return True
            row.ended, row.closing, row.spill = True, closing, spill
        else:
            row.ids += thought[: row.left]
        return False

    def find_end(self, ids: Ids) -> tuple[Ids, Ids, str] | None:
        """Tokens before the delimiter, those of the delimiter, and text that its last token brings on top.

        A token that holds both a thought's last letters and the delimiter's first is replaced by two.
        """
        if self.end not in self.decode(ids):
            return None
        last = bisect_left(range(len(ids)), True, key=lambda n: self.end in self.decode(ids[: n + 1])) + 1
        text = self.decode(ids[:last])
        before, _, spill = text.partition(self.end)
        kept = last
        while not before.startswith(self.decode(ids[:kept])):
            kept -= 1
        rest = before[len(self.decode(ids[:kept])) :]
        if not rest:
            return ids[:kept], ids[kept:last], spill
        return ids[:kept] + self.encode(rest), self.encode(self.end + spill), spill

    def close(self, row: _Row) -> None:
        """Write the delimiter where the model did not."""
        if not row.closing:
            breaks = self.decode(row.ids).endswith("\n") if row.ids else row.breaks
            row.closing = self.encode(self.forced_end.lstrip("\n") if breaks else self.forced_end)
            row.spill = self.forced_end.partition(self.end)[2]

    def result(self, row: _Row, ids: Ids, stopped: bool) -> Budgeted:
        return Budgeted(
            thinking=self.decode(row.ids).strip(),
            answer=(row.spill + self.tokenizer.decode(ids, skip_special_tokens=True)).strip(),
            thinking_tokens=len(row.ids),
            answer_tokens=len(ids),
            budget=row.budget,
            suppressed=row.suppressed,
            cut=not row.ended,
            stopped=stopped,
        )


def _check(thinking: int | None, num_ignore: int, answer: int, temperature: float, wait: str, end: str) -> None:
    if thinking is not None and thinking < 0:
        raise ValueError(f"max_thinking_tokens is {thinking}; 0 is no thinking, None as much as fits.")
    if num_ignore < 0:
        raise ValueError(f"num_ignore is {num_ignore}; it counts ends that are suppressed, 0 or more.")
    if answer < 1:
        raise ValueError(f"max_answer_tokens is {answer}; an answer needs 1 or more.")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; 0 is greedy, 1 the model's own spread.")
    if num_ignore and not wait:
        raise ValueError("wait is empty; give the text that is written where an end is suppressed.")
    if not end.strip():
        raise ValueError("end is empty; give the delimiter that ends the thinking, </think> for most models.")


def _share_out(rows: list[_Row], wanted: int | None, answer: int, context: int, loop: _Loop) -> None:
    """Give each row its budget, and warn where it is less than wanted."""
    short = []
    for number, row in enumerate(rows, start=1):
        room = context - len(row.prompt) - loop.reserve - answer
        if room < 0:
            raise ValueError(
                f"prompt {number} has {len(row.prompt)} tokens: with {answer} for the answer (max_answer_tokens) and "
                f"{loop.reserve} for the delimiter it does not fit into the context of {context}. Shorten one of them."
            )
        row.budget = row.left = room if wanted is None else min(wanted, room)
        short += [row.budget] if wanted is not None and room < wanted else []
    if short:
        warnings.warn(
            f"max_thinking_tokens={wanted} does not fit beside prompt and answer into a context of {context}: "
            f"{len(short)} of {len(rows)} prompts think within {min(short)} to {max(short)} tokens.",
            stacklevel=3,
        )


FIRST_TURN = 64  # tokens


def _tail(stop: str) -> int:
    """How many tokens may be needed to spell `stop`, and one more: a token has at least a byte."""
    return len(stop.encode()) + 1


class TransformersGenerator:
    """`model.generate`, in batches padded on the left.

    It writes in turns, each as long as all before it. After a turn only the rows that go on are batched again: one that
    rambles does not keep the others waiting.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 32) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        limits = [getattr(model.config, "max_position_embeddings", None), getattr(model, "max_seq_length", None)]
        self.context = min((limit for limit in limits if limit), default=2048)
        model.generation_config.max_length = None  # as in generation.complete: no warning a call
        self.eos = end_tokens(model.generation_config, tokenizer)

    def extend(
        self, prompts: Sequence[Ids], limits: Sequence[int], stop: str | None, temperature: float
    ) -> list[tuple[Ids, bool]]:
        done: list[tuple[Ids, bool]] = [([], False) for _ in prompts]
        waiting = [number for number, limit in enumerate(limits) if limit]
        while waiting:
            batch, waiting = waiting[: self.batch_size], waiting[self.batch_size :]
            inputs = [list(prompts[number]) + done[number][0] for number in batch]
            written = [len(done[number][0]) for number in batch]
            left = [limits[number] - count for number, count in zip(batch, written, strict=True)]
            # Beside a long prompt a short one may not get its whole limit either.
            most = min(max(left), self.context - max(map(len, inputs)), max(FIRST_TURN, *written))
            more = self._generate(inputs, written, most, stop, temperature)
            for number, room, ids in zip(batch, left, more, strict=True):
                new = ids[:room]
                stopped = stop is not None and stop in self._text(done[number][0][-_tail(stop) :] + new)
                place = next((place for place, token in enumerate(new) if token in self.eos), None)
                ended = place is not None and not stopped
                done[number] = (done[number][0] + (new[:place] if ended else new), ended)
                if not (stopped or ended) and most < room:
                    waiting.append(number)
        return done

    def _generate(
        self, inputs: list[Ids], written: list[int], most: int, stop: str | None, temperature: float
    ) -> list[Ids]:
        """At most `most` tokens more for each input, of which the last `written` are the model's own already."""
        import torch
        from transformers import StoppingCriteriaList

        pad = self.tokenizer.pad_token_id
        pad = next(iter(self.eos), 0) if pad is None else pad
        width = max(map(len, inputs))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in inputs], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in inputs], device=self.model.device)
        # Written out, because models bring values of their own (Qwen2.5 a repetition penalty, also when greedy).
        options: dict[str, Any] = {"do_sample": False, "repetition_penalty": 1.0}
        if temperature:
            options |= {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if stop is not None:
            options["stopping_criteria"] = StoppingCriteriaList([self._says(stop, [width - n for n in written])])
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=most,
            pad_token_id=pad,
            eos_token_id=list(self.eos),
            **options,
        )
        return output[:, width:].tolist()

    def _says(self, stop: str, starts: list[int]) -> Any:
        """A stopping criterion: for each row, whether its newest tokens, from its start on, complete `stop`."""
        import torch

        def criterion(input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
            first = max(0, input_ids.shape[1] - _tail(stop))
            newest = input_ids[:, first:].tolist()
            said = [stop in self._text(row[max(0, start - first) :]) for row, start in zip(newest, starts, strict=True)]
            return torch.tensor(said, device=input_ids.device)

        return criterion

    def _text(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class VllmGenerator:
    """A `vllm.LLM`; an adapter that it shall use comes as its LoRA request."""

    def __init__(self, engine: Any, lora_request: Any = None) -> None:
        self.engine, self.lora_request = engine, lora_request
        self.context = engine.llm_engine.vllm_config.model_config.max_model_len

    def extend(
        self, prompts: Sequence[Ids], limits: Sequence[int], stop: str | None, temperature: float
    ) -> list[tuple[Ids, bool]]:
        from vllm import SamplingParams

        if not prompts:
            return []
        params = [
            SamplingParams(
                max_tokens=limit,
                temperature=temperature,
                stop=[stop] if stop else None,
                include_stop_str_in_output=True,
                skip_special_tokens=False,  # a delimiter made of special tokens would never be seen
            )
            for limit in limits
        ]
        outputs = self.engine.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompts],
            params,
            use_tqdm=False,
            lora_request=self.lora_request,
        )
        pieces = []
        for output in (output.outputs[0] for output in outputs):
            ids = list(output.token_ids)
            # vLLM names what it stopped at; nothing is named when that was the end token, the last of the ids.
            ended = output.finish_reason == "stop" and not isinstance(output.stop_reason, str)
            pieces.append((ids[:-1] if ended else ids, ended))
        return pieces
