"""Asking in batches gives what asking one by one gives."""

from types import SimpleNamespace

import pytest

from helpers import generation


@pytest.fixture(scope="module")
def model_and_tokenizer():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from helpers import nano

    folder = nano.build("nano/qwen2")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


PROMPTS = ["The capital of France is", "1, 1, 2, 3, 5, 8,", "A", "The Fibonacci sequence runs 1, 1, 2, 3,"]


@pytest.mark.nano
def test_batches_of_any_size_give_the_same(model_and_tokenizer):
    one = generation.complete(*model_and_tokenizer, PROMPTS, 8, batch_size=1)
    assert [c.tokens for c in one] == [8] * 4 and not any(c.stopped for c in one)
    for size in (3, 32):
        assert generation.complete(*model_and_tokenizer, PROMPTS, 8, batch_size=size) == one


@pytest.mark.nano
def test_an_answer_ends_at_the_end_token(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    tokenizer.padding_side = "right"

    class Ends:
        device = model.device
        generation_config = model.generation_config

        def generate(self, input_ids, attention_mask, max_new_tokens, do_sample):
            import torch

            assert attention_mask[1, 0] == 0  # padded on the left
            new = torch.tensor([[5, 6, tokenizer.eos_token_id, tokenizer.pad_token_id], [5, 6, 7, 8]])
            return torch.cat([input_ids, new], dim=1)

    first, second = generation.complete(Ends(), tokenizer, ["a longer prompt", "b"], 4)
    assert (first.tokens, first.stopped, second.tokens, second.stopped) == (2, True, 4, False)
    assert first.text == tokenizer.decode([5, 6])
    assert tokenizer.padding_side == "right"


@pytest.mark.parametrize("prompts", [["a b", "a"], ["<s> a b", "<s> a"]])
def test_a_text_begins_once(prompts):
    """With Llama's tokenizer, which writes the first token, and with a chat template that has written it already."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rules = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, unk_token="</s>"))
    rules.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rules.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="</s>"
    )
    seen = []

    class Model:
        device = "cpu"
        config = SimpleNamespace()
        generation_config = SimpleNamespace(eos_token_id=1)

        def generate(self, input_ids, **_):
            seen.extend(input_ids.tolist())
            return torch.cat([input_ids, input_ids[:, :1]], dim=1)

    generation.complete(Model(), tokenizer, prompts, 1)
    assert seen == [[0, 2, 3], [1, 0, 2]]


def test_an_empty_prompt_is_refused():
    with pytest.raises(ValueError, match="prompt 2 of 2 is empty"):
        generation.complete(None, None, ["a", ""], 4)


def test_every_token_at_which_generate_stops_ends_an_answer():
    class Tokenizer:
        eos_token_id = 2

        def decode(self, ids, **options):
            return " ".join(map(str, ids))

    ends = generation.end_tokens(SimpleNamespace(eos_token_id=[2, 9]), Tokenizer())
    assert ends == {2, 9}
    for end in ends:  # a batch's other rows go on, so that this one is padded
        assert generation._completion(Tokenizer(), [5, 6, end, 0, 0], ends) == generation.Completion("5 6", 2, True)
    assert generation._completion(Tokenizer(), [5, 6], ends) == generation.Completion("5 6", 2, False)
    assert generation.end_tokens(SimpleNamespace(eos_token_id=None), Tokenizer()) == {2}
