"""LLaMA-Factory as the lesson runs it: its files, its process, what it wrote, its server, and the table of its keys."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import textwrap
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from helpers import llamafactory, nano
from helpers.data import DataError
from helpers.environments import Environment
from helpers.nano import bloom
from helpers.runtime import NotEnough, Stop, root

REAL = root().parent / "shared" / "data" / "medical_sft_1k.jsonl"
LESSON = root() / "lessons" / "12_llamafactory"
# Stands for llamafactory-cli; what it does stands in the YAML under `does`.
COMMAND = """#!{python}
import http.server, json, os, sys, time
from pathlib import Path

import yaml

verb, file = sys.argv[1:]
settings = yaml.safe_load(Path(file).read_text())
Path(file).with_suffix(".env").write_text(json.dumps(dict(os.environ, PID=str(os.getpid()))))
print("\\r 10%|#\\r100%|##########")
if settings["does"] == "fails":
    print("ValueError: Some keys are not used: ['lora_rang']")
    sys.exit(1)
if settings["does"] == "fills":
    os.makedirs(settings["output_dir"])
    Path(settings["output_dir"], "half").touch()
    sys.exit("OSError: [Errno 28] No space left on device: 'model.safetensors'")
if settings["does"] == "sleeps":
    time.sleep(600)
if settings["does"] == "serves":
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(os.environ["API_MODEL_NAME"].encode())
    http.server.HTTPServer((os.environ["API_HOST"], int(os.environ["API_PORT"])), Handler).serve_forever()
folder = Path(settings["output_dir"])
folder.mkdir(exist_ok=True)
with open(folder / "trainer_log.jsonl", "a") as log:
    for step in (1, 2):
        log.write(json.dumps({"current_steps": step, "total_steps": 2, "loss": 3.0 - step}) + "\\n")
history = [{"step": 0, "eval_loss": 2.5, "eval_rewards/margins": 0.0}, {"step": 1, "loss": 2.0}]
history.append({"step": 2, "eval_loss": 1.5, "eval_rewards/margins": 0.4})
(folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
(folder / "all_results.json").write_text(json.dumps({"train_loss": 1.5}))
print("input_ids:\\n[5, 6, 7]\\ninputs:\\na b c\\nlabel_ids:\\n[-100, 6, 7]\\nlabels:\\nb c")
"""


@pytest.fixture
def factory(tmp_path: Path) -> Environment:
    """An environment whose llamafactory-cli does what the YAML says under `does`."""
    import sys

    command = tmp_path / "env" / "bin" / "llamafactory-cli"
    command.parent.mkdir(parents=True)
    command.write_text(COMMAND.replace("{python}", sys.executable), encoding="utf-8")
    command.chmod(0o755)
    return Environment(tmp_path / "env")


def stage(tmp_path: Path, does: str, model: str = "owner/model", folder: str = "out") -> Path:
    text = f"does: {does}\nmodel_name_or_path: {model}\noutput_dir: {tmp_path / folder}"
    return llamafactory.write(tmp_path / "work.yaml", text)


def environment_of(file: Path) -> dict[str, str]:
    return json.loads(file.with_suffix(".env").read_text(encoding="utf-8"))


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_stage_gives_its_losses_figures_and_example(factory: Environment, tmp_path: Path) -> None:
    ran = llamafactory.run(factory, "train", stage(tmp_path, "trains"))
    assert ran.losses().to_dict() == {1: 2.0, 2: 1.0}
    held_out = ran.held_out()
    assert held_out["loss"].to_dict() == {0: 2.5, 2: 1.5}
    assert held_out["margins"].to_dict() == {0: 0.0, 2: 0.4}
    assert ran.metrics == {"train_loss": 1.5}
    assert ran.example() == ([5, 6, 7], [-100, 6, 7])
    assert ran.seconds > 0 and ran.log == tmp_path / "work.log"
    assert len(llamafactory.loss_plot({"one": ran}).axes) == 1


def test_a_second_run_begins_with_an_empty_folder(factory: Environment, tmp_path: Path) -> None:
    file = stage(tmp_path, "trains")
    llamafactory.run(factory, "train", file)
    (tmp_path / "out" / "left").touch()
    again = llamafactory.run(factory, "train", file)
    assert len(again.losses()) == 2 and not (tmp_path / "out" / "left").exists()


def test_a_folder_elsewhere_is_never_emptied(factory: Environment, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "kept").touch()
    (tmp_path / "lesson").mkdir()
    text = f"does: trains\nmodel_name_or_path: m\noutput_dir: {mine}"
    llamafactory.run(factory, "train", llamafactory.write(tmp_path / "lesson" / "work.yaml", text))
    assert (mine / "kept").exists()


def test_a_failing_stage_names_itself_its_last_lines_and_its_log(factory: Environment, tmp_path: Path) -> None:
    with pytest.raises(llamafactory.StageFailed) as error:
        llamafactory.run(factory, "train", stage(tmp_path, "fails"))
    said = str(error.value)
    assert said.startswith("stage work failed after") and "lora_rang" in said and str(tmp_path / "work.log") in said
    assert "10%" not in said  # of a progress bar the last state alone
    assert isinstance(error.value, Stop)


@pytest.mark.interruption
@pytest.mark.parametrize(("does", "error"), [("fails", llamafactory.StageFailed), ("fills", NotEnough)])
def test_what_an_earlier_run_wrote_comes_back_when_a_stage_fails(factory, tmp_path, does, error) -> None:
    llamafactory.run(factory, "train", stage(tmp_path, "trains"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for _ in range(2):
        with pytest.raises(error, match=str(tmp_path)):
            llamafactory.run(factory, "train", stage(tmp_path, does))
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert not (tmp_path / "out.before").exists()


@pytest.mark.interruption
def test_what_a_killed_stage_had_set_aside_comes_back(factory: Environment, tmp_path: Path) -> None:
    llamafactory.run(factory, "train", stage(tmp_path, "trains"))
    before = (tmp_path / "out" / "all_results.json").read_bytes()
    (tmp_path / "out").rename(tmp_path / "out.before")  # as it lies when the notebook's process is killed
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "half").touch()
    with pytest.raises(llamafactory.StageFailed):
        llamafactory.run(factory, "train", stage(tmp_path, "fails"))
    assert (tmp_path / "out" / "all_results.json").read_bytes() == before and not (tmp_path / "out" / "half").exists()


def test_it_sees_none_of_our_python(factory: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in llamafactory.NOT_FOR_IT:
        monkeypatch.setenv(name, "ours")
    monkeypatch.delenv("PYTHONHOME")  # the stand-in runs on this Python
    for name in ("HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    file = stage(tmp_path, "trains")
    llamafactory.run(factory, "train", file)
    seen = environment_of(file)
    assert not set(seen) & set(llamafactory.NOT_FOR_IT)
    assert seen["CUDA_VISIBLE_DEVICES"] == "0" and "HF_HUB_OFFLINE" not in seen
    assert llamafactory.SETTINGS.items() <= seen.items()
    llamafactory.run(factory, "train", stage(tmp_path, "trains", model=str(tmp_path)))
    assert environment_of(file)["HF_HUB_OFFLINE"] == "1"  # a folder has all that it needs


def test_the_server_ends_with_the_block_also_by_an_error(factory: Environment, tmp_path: Path) -> None:
    import urllib.request

    file = stage(tmp_path, "serves")
    with pytest.raises(ZeroDivisionError), llamafactory.api(factory, file, "mine") as server:
        assert urllib.request.urlopen(f"{server.url}/models", timeout=5).read() == b"mine"
        assert server.url.startswith("http://127.0.0.1:") and server.url.endswith("/v1")
        1 / 0  # noqa: B018
    assert not alive(environment_of(file)["PID"])


def test_a_server_that_ends_is_told(factory: Environment, tmp_path: Path) -> None:
    with (
        pytest.raises(llamafactory.StageFailed, match="the server ended"),
        llamafactory.api(factory, stage(tmp_path, "fails")),
    ):
        pass


def test_a_server_that_never_answers_is_told_and_stopped(
    factory: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llamafactory, "STARTED_WITHIN", 1)
    file = stage(tmp_path, "sleeps")
    with pytest.raises(llamafactory.StageFailed, match="does not answer"), llamafactory.api(factory, file):
        pass
    assert not alive(environment_of(file)["PID"])


def test_an_interrupted_stage_is_ended(factory: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stage(tmp_path, "sleeps")

    def interrupt(*_: object) -> None:
        while not file.with_suffix(".env").exists() or not file.with_suffix(".env").read_text():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(llamafactory, "_watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        llamafactory.run(factory, "train", file)
    assert not alive(environment_of(file)["PID"])


@pytest.mark.interruption
def test_a_stage_that_is_ended_from_outside_has_failed(factory, tmp_path, monkeypatch) -> None:
    llamafactory.run(factory, "train", stage(tmp_path, "trains"))
    before = (tmp_path / "out" / "all_results.json").read_bytes()
    monkeypatch.setattr(
        llamafactory, "_watch", lambda process, *_: (time.sleep(1), process.terminate(), process.wait())
    )
    with pytest.raises(llamafactory.StageFailed, match="stage work failed"):
        llamafactory.run(factory, "train", stage(tmp_path, "sleeps"))
    assert (tmp_path / "out" / "all_results.json").read_bytes() == before


def test_yaml_is_written_as_given(tmp_path: Path) -> None:
    file = llamafactory.write(tmp_path / "new" / "a.yaml", "### 1\na: 1\n", "b: 中文  # why\n")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == {"a": 1, "b": "中文"}
    assert "### 1" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        (("a: 1", "a: 2"), "a stands twice"),
        (("just words",), "no list"),
        (("model_name_or_path: a: b",), r"a\.yaml: is no YAML.*quotes"),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused(parts: tuple[str, ...], fault: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=fault):
        llamafactory.write(tmp_path / "a.yaml", *parts)
    assert not (tmp_path / "a.yaml").exists()


def test_first_rows_of_a_file_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "train.json"
    whole.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(5)), encoding="utf-8")
    asked = []

    def download(*names: str, repo_type: str) -> str:
        asked.append((*names, repo_type))
        return str(whole)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    part = llamafactory.first_rows("owner/set:pretrain/train.json", tmp_path / "data", 3)
    assert asked == [("owner/set", "pretrain/train.json", "dataset")]
    assert llamafactory.load_texts(part) == ["0", "1", "2"]
    assert llamafactory.first_rows(str(whole), tmp_path / "data", 3) == str(whole)


def test_files_of_one_name_do_not_take_one_anothers_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, path: str, repo_type: str, revision: str = "main") -> str:
        whole = tmp_path / "whole.json"
        whole.write_text(json.dumps({"text": f"{name} {path} {revision}"}), encoding="utf-8")
        return str(whole)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    sources = ["o/one:data/train.json", "o/two:data/train.json", "o/one:b/data/train.json", "o/one@v1:data/train.json"]
    parts = [llamafactory.first_rows(source, tmp_path / "data") for source in sources]
    assert [llamafactory.load_texts(part) for part in parts] == [
        ["o/one data/train.json main"],
        ["o/two data/train.json main"],
        ["o/one b/data/train.json main"],
        ["o/one data/train.json v1"],
    ]
    assert {Path(part).parent for part in parts} == {tmp_path / "data"}


def test_a_file_that_the_hub_does_not_give_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: str, **__: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(DataError, match=r"a\.json of the data set 'owner/set'.*HF_ENDPOINT"):
        llamafactory.first_rows("owner/set:a.json", tmp_path)


def test_texts_without_text_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "one"}\n{"text": " "}\n', encoding="utf-8")
    assert llamafactory.load_texts(str(file)) == ["one"]
    assert "2 rows, 1 kept, 1 skipped (blank text: row 2)" in capsys.readouterr().out
    file.write_text('{"words": "one"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 1: has no 'text'"):
        llamafactory.load_texts(str(file))


def test_instructions_in_either_form(tmp_path: Path) -> None:
    alpaca, talk = tmp_path / "a.json", tmp_path / "b.json"
    alpaca.write_text('[{"instruction": "q", "input": "", "output": "a"}]', encoding="utf-8")
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    talk.write_text(json.dumps([{"conversations": turns}]), encoding="utf-8")
    rows = llamafactory.load_instructions(str(alpaca)).to_list()
    assert rows == llamafactory.load_instructions(str(talk)).to_list()
    talk.write_text(json.dumps([turns]), encoding="utf-8")  # bare lists
    assert rows == llamafactory.load_instructions(str(talk)).to_list()


def yaml_keys() -> set[str]:
    """Every key that the lesson writes into a YAML: in its texts at the start of a line."""
    tree = ast.parse((LESSON / "lesson.py").read_text(encoding="utf-8"))
    keys = {"bf16", "fp16"}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
            keys |= set(re.findall(r"(?m)^([a-z]\w+): ", text)) if "\n" in text else set()
    return keys


def test_the_table_has_every_key_of_the_lesson_and_no_other() -> None:
    keys = yaml_keys()
    assert {"stage", "lora_target", "pref_beta", "export_quantization_bit", "infer_backend"} <= keys
    assert keys == set(llamafactory.KEYS)


def test_every_name_in_the_table_exists_in_the_installed_libraries() -> None:
    from importlib.util import find_spec

    from peft import LoraConfig, PeftModel
    from transformers import GPTQConfig
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.sft_config import SFTConfig

    known = {kind.__name__: {f.name for f in fields(kind)} for kind in (SFTConfig, DPOConfig, LoraConfig)}
    known["GPTQConfig"] = set(inspect.signature(GPTQConfig).parameters)
    seen = [m for name in llamafactory.KEYS.values() for m in re.findall(r"\b(\w+Config)\.(\w+)", name)]
    assert len(seen) > 20
    assert not [f"{kind}.{name}" for kind, name in seen if name not in known[kind]]
    assert "model_id" in inspect.signature(PeftModel.from_pretrained).parameters
    loader = Path(find_spec("unsloth").origin).parent / "models" / "loader.py"  # importing it takes 15 s
    text = loader.read_text(encoding="utf-8")
    for name in re.findall(r"FastLanguageModel\.from_pretrained\((\w+)\)", " ".join(llamafactory.KEYS.values())):
        assert re.search(rf"\b{name}\b *=", text)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_readings_table_is_the_notebooks(language: str) -> None:
    text = (LESSON / f"reading.{language}.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"(?m)^\| `(\w+)` \| `(.+?)` \|", text))
    assert told == llamafactory.KEYS


def test_precision_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from helpers import runtime

    monkeypatch.setattr(runtime, "gpu", lambda: None)
    assert llamafactory.precision() == "bf16: false"
    monkeypatch.setattr(runtime, "gpu", lambda: runtime.Gpu("T4", 14.7, (7, 5)))
    monkeypatch.setattr(runtime, "dtype", lambda: torch.float16)
    assert llamafactory.precision() == "fp16: true"


def test_the_entries_are_made_of_the_notes_facts_and_stand_once() -> None:
    from tools.samples import encyclopedia

    rows = [json.loads(line) for line in encyclopedia.files()["encyclopedia_zh.jsonl"].decode().splitlines()]
    texts = [row["text"] for row in rows]
    assert len(texts) == len(set(texts)) == 69 * encyclopedia.EACH
    corpus = (root() / "data_samples" / "corpus_medical_zh.txt").read_text(encoding="utf-8")
    assert not [text for text in texts if text in corpus]
    assert textwrap.dedent(texts[0]) == texts[0]


@pytest.mark.notebook  # half a minute, and the environment
@pytest.mark.nano
@pytest.mark.skipif(not REAL.exists(), reason=f"needs the public test data in {REAL}")
def test_sft_learns_from_real_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = llamafactory.load_instructions(str(REAL)).to_list()
    assert "1,000 dialogues" in capsys.readouterr().out
    for name, part in {"rows": rows[40:340], "held_out": rows[:40]}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    info = {name: {"file_name": f"{name}.json"} for name in ("rows", "held_out")}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    text = f"""
stage: sft
model_name_or_path: {nano.build("nano/bloom-medical")}
template: default
finetuning_type: lora
lora_target: query_key_value
lora_rank: 8
dataset_dir: {tmp_path}
dataset: rows
eval_dataset: held_out
cutoff_len: 256
do_train: true
bf16: false
per_device_train_batch_size: 4
per_device_eval_batch_size: 4
max_steps: 75
learning_rate: 1.0e-2
lr_scheduler_type: cosine
logging_steps: 1
save_strategy: "no"
eval_strategy: steps
eval_steps: 75
eval_on_start: true
report_to: none
output_dir: {tmp_path}/out
"""
    stage = llamafactory.run(llamafactory.environment(), "train", llamafactory.write(tmp_path / "sft.yaml", text))
    loss, held_out = stage.losses(), stage.held_out()["loss"]
    print(
        f"{len(rows)} rows, loss {loss.head(5).mean():.2f} to {loss.tail(5).mean():.2f}, held out {held_out.to_dict()}"
    )
    assert len(loss) == 75
    assert loss.tail(5).mean() < 0.9 * loss.head(5).mean()  # hardly a word of these rows has it ever read
    assert held_out.iloc[-1] < 0.85 * held_out.iloc[0]


@pytest.fixture(scope="module")
def tiny_bloom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Bloom of the recipe's make, too small to know anything."""
    small = {"hidden": 64, "heads": 1, "layers": 1, "steps": 2, "batch": 2, "length": 16}
    folder = tmp_path_factory.mktemp("bloom") / "tiny"
    bloom.make(folder, replace(bloom.BLOOM_MEDICAL, **small))
    return folder


def test_the_nano_bloom_is_a_bloom(tiny_bloom: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_bloom), AutoTokenizer.from_pretrained(tiny_bloom)
    assert type(model).__name__ == "BloomForCausalLM"
    assert {name.split(".")[-2] for name in model.state_dict() if "self_attention" in name} == {
        "query_key_value",
        "dense",
    }
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "<pad>")
    assert tokenizer.chat_template is None and len(tokenizer) == bloom.BLOOM_MEDICAL.vocabulary
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer("</s>")["input_ids"][0]
    assert tokenizer.decode(tokenizer("头痛 12 Assistant:")["input_ids"]) == "头痛 12 Assistant:"


def test_gptq_can_take_the_nano_bloom_apart_into_groups() -> None:
    assert bloom.BLOOM_MEDICAL.hidden % 128 == 0 and bloom.BLOOM_MEDICAL.hidden != 128


def test_none_of_the_pairs_questions_is_read_by_the_nano_bloom() -> None:
    read = "".join((root() / name).read_text(encoding="utf-8") for name in bloom.BLOOM_MEDICAL.corpus)
    pairs = json.loads((root() / "data_samples" / "preferences_sharegpt.json").read_text(encoding="utf-8"))
    assert not [pair for pair in pairs if pair["conversations"][0]["value"] in read]
