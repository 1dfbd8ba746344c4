import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from helpers import hub, nano, runtime
from helpers.hub import ModelNotFound, check_model, find_datasets, resolve_model


def test_a_folder_becomes_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model") == str((tmp_path / "model").resolve())


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no config\.json and no adapter_config\.json"):
        resolve_model(str(tmp_path))


@pytest.mark.bad_input
@pytest.mark.parametrize("name", [None, 3, 2.5, True, "", " ", b"me/model", ["me/model"], {}, object()])
@pytest.mark.parametrize("ask", [check_model, resolve_model, lambda name: runtime.require(models=[name])])
def test_what_is_no_text_is_no_model_name(name, ask):
    with pytest.raises(
        ModelNotFound, match="is no model name. Hub names look like 'owner/model'. Check MODEL"
    ) as caught:
        ask(name)
    assert isinstance(caught.value, ValueError) and repr(name) in str(caught.value)


def test_an_adapter_on_a_folder_beside_it(tmp_path, monkeypatch):
    for folder, file, text in (
        ("base", "config.json", "{}"),
        ("adapter", "adapter_config.json", '{"base_model_name_or_path": "base"}'),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    check_model("adapter")
    assert resolve_model("adapter") == str(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{tmp_path}/gone"}}')
    for ask in (check_model, resolve_model):
        with pytest.raises(ModelNotFound, match="is an adapter on .*/gone, which is not there any more"):
            ask("adapter")


@pytest.mark.parametrize("files", [{}, {"config.json": "{}"}])
@pytest.mark.parametrize(
    "bases", [("{here}/one",), ("one",), ("./one",), ("{here}/two", "{here}/one"), ("two", "one"), ("two", "two")]
)
def test_adapters_on_themselves_or_on_each_other_are_looked_at_once(tmp_path, monkeypatch, bases, files):
    monkeypatch.chdir(tmp_path)
    for name, base in zip(("one", "two"), bases):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        facts = f'{{"base_model_name_or_path": "{base.format(here=tmp_path)}"}}'
        (tmp_path / name / "adapter_config.json").write_text(facts)
    check_model("one")
    assert resolve_model("one") == str(tmp_path / "one")


def test_the_base_of_a_base_is_asked_for(tmp_path, monkeypatch):
    for name, base in (("one", "two"), ("two", "three"), ("three", "/gone")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(f'{{"base_model_name_or_path": "{base}"}}')
    monkeypatch.chdir(tmp_path)
    for ask in (check_model, resolve_model):
        with pytest.raises(ModelNotFound, match="three is an adapter on /gone, which is not there any more. Put the"):
            ask("one")


SCOPE = {
    "me/adapter": {"adapter_config.json": '{"base_model_name_or_path": "me/base"}', "adapter_model.safetensors": ""},
    "me/base": {"config.json": "{}", "model.safetensors": ""},
    "me/code": {"config.json": '{"model_type": "mine", "auto_map": {}}', "model.safetensors": ""},
    "me/on-code": {"adapter_config.json": '{"base_model_name_or_path": "me/code"}', "adapter_model.safetensors": ""},
    "me/on-none": {"adapter_config.json": '{"base_model_name_or_path": "me/none"}', "adapter_model.safetensors": ""},
}


class Scope:
    """ModelScope's client, where there are three adapters and the bases of two of them."""

    def __init__(self, folder):
        self.folder, self.fetched = folder, []
        self.HubApi = lambda: self

    def get_model_files(self, name):
        return [{"Path": file} for file in SCOPE[name]]

    def model_file_download(self, name, file, local_dir):
        self.fetched.append(name)
        path = Path(local_dir, file)
        path.write_text(SCOPE[name][file])
        return str(path)

    def snapshot_download(self, name, local_files_only=False):
        if local_files_only:
            raise FileNotFoundError("nothing of it is in the cache")
        folder = self.folder / name
        folder.mkdir(parents=True)
        for file, text in SCOPE[name].items():
            (folder / file).write_text(text)
        return str(folder)


def test_the_base_of_an_adapter_from_modelscope(monkeypatch, tmp_path):
    asked = []

    def no_hub(name, revision):
        asked.append(name)
        raise ModelNotFound("the Hub has none")

    monkeypatch.setitem(sys.modules, "modelscope", scope := Scope(tmp_path))
    monkeypatch.setattr(hub, "_asked_hub", no_hub)
    check_model("me/adapter", "modelscope")
    assert resolve_model("me/adapter", "modelscope") == str(tmp_path / "me/adapter") and asked == []
    for ask in (check_model, resolve_model):
        with pytest.raises(
            ModelNotFound, match="me/on-none is an adapter(.|\n)*'me/none' could not be fetched from Mod"
        ):
            ask("me/on-none", "modelscope")
        assert asked.pop() == "me/none"
    monkeypatch.setattr(hub, "_asked_hub", lambda name, revision: {})  # whence the libraries take it
    check_model("me/on-none", "modelscope")
    assert set(scope.fetched) == {"me/adapter", "me/base", "me/on-none"}


def test_a_base_of_its_own_code_on_modelscope(monkeypatch, tmp_path):
    def no_hub(name, revision):
        raise ModelNotFound("the Hub has none")

    monkeypatch.setitem(sys.modules, "modelscope", Scope(tmp_path))
    monkeypatch.setattr(hub, "_asked_hub", no_hub)
    check_model("me/on-code", "modelscope")
    with pytest.raises(
        hub.UnsafeModel, match="me/on-code is an adapter(.|\n)*'mine'(.|\n)* Choose a model that transf"
    ):
        resolve_model("me/on-code", "modelscope")


def test_nano_names_go_to_nano(monkeypatch, tmp_path):
    monkeypatch.setattr(nano, "build", lambda name: tmp_path / name)
    assert resolve_model("nano/qwen2") == str(tmp_path / "nano/qwen2")


# Data sets


class FakeHub:
    """An HfApi that knows two data sets."""

    asked: dict

    def list_datasets(self, **asked):
        self.asked = asked
        tags = ["license:cc-by-nc-4.0", "language:en", "language:zh", "size_categories:10K<n<100K", "task:x"]
        when = datetime(2025, 3, 1, tzinfo=UTC)
        yield SimpleNamespace(id="a/alpaca", tags=tags, downloads=12345, last_modified=when, gated=False)
        yield SimpleNamespace(id="b/alpaca", tags=None, downloads=None, last_modified=None, gated="manual")


def test_data_sets_are_listed_with_what_their_cards_say():
    api = FakeHub()
    one, other = find_datasets("alpaca", limit=2, api=api)
    assert api.asked == {"search": "alpaca", "sort": "downloads", "limit": 2}
    assert one == {
        "name": "a/alpaca", "rows": "10K<n<100K", "languages": "en, zh", "licence": "cc-by-nc-4.0",
        "downloads": "12,345", "changed": "2025-03-01", "gated": "no",
    }  # fmt: skip
    assert list(other) == list(one) and set(other.values()) == {"b/alpaca", "?", "manual"}


def test_without_the_hub_the_samples_are_listed_and_that_is_said(capsys):
    class Unplugged:
        def list_datasets(self, **asked):
            raise httpx.ConnectError("no network")

    rows = find_datasets("alpaca", api=Unplugged())
    assert "cannot be reached (ConnectError): listing data_samples/ instead." in capsys.readouterr().out
    assert [row["name"] for row in rows] == ["data_samples/alpaca_en.json", "data_samples/alpaca_zh.json"]
    assert rows[0]["rows"] == "380" and rows[1]["languages"] == "zh"
    assert list(rows[0]) == list(next(iter(find_datasets("x", api=FakeHub()))))
    assert find_datasets("no such thing", api=Unplugged()) == []


def test_an_adapter_in_the_cache_needs_no_network(monkeypatch, tmp_path):
    model, commit = tmp_path / "models--me--adapter", "a" * 40
    files, missing = model / "snapshots" / commit, model / ".no_exist" / commit
    for folder in (files, missing, model / "refs"):
        folder.mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (missing / "config.json").touch()  # the cache's note that an adapter has none
    (files / "adapter_config.json").write_text('{"base_model_name_or_path": "me/model"}')
    (files / "adapter_model.safetensors").write_bytes(b"")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelNotFound, match="me/adapter is an adapter, and its base model(.|\n)*'me/model' is not downl"
    ):
        resolve_model("me/adapter")
    base = tmp_path / "models--me--model"
    (base / "snapshots" / commit).mkdir(parents=True)
    (base / "snapshots" / commit / "config.json").write_text("{}")
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(commit)
    assert resolve_model("me/adapter") == "me/adapter"
    (missing / "config.json").unlink()
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE forbids"):
        resolve_model("me/adapter")
