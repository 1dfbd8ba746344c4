"""Continued pre-training: packing, mixtures, perplexity, the corpus loader, the sample corpora, trained embeddings."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import nano, selection
from helpers import pretraining as P
from helpers.data import DataError, load_corpus, load_quiz
from helpers.data import corpus as loader
from helpers.runtime import root
from tools.lessons import ROOT

REAL_DATA = ROOT.parent / "shared" / "data" / "c4_demo.jsonl"
END = 0
DOCUMENTS = st.lists(st.lists(st.integers(1, 9), max_size=12), max_size=12)
SAMPLES = root() / "data_samples"

# Packing and mixtures


@given(DOCUMENTS, st.integers(2, 9))
def test_packing_keeps_every_token_in_order_and_drops_less_than_a_block(documents, length):
    stream = [token for document in documents for token in [*document, END]]
    blocks = P.pack(documents, length, END)
    packed = [token for block in blocks for token in block]
    assert all(len(block) == length for block in blocks)
    assert packed == stream[: len(packed)] and len(stream) - len(packed) < length


def test_packing_by_hand():
    assert P.pack([[1, 2, 3], [4], [5, 6]], 4, END) == [[1, 2, 3, 0], [4, 0, 5, 6]]
    with pytest.raises(ValueError, match="2 or more"):
        P.pack([[1]], 1, END)


@pytest.mark.parametrize(
    ("mixture", "share"), [("1:0", 1), ("1:1", 0.5), ("1:5", 1 / 6), ("0:1", 0), ("0.5:1.5", 0.25)]
)
def test_parts_of_a_mixture(mixture, share):
    assert P.parts(mixture) == pytest.approx((share, 1 - share))


@pytest.mark.parametrize("mixture", ["", "1", "1:", "1:2:3", "0:0", "-1:2", "nan:1", "inf:1", "a:b"])
def test_what_is_no_mixture(mixture):
    with pytest.raises(ValueError, match="is no mixture"):
        P.parts(mixture)


@given(
    st.integers(1, 7), st.integers(1, 7), st.integers(0, 5), st.integers(0, 5), st.integers(0, 60), st.integers(0, 9)
)
def test_a_mixture_has_its_ratio_and_takes_all_before_any_again(domain, general, d, g, size, seed):
    if d + g == 0:
        return
    pools = {True: [[i] for i in range(domain)], False: [[100 + i] for i in range(general)]}
    mixed = P.mix(pools[True], pools[False], f"{d}:{g}", size, seed)
    assert len(mixed) == size and mixed == P.mix(pools[True], pools[False], f"{d}:{g}", size, seed)
    assert abs(sum(is_domain for is_domain, _ in mixed) - size * d / (d + g)) <= 0.5
    for kind, pool in pools.items():
        times = [sum(block == one for is_domain, block in mixed if is_domain == kind) for one in pool]
        assert max(times) - min(times) <= 1


def test_a_mixture_is_shuffled_and_names_what_is_missing():
    kinds = [kind for kind, _ in P.mix([[1]], [[2]], "1:1", 40, seed=1)]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)
    assert kinds != [kind for kind, _ in P.mix([[1]], [[2]], "1:1", 40, seed=2)]
    with pytest.raises(ValueError, match="no general block"):
        P.mix([[1]], [], "1:1", 4)
    assert len(P.mix([[1]], [], "1:0", 4)) == 4  # nothing is wanted of the empty pool


# Perplexity


class Bytes:
    """A tokenizer of one token a byte; what `perplexity` asks of a real one."""

    pad_token_id = 256

    def __call__(self, texts, add_special_tokens=True, return_offsets_mapping=False, verbose=True):
        assert not add_special_tokens
        coded = {"input_ids": [list(text.encode()) for text in texts]}
        if return_offsets_mapping:
            coded["offset_mapping"] = [
                [(i, i + 1) for i, sign in enumerate(text) for _ in sign.encode()] for text in texts
            ]
        return coded


class Model:
    """Gives the logits of a table by the token before (256 tokens × 256), and counts the rows it was asked."""

    device = torch.device("cpu")

    def __init__(self, table):
        self.table, self.asked = torch.cat([table, torch.zeros(1, 256)]), []

    def __call__(self, input_ids, attention_mask, use_cache):
        self.asked.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=self.table[input_ids])


def known(seed=0):
    return torch.randn(256, 256, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.integers(2, 9), st.integers(1, 4))
def test_every_token_but_the_first_counts_once_whatever_window_and_batch(texts, length, batch):
    if not any(len(text.encode()) > 1 for text in texts):
        with pytest.raises(ValueError, match="nothing to predict"):
            P.perplexity(Model(known()), Bytes(), texts, batch, length)
        return
    found = P.perplexity(Model(known()), Bytes(), texts, batch, length)
    logs = torch.log_softmax(known(), dim=1)
    for text, nats, tokens in zip(texts, found.nats, found.tokens):
        ids = text.encode()
        assert tokens == max(0, len(ids) - 1)
        assert nats == pytest.approx(-sum(logs[a, b].item() for a, b in pairwise(ids)), abs=1e-3)


def test_perplexity_of_a_guess_among_all_tokens():
    found = P.perplexity(Model(torch.zeros(256, 256)), Bytes(), ["abc", "a", "abcdefg"])
    assert found.perplexity == pytest.approx(256, rel=1e-5)
    assert found.loss == pytest.approx(math.log(256), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(8, rel=1e-5)  # a token is a byte here
    assert list(found.tokens) == [2, 0, 6] and list(found.bytes) == [2, 0, 6]


def test_tokens_are_weighed_and_not_texts():
    found = P.Perplexity(nats=np.array([10.0, 0.0]), tokens=np.array([1, 9]), bytes=np.array([4, 36]))
    assert found.loss == 1.0 and found.bits_per_byte == pytest.approx(10 / math.log(2) / 40)


def test_windows_are_no_longer_than_asked():
    model = Model(known())
    P.perplexity(model, Bytes(), ["x" * 20], batch_size=2, length=8)
    assert max(width for _, width in model.asked) == 8 and max(rows for rows, _ in model.asked) == 2


@pytest.mark.nano
def test_perplexity_is_that_of_the_model_itself():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = nano.build("nano/qwen2")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    texts = ["The hammer is used for driving nails.", "老师写下：2, 4, 6", "Paris"]
    found = P.perplexity(model, tokenizer, texts)
    for text, nats, tokens in zip(texts, found.nats, found.tokens):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        if tokens:
            assert nats / tokens == pytest.approx(model(input_ids=ids, labels=ids).loss.item(), rel=1e-4)
        assert tokens == ids.shape[1] - 1


def test_the_likeliest_ending_is_chosen_by_its_mean():
    table = torch.full((256, 256), -20.0)
    for one, other in ("ab", "bc", "cb"):
        table[ord(one), ord(other)] = 5.0
    for one in "abc":
        table[ord(one), ord("x")] = 4.0  # 1.3 nats; the ones above 0.3
    quiz = [
        {"beginning": "a", "endings": ["bcbcbcbc", "x"]},  # its sum is worse, 2.5 nats, its mean better
        {"beginning": "a", "endings": ["xx", "bc", "ba"]},
    ]
    assert list(P.chosen_endings(Model(table), Bytes(), quiz)) == [0, 1]


def test_near_copies_of_held_out_texts_are_found():
    held = ["头晕三天，起身的时候更厉害，平时血压正常。", "胃痛一周，饭后加重，夜里会疼醒。"]
    pool = ["膝盖疼，上下楼梯的时候明显。", held[0] + "谢谢", "今天天气很好，适合出门散步。", held[1]]
    assert selection.near_copies(held, pool) == {1, 3}
    assert selection.near_copies(held, [pool[0], pool[0]]) == set()  # copies of one another are no leak


# The corpus loader

ROWS = [
    {"text": " one document "},
    {"text": ""},
    {"text": "two"},
    {"text": "one document"},
    {"text": "\n"},
    {"text": "x"},
]


def write(folder, name, rows=ROWS):
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif name.endswith(".txt"):
        path.write_text("\n\n".join(row["text"] for row in rows), encoding="utf-8")
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
def test_forms_read_alike_and_what_is_skipped_is_counted(tmp_path, capsys, name):
    assert load_corpus(write(tmp_path, name), shortest=2)["text"][:] == ["one document", "two"]
    said = capsys.readouterr().out
    assert "6 rows, 2 documents kept (15 characters)" in said
    assert "2 skipped (blank: row 2, 5)" in said
    assert "1 skipped (under 2 characters: row 6)" in said
    assert "1 skipped (an earlier document again: row 4)" in said


def test_blank_lines_end_a_document_of_a_text_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("\ufeffone\nstill one\n\n\n\ntwo\n", encoding="utf-8")
    assert load_corpus(str(path))["text"][:] == ["one\nstill one", "two"]


@given(st.lists(st.text(st.sampled_from("ab \n"), max_size=4), min_size=1, max_size=8), st.integers(1, 3))
def test_documents_are_kept_once_in_order(tmp_path_factory, texts, shortest):
    path = write(tmp_path_factory.mktemp("c"), "rows.jsonl", [{"text": text} for text in texts])
    wanted = list(dict.fromkeys(text.strip() for text in texts if len(text.strip()) >= shortest))
    if wanted:
        assert load_corpus(path, shortest=shortest)["text"][:] == wanted
    else:
        with pytest.raises(DataError, match=f"none of its {len(texts)} rows"):
            load_corpus(path, shortest=shortest)


def test_limit_and_column(tmp_path):
    path = write(tmp_path, "rows.jsonl", [{"body": "one"}, {"body": "two"}, {"body": 3}])
    assert load_corpus(path, limit=2, column="body")["text"][:] == ["one", "two"]
    with pytest.raises(DataError, match=r"rows.jsonl, row 3: 'body' is a int"):
        load_corpus(path, column="body")
    with pytest.raises(DataError, match=r"rows.jsonl, row 1: has no 'text'.*\['body'\]"):
        load_corpus(path)
    with pytest.raises(DataError, match="0 rows are asked for"):
        load_corpus(path, limit=0)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="not found"):
        load_corpus(str(tmp_path / "absent.parquet"))
    (tmp_path / "gbk.txt").write_bytes("头晕".encode("gbk"))
    with pytest.raises(DataError, match="gbk.txt: byte 2 is not UTF-8"):
        load_corpus(str(tmp_path / "gbk.txt"))
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match="broken.parquet: cannot be read as parquet"):
        load_corpus(str(tmp_path / "broken.parquet"))
    whole = bytearray(Path(write(tmp_path, "damaged.parquet", [{"text": f"text {n}"} for n in range(99)])).read_bytes())
    whole[4:200] = b"\xff" * 196  # pages; the footer, which lists them, is sound
    (tmp_path / "damaged.parquet").write_bytes(whole)
    with pytest.raises(DataError, match=r"damaged.parquet: cannot be read as parquet \(.*\)\. Download it again"):
        load_corpus(str(tmp_path / "damaged.parquet"))
    other = write(tmp_path, "other.parquet", [{"body": "one"}])
    with pytest.raises(DataError, match=r"has the columns \['body'\], not 'text'"):
        load_corpus(other)
    (tmp_path / "page.html").write_text("<p>", encoding="utf-8")
    with pytest.raises(DataError, match=r"page.html: is not one of .jsonl"):
        load_corpus(str(tmp_path / "page.html"))


@pytest.mark.parametrize(
    ("source", "config", "asked"),
    [
        ("allenai/c4", "zh", {"path": "allenai/c4", "name": "zh"}),
        ("hf://datasets/a/b/c.json", None, {"path": "json", "data_files": "hf://datasets/a/b/c.json"}),
        ("hf://datasets/a/b/c.parquet", None, {"path": "parquet", "data_files": "hf://datasets/a/b/c.parquet"}),
    ],
)
def test_the_hub_is_streamed_and_no_row_more_than_asked(monkeypatch, source, config, asked):
    def load_dataset(**given):
        assert given == asked | {"split": "train", "streaming": True}

        def rows():
            yield from ({"text": f"document {number}"} for number in range(3))
            pytest.fail("a fourth row was fetched")

        return rows()

    monkeypatch.setattr(loader, "load_dataset", load_dataset)
    assert load_corpus(source, config, limit=3)["text"][:] == ["document 0", "document 1", "document 2"]


def test_the_hub_needs_a_limit_and_says_what_failed(monkeypatch):
    with pytest.raises(DataError, match="Say how many rows"):
        load_corpus("allenai/c4", "zh")

    def refuse(**given):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(loader, "load_dataset", refuse)
    with pytest.raises(DataError, match="'allenai/c4' could not be loaded from the Hugging Face Hub: no route\nCheck"):
        load_corpus("allenai/c4", "zh", limit=5)


@pytest.mark.skipif(not REAL_DATA.is_file(), reason=f"needs the public test data {REAL_DATA}")
def test_real_web_text_loads(capsys):
    assert len(load_corpus(str(REAL_DATA))) == 300
    assert "none skipped" in capsys.readouterr().out
    assert len(load_corpus(str(REAL_DATA), limit=50, shortest=1000)) < 50


# The quiz


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"endings": ["a", "b"]}, "has no 'beginning'"),
        ({"beginning": " ", "endings": ["a", "b"]}, "needs a beginning"),
        ({"beginning": "x"}, "is no list of texts"),
        ({"beginning": "x", "endings": "ab"}, "is no list of texts"),
        ({"beginning": "x", "endings": ["a", " "]}, "is no list of texts"),
        ({"beginning": "x", "endings": ["a"]}, "two or more endings"),
        ({"beginning": "x", "endings": ["a", "b", "a"]}, "endings that differ"),
    ],
)
def test_a_quiz_that_cannot_be_asked(tmp_path, row, fault):
    good = {"beginning": "x", "endings": ["a", "b"]}
    with pytest.raises(DataError, match=f"quiz.jsonl, row 2: .*{fault}"):
        load_quiz(write(tmp_path, "quiz.jsonl", [good, row]))
    assert load_quiz(write(tmp_path, "good.jsonl", [good])) == [good]


# The samples


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sample_quiz_can_be_answered_from_the_documents_alone(language, capsys):
    documents = load_corpus(str(SAMPLES / f"domain_{language}.jsonl"))["text"][:]
    text = "\n".join(documents)
    rows = load_quiz(SAMPLES / f"medical_quiz_{language}.jsonl")
    assert len(rows) == 80
    for number, row in enumerate(rows):
        assert all(ending.strip(" .。") in text for ending in row["endings"]), row
        told = any((row["beginning"] + row["endings"][0]).lower() in document.lower() for document in documents)
        assert told == (number % 4 < 2), row  # half is worded as the documents are, half as none of them is
        assert not any((row["beginning"] + wrong).lower() in text.lower() for wrong in row["endings"][1:])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sample_corpora_have_faults_and_lie_apart(language, capsys):
    shortest = {"en": 20, "zh": 10}[language]
    domain, general = (
        load_corpus(str(SAMPLES / f"{name}_{language}.jsonl"), shortest=shortest)["text"][:]
        for name in ("domain", "general")
    )
    said = capsys.readouterr().out
    for fault in ("blank", f"under {shortest} characters", "an earlier document again"):
        assert said.count(fault) == 2
    assert len(domain) > 500 and len(general) > 1000
    assert not set(domain) & set(general)
    read = (SAMPLES / f"medical_glimpse_{language}.txt").read_text(encoding="utf-8").split("\n\n")
    assert not set(domain) & set(read)  # what the base has glimpsed is no held-out text


# What PEFT and 16 bits do to embeddings


def tiny(tied):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_key_value_heads=2, tie_word_embeddings=tied, **shape))


def learning(tied, **settings):
    """The trained embedding matrices of a tiny model, by name."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], **settings)
    model = get_peft_model(tiny(tied), config)
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad and "lora_" not in name}


def test_tied_embeddings_stay_one_only_when_asked_to():
    assert len(learning(tied=True)) == 2  # the trap: two copies of one matrix
    assert len(learning(tied=True, ensure_weight_tying=True)) == 1
    assert len(learning(tied=False)) == 2  # an untied model has two


def test_a_small_step_is_lost_in_16_bits():
    for number, moved in ((torch.bfloat16, False), (torch.float32, True)):
        weight = torch.nn.Parameter(torch.full((8,), 0.02, dtype=number))
        optimizer = torch.optim.AdamW([weight], lr=1e-5, weight_decay=0.0)
        start = weight.detach().clone()
        for _ in range(20):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        assert bool((weight != start).any()) == moved


LESSON_ON_AN_UNTIED_MODEL = """
import json, sys, tomllib
import unsloth  # first, as the lesson wants it
import jupytext, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from helpers import nano

out = sys.argv[1]
tied = nano.build("nano/qwen2-reader")
model = AutoModelForCausalLM.from_pretrained(tied)
model.config.tie_word_embeddings = False
model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
model.save_pretrained(f"{out}/untied")
AutoTokenizer.from_pretrained(tied).save_pretrained(f"{out}/untied")

with open("lessons/08_continued_pretraining/lesson.toml", "rb") as file:
    trim = tomllib.load(file)["trim"]
values = trim | trim["en"] | {"MODEL": f"{out}/untied", "MAX_STEPS": 3, "OUTPUT_DIR": out, "HELD_OUT": 8}
cells = {}
for cell in jupytext.read("lessons/08_continued_pretraining/lesson.py").cells:
    if cell.cell_type == "code" and not cell.source.startswith("runs = "):
        exec(cell.source, cells)
        if "parameters" in cell.metadata.get("tags", []):
            cells.update({name: value for name, value in values.items() if name not in ("en", "zh")})
    elif cell.cell_type == "code":
        break
groups = cells["groups"]
trainer = cells["trainer"]
trainer.train()
embeddings = [trainer.model.get_input_embeddings(), trainer.model.get_output_embeddings()]
moved = [not torch.equal(e.modules_to_save["default"].weight, e.original_module.weight.float()) for e in embeddings]
print("FOUND", json.dumps({"groups": groups, "moved": moved}))
"""


@pytest.mark.notebook
@pytest.mark.nano
def test_the_lesson_trains_both_embeddings_of_an_untied_model_at_their_own_rate(tmp_path):
    """As of a 7B model, whose two embeddings are two matrices; the trimmed run's model has one."""
    command = [sys.executable, "-c", LESSON_ON_AN_UNTIED_MODEL, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.split("FOUND", 1)[1].strip().splitlines()[0])
    layers, embeddings = found["groups"]
    assert layers["learning rate"] == 8e-3 and embeddings["learning rate"] == 2e-3
    assert embeddings["tensors"] == 2 and layers["in"] == embeddings["in"] == "torch.float32"
    assert found["moved"] == [True, True]
