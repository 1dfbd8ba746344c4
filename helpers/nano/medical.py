"""A model that has read Chinese and notes on medicine: it knows symptoms, but has never answered a patient."""

from pathlib import Path

from helpers.nano.common import Recipe, make_tokenizer, new_model, read_texts, train, windows

QWEN2_MEDICAL = Recipe(
    maker="medical",
    corpus=("data_samples/corpus_zh.txt", "data_samples/corpus_medical_zh.txt"),
    vocabulary=2816,
    steps=440,
    seconds=80,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both; seven windows in eight are read from the notes on medicine."""
    import torch

    everyday, medicine = read_texts(recipe.corpus)
    tokenizer = make_tokenizer([everyday, medicine], recipe.vocabulary)
    texts = [torch.tensor(tokenizer(text, verbose=False)["input_ids"]) for text in (everyday, medicine)]
    few = recipe.batch // 8

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [windows(texts[0], few, recipe.length), windows(texts[1], recipe.batch - few, recipe.length)]
        inputs, labels = zip(*parts, strict=True)
        return torch.cat(inputs), torch.cat(labels)

    model = new_model(recipe, tokenizer)
    train(recipe, model, next_batch, torch.cat(texts))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
