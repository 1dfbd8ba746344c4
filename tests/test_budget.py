"""Budget forcing: what the loop promises, whatever the model writes; and that transformers and vLLM give the same."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import budget, nano
from helpers.budget import TransformersGenerator, as_generator, generate_with_budget
from helpers.nano import common


class Pieces:
    """A tokenizer whose tokens are any texts: encoding gives a token a character, a model may write longer ones."""

    eos_token_id = pad_token_id = 0

    def __init__(self):
        self.texts = ["<eos>"]

    def token(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text)

    def encode(self, text, add_special_tokens=False):
        return [self.token(character) for character in text]

    def decode(self, ids, skip_special_tokens=False, clean_up_tokenization_spaces=False):
        return "".join(self.texts[i] for i in ids)


@dataclass
class Script:
    """A generator that writes what it is told: a list of turns, each a list of tokens' texts, "$" being EOS.

    One prompt at a time; a turn that is cut is not continued. It keeps what it was asked.
    """

    tokenizer: Pieces
    turns: list[list[str]]
    context: int = 10_000
    asked: list[tuple[str, int, str | None]] = field(default_factory=list)

    def extend(self, prompts, limits, stop, temperature):
        (prompt,), (limit,) = prompts, limits
        self.asked.append((self.tokenizer.decode(prompt), limit, stop))
        turn, ids, ended = self.turns.pop(0), [], False
        for text in turn:
            if len(ids) == limit or ended or (stop and stop in self.tokenizer.decode(ids)):
                break
            ended = text == "$"
            ids += [] if ended else [self.tokenizer.token(text)]
        return [(ids, ended)]


def run(turns, *arguments, prompt="Q", context=10_000, **options):
    script = Script(Pieces(), [list(turn) for turn in turns], context)
    options = {"max_answer_tokens": 50} | options
    (done,) = generate_with_budget(script, script.tokenizer, [prompt], *arguments, **options)
    return done, script.asked


def test_thinking_that_ends_by_itself():
    done, asked = run(["2 so far\n</think>\n\nno more", "It is 2.$"], 50)
    assert (done.thinking, done.answer) == ("2 so far", "It is 2.")
    assert (done.thinking_tokens, done.suppressed, done.cut, done.stopped) == (9, 0, False, True)
    assert asked[0][0] == "Q<think>\n" and asked[0][2] == "</think>"
    assert asked[1] == ("Q<think>\n2 so far\n</think>", 50, None)


def test_the_cap_writes_the_delimiter():
    done, asked = run(["2 so far, and on and on and on and on and on", "2$"], 8)
    assert (done.thinking, done.thinking_tokens, done.cut) == ("2 so far", 8, True)
    assert asked[-1][0] == "Q<think>\n2 so far\n</think>\n\n"


def test_after_a_line_break_no_empty_line_is_written():
    assert run(["2\n3\n4", "2$"], 2)[1][-1][0] == "Q<think>\n2\n</think>\n\n"
    assert run(["2$"], 0)[1][-1][0] == "Q<think>\n</think>\n\n"


def test_an_end_is_suppressed_and_wait_written():
    done, asked = run(["so 2.\n</think>", ", again: 3.\n</think>", "3$"], 50, 1)
    assert done.thinking == "so 2.\nWait, again: 3."
    assert (done.suppressed, done.cut, done.answer) == (1, False, "3")
    assert done.thinking_tokens == len("so 2.\nWait, again: 3.\n")
    assert asked[1][0].endswith("so 2.\nWait")


def test_stopping_for_good_is_an_attempt_to_end():
    done, _ = run(["so 2.$", " no, 3.$", "3$"], None, 1, wait=" Hmm")
    assert (done.thinking, done.suppressed, done.cut) == ("so 2. Hmm no, 3.", 1, False)
    done, asked = run(["so 2.$", "2$"], None)
    assert not done.cut and asked[-1][0].endswith("so 2.\n</think>\n\n")


def test_no_budget_no_thinking():
    done, asked = run(["2$"], 0, 3)
    assert (done.thinking, done.thinking_tokens, done.budget, done.cut) == ("", 0, 0, True)
    assert len(asked) == 1


def test_the_budget_may_run_out_in_the_middle_of_a_second_thought():
    done, asked = run(["so 2.\n</think>", ", again and again and again and again", "2$"], 14, 5)
    assert done.thinking == "so 2.\nWait, ag" and done.thinking_tokens == 14 and done.cut
    assert asked[-1][0].endswith("Wait, ag\n</think>\n\n")


def test_without_room_for_wait_the_end_is_let_through():
    done, _ = run(["so 2.\n</think>", "2$"], 10, 1)  # 6 thought, 4 left: "Wait" and nothing after it
    assert (done.suppressed, done.cut, done.thinking) == (0, False, "so 2.")
    assert run(["so 2.\n</think>", "x", "2$"], 11, 1)[0].suppressed == 1


def test_a_delimiter_that_begins_at_the_cap_is_the_models_own():
    assert not run(["so 2</think>", "2$"], 4)[0].cut
    assert run(["so 2.</think>", "2$"], 4)[0].cut


def test_a_prompt_that_opened_the_thinking_already():
    for prompt in ("Q<think>\n", "Q<think>"):
        assert run(["2</think>", "2$"], prompt=prompt)[1][0][0] == prompt


@pytest.mark.parametrize("end", ["</think>", "<|im_start|>answer", "Final Answer:", "</思考>"])
def test_other_delimiters(end):
    done, asked = run([f"so 2.{end}", f" 3.{end}", "3$"], 50, 1, end=end, begin="")
    assert (done.thinking, done.answer) == ("so 2.Wait 3.", "3")
    assert asked[0][2] == end and asked[-1][0].endswith(f"3.{end}")


def test_what_is_written_at_the_cap_may_begin_the_answer():
    end = "<|im_start|>answer"
    done, asked = run(["2 and 3 and 4", " 2$"], 5, end=end, forced_end=f"{end}\nFinal Answer:")
    assert asked[-1][0].endswith(f"2 and{end}\nFinal Answer:")
    assert done.answer == "Final Answer: 2"


@given(st.text("ab\n<", max_size=12), st.text("cd\n>", max_size=4), st.data())
def test_the_delimiter_is_found_however_it_is_cut_into_tokens(thought, after, data):
    text = f"{thought}</think>{after}"
    cuts = sorted({0, len(text), *data.draw(st.lists(st.integers(0, len(text))))})
    tokens = [text[a:b] for a, b in pairwise(cuts)]
    done, asked = run([tokens, "2$"], 100)
    assert done.thinking == thought.strip() and not done.cut
    # What the delimiter's last token brings belongs to the answer, and nothing is lost or doubled.
    last = next(b for b in cuts if b >= len(thought) + len("</think>"))
    assert asked[-1][0] == "Q<think>\n" + text[:last]
    assert done.answer == (text[len(thought) + len("</think>") : last] + "2").strip()
    # Suppressed, the thought goes on where it ended, without a letter of the delimiter.
    _, asked = run([tokens, "x</think>", "2$"], 100, 1)
    assert asked[1][0] == f"Q<think>\n{thought}Wait"


ways = st.text("ab ", max_size=9).flatmap(lambda t: st.sampled_from([t + "a" * 99, f"{t}$", f"{t}</think>"]))
turns = st.lists(ways, max_size=6)


@given(turns, st.integers(0, 30), st.integers(0, 4))
def test_the_budget_is_kept_whatever_the_model_does(turns, cap, num_ignore):
    done, asked = run([*turns, *["a" * 99] * 6], cap, num_ignore)
    assert done.thinking_tokens <= done.budget == cap
    assert done.suppressed <= num_ignore
    assert done.thinking.count("Wait") == done.suppressed
    final = asked[-1][0]
    assert final.count("</think>") == 1 and asked[-1][2] is None
    assert len(asked) <= num_ignore + 2
    if done.cut:
        assert done.thinking_tokens == cap


def test_more_than_the_context_holds_is_cut_to_it_and_said():
    with pytest.warns(UserWarning, match=r"max_thinking_tokens=5000 does not fit.*1 of 1 prompts"):
        done, asked = run(["a" * 500, "2$"], 5000, context=200)
    assert done.cut and done.thinking_tokens == done.budget < 200 - 50 - len("Q<think>\n")
    assert all(len(prompt) + limit <= 200 for prompt, limit, _ in asked)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(["a" * 500, "2$"], None, context=200)[0].budget == done.budget


def test_a_prompt_without_room_for_the_answer_is_refused():
    with pytest.raises(ValueError, match=r"prompt 1 has 108 tokens: with 50 .*max_answer_tokens.*context of 150"):
        run(["2$"], 0, prompt="Q" * 100, context=150)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_thinking_tokens": -1}, "max_thinking_tokens is -1"),
        ({"num_ignore": -2}, "num_ignore is -2"),
        ({"max_answer_tokens": 0}, "max_answer_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"num_ignore": 1, "wait": ""}, "wait is empty"),
        ({"end": " "}, "end is empty"),
        ({"forced_end": "stop"}, "must hold the delimiter '</think>'"),
    ],
)
def test_what_makes_no_sense_is_named(options, said):
    with pytest.raises(ValueError, match=said):
        generate_with_budget(Script(Pieces(), []), Pieces(), ["Q"], **options)


def test_an_empty_prompt_is_refused_and_no_prompt_is_no_answer():
    with pytest.raises(ValueError, match="prompt 2 is empty"):
        generate_with_budget(Script(Pieces(), []), Pieces(), ["Q", " "])
    script = SimpleNamespace(context=100, extend=lambda prompts, *_: [] if not prompts else 1 / 0)
    assert generate_with_budget(script, Pieces(), []) == []


def test_a_lora_request_without_vllm_is_refused():
    with pytest.raises(ValueError, match="for vLLM"):
        as_generator(SimpleNamespace(), None, lora_request="adapter")


# --- the two engines, on a model with random weights -------------------------------------------------------------

PROMPTS = ["2 and 3", "How many apples does Leo have when he has eaten two of five?", "7", "A longer one, then."]


@pytest.fixture(scope="module")
def tiny():
    import torch

    recipe = replace(nano.NANO["nano/qwen2"], hidden=64, heads=1, intermediate=64, layers=1)
    tokenizer = common.make_tokenizer(common.read_texts(recipe.corpus[:1]), 600)
    model = common.new_model(recipe, tokenizer).eval()
    model.config.tie_word_embeddings = False  # tied random weights write the last token again and again
    torch.manual_seed(1)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(len(tokenizer), recipe.hidden) * 0.3)
    return model, tokenizer


@pytest.fixture(scope="module")
def end(tiny):
    """A text that the model writes in two tokens after some prompt and not after another."""
    model, tokenizer = tiny
    free = [done.thinking for done in generate_with_budget(model, tokenizer, PROMPTS, 30, max_answer_tokens=1)]
    pairs = []
    for thought in free:
        ids = tokenizer.encode(thought, add_special_tokens=False)
        pairs += [tokenizer.decode(ids[place : place + 2]).strip() for place in range(2, len(ids) - 8)]
    return next(p for p in pairs if len(p) > 1 and {p in thought for thought in free} == {True, False})


class Engine:
    """What `vllm.LLM` (0.26) does, in the parts that are used: per-prompt parameters, stop strings, finish reasons."""

    def __init__(self, model, tokenizer, context=256):
        self.model, self.tokenizer, self.lora = model, tokenizer, []
        self.llm_engine = SimpleNamespace(
            vllm_config=SimpleNamespace(model_config=SimpleNamespace(max_model_len=context))
        )

    def generate(self, prompts, sampling_params, *, use_tqdm=True, lora_request=None):
        self.lora.append(lora_request)
        return [SimpleNamespace(outputs=[self.one(p, s)]) for p, s in zip(prompts, sampling_params, strict=True)]

    def one(self, prompt, params):
        import torch

        ids, new = list(prompt["prompt_token_ids"]), []
        assert len(ids) < self.llm_engine.vllm_config.model_config.max_model_len
        assert params.temperature == 0 and params.include_stop_str_in_output
        while True:
            with torch.no_grad():
                token = int(self.model(torch.tensor([ids + new])).logits[0, -1].argmax())
            new.append(token)
            text = self.tokenizer.decode(new, skip_special_tokens=params.skip_special_tokens)
            if token == self.tokenizer.eos_token_id:
                return SimpleNamespace(token_ids=new, text=text, finish_reason="stop", stop_reason=None)
            if stop := next((stop for stop in params.stop or [] if stop in text), None):
                return SimpleNamespace(token_ids=new, text=text, finish_reason="stop", stop_reason=stop)
            if len(new) == params.max_tokens:
                return SimpleNamespace(token_ids=new, text=text, finish_reason="length", stop_reason=None)


@dataclass
class SamplingParams:
    """The fields that are used, with vLLM's names and defaults; any other name fails."""

    max_tokens: int = 16
    temperature: float = 1.0
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True


@pytest.mark.parametrize(("cap", "num_ignore"), [(0, 0), (5, 0), (30, 0), (30, 2), (None, 1)])
def test_vllm_and_transformers_and_batches_of_any_size_give_the_same(tiny, end, cap, num_ignore, monkeypatch):
    module = ModuleType("vllm")
    module.SamplingParams = SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    model, tokenizer = tiny
    options = {"end": end, "max_answer_tokens": 6, "context": 160}
    one = [generate_with_budget(model, tokenizer, [p], cap, num_ignore, **options)[0] for p in PROMPTS]
    if cap == 30:  # or the test tests little
        assert max(d.suppressed for d in one) > 0 if num_ignore else {d.cut for d in one} == {True, False}
    for size in (2, 32):
        assert generate_with_budget(model, tokenizer, PROMPTS, cap, num_ignore, batch_size=size, **options) == one
    engine = Engine(model, tokenizer)
    unsloth = SimpleNamespace(vllm_engine=engine)
    for model in (engine, unsloth):
        assert generate_with_budget(model, tokenizer, PROMPTS, cap, num_ignore, lora_request="mine", **options) == one
    assert set(engine.lora) == {"mine"}


@pytest.mark.parametrize("first", [1, 2, 3, 7])
def test_turns_of_any_length_give_the_same_and_leave_out_the_rows_that_have_ended(tiny, end, first, monkeypatch):
    """`end` is two tokens: between them a turn may end."""
    model, tokenizer = tiny
    ids = [tokenizer.encode(prompt + "<think>\n") for prompt in PROMPTS]
    generator, batches = TransformersGenerator(model, tokenizer), []

    def written():
        """The tokens of each row up to the one that completes `end`; what follows is padding."""
        rows = [new for new, _ in generator.extend(ids, [30] * len(ids), end, 0.0)]
        return [next((new[:n] for n in range(1, len(new)) if end in tokenizer.decode(new[:n])), new) for new in rows]

    whole, generate = written(), generator._generate
    assert len({len(new) for new in whole}) > 1
    monkeypatch.setattr(generator, "_generate", lambda *all: (batches.append((len(all[0]), all[2])), generate(*all))[1])
    monkeypatch.setattr(budget, "FIRST_TURN", first)
    assert written() == whole
    rows, turns = zip(*batches)
    assert list(rows) == [sum(len(new) > sum(turns[:turn]) for new in whole) for turn in range(len(turns))]


def test_an_end_that_began_in_the_turn_before_is_seen_and_one_that_began_in_the_prompt_is_not(tiny):
    import torch

    model, tokenizer = tiny
    pieces = tokenizer.encode("</think>", add_special_tokens=False)
    assert len(pieces) > 1
    row = torch.tensor([tokenizer.encode("so 7", add_special_tokens=False) + pieces] * 3)
    begun = row.shape[1] - len(pieces)
    says = TransformersGenerator(model, tokenizer)._says("</think>", [0, begun, begun + 1])
    assert says(row, None).tolist() == [True, True, False] and not says(row[:, :-1], None).any()


def test_short_prompts_get_their_whole_budget_beside_long_ones(tiny):
    """In one batch the padding of the short ones would not fit into the context."""
    model, tokenizer = tiny
    prompts = ["7", "7, 8, 9. " * 40]
    width = len(tokenizer.encode(prompts[1]))
    generator = TransformersGenerator(model, tokenizer)
    generator.context = width + 40
    ids = [tokenizer.encode(p) for p in prompts]
    both = generator.extend(ids, [width, 30], None, 0.0)
    assert [len(new) for new, _ in both] == [width, 30]
    assert both[0] == generator.extend(ids[:1], [width], None, 0.0)[0]


def test_the_end_token_ends_and_is_not_counted(tiny, monkeypatch):
    model, tokenizer = tiny
    generator = TransformersGenerator(model, tokenizer)
    ids = tokenizer.encode(PROMPTS[1])
    ((free, ended),) = generator.extend([ids], [8], None, 0.0)
    assert not ended and len(free) == 8
    generator.eos = {free[5]}
    ((new, ended),) = generator.extend([ids], [8], None, 0.0)
    assert ended and new == free[: free.index(free[5])]


def test_sampling_draws_different_answers(tiny):
    import torch

    torch.manual_seed(0)
    model, tokenizer = tiny
    done = generate_with_budget(model, tokenizer, ["2 and 3"] * 8, 10, temperature=1.0, max_answer_tokens=3)
    assert len({d.thinking for d in done}) > 1
