from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import pytest

from helpers import nano
from helpers.hub import ModelNotFound, find_datasets, resolve_model


def test_a_folder_becomes_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("model") == str((tmp_path / "model").resolve())


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(ModelNotFound, match=r"no config\.json and no adapter_config\.json"):
        resolve_model(str(tmp_path))


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
    assert resolve_model("me/adapter") == "me/adapter"
    (missing / "config.json").unlink()
    with pytest.raises(ModelNotFound, match="HF_HUB_OFFLINE forbids"):
        resolve_model("me/adapter")
