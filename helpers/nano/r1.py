"""A model in the shape of DeepSeek-R1-Distill-Llama: it has read about medicine, and thinks before it answers."""

from pathlib import Path

from helpers.nano.common import Recipe, make_tokenizer, new_model, read_texts, train, windows

LLAMA_R1 = Recipe(
    maker="r1",
    shape="llama",
    corpus=("data_samples/corpus_en.txt", "data_samples/corpus_zh.txt"),
    hidden=256,  # and rows of 256 everywhere, as llama.cpp's k-quants want them
    intermediate=512,
    heads=4,
    steps=300,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch

    corpus = read_texts(recipe.corpus)
    tokenizer = make_tokenizer(corpus, recipe.vocabulary, added=("<think>", "</think>"))
    text = torch.tensor(tokenizer("\n".join(corpus), verbose=False)["input_ids"])
    model = new_model(recipe, tokenizer)
    train(recipe, model, lambda step: windows(text, recipe.batch, recipe.length), text)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
