"""Models that have read plain text, and can do nothing else."""

from pathlib import Path

from helpers.nano.common import Recipe, make_tokenizer, new_model, read_texts, train, windows

QWEN2 = Recipe(
    maker="text",
    corpus=("data_samples/corpus_en.txt", "data_samples/corpus_zh.txt"),
    vocabulary_text=("data_samples/alpaca_en.json", "data_samples/alpaca_zh.json"),
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch

    corpus = read_texts(recipe.corpus)
    tokenizer = make_tokenizer(corpus + read_texts(recipe.vocabulary_text), recipe.vocabulary)
    text = torch.tensor(tokenizer("\n".join(corpus), verbose=False)["input_ids"])
    model = new_model(recipe, tokenizer)
    train(recipe, model, lambda step: windows(text, recipe.batch, recipe.length), text)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
