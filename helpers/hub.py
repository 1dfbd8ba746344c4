"""Where a model comes from: the Hugging Face Hub, a mirror, ModelScope, a folder, or a nano model; which data sets
there are on the Hub.

A model or a data set on a hub may be named with a revision, `owner/name@revision`: a branch, a tag or, best, a commit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from helpers import runtime
from helpers.runtime import Stop, root

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NANO = "nano/"
# What reads a pickle carelessly runs the program in it.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
# Written by a trainer beside the weights; none of it is weights, and the trainer reads what it wants of it as data.
NO_WEIGHTS = ("training_args.bin", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*")
# Taken as they are, also as a pickle alone: transformers reads it with torch.load(weights_only=True), which makes
# tensors and runs nothing. Lesson 11's reward model is the one that its method was published with, and exists in no
# other form; lesson 12's models are of 2022, before safetensors was usual.
READ_AS_DATA = (
    "OpenAssistant/reward-model-deberta-v3-large-v2",
    "bigscience/bloomz-7b1",
    "bigscience/bloomz-1b7",
)


class ModelNotFound(Stop, ValueError):
    """A model that cannot be had; the message names it and says what to do."""


class UnsafeModel(ModelNotFound):
    """A model that could run somebody else's program while it is loaded; nothing of it has been read."""


def resolve_model(name: str, source: str = "huggingface") -> str:
    """Turn a model's name into what `from_pretrained` takes, and fail now rather than mid-download.

    `nano/…` is built on the spot (about a minute, once); a folder becomes an absolute path, because
    an adapter stores its base model's path as given; with `source="modelscope"` the model is fetched
    from ModelScope and its folder returned; anything else is a name on the Hugging Face Hub (or the
    mirror in `HF_ENDPOINT`), checked by fetching its `config.json`. Of a name on the Hub the commit is
    printed; `owner/name@revision` fetches that one and returns its folder.
    Raises ModelNotFound, and UnsafeModel where the weights are a pickle alone, or the model is Python code of its own.
    """
    if name.startswith(NANO):
        from helpers import nano

        return str(nano.build(name))
    if Path(name).is_dir():
        return _folder(Path(name).resolve())
    repository, revision = split_revision(name)
    if name.startswith(("/", "./", "../", "~")) or repository.count("/") > 1:
        raise ModelNotFound(f"Model folder {name!r} not found (looked from {Path.cwd()}). Check MODEL.")
    if source == "modelscope":
        return _modelscope(repository, revision)
    if source == "huggingface":
        return _huggingface(repository, revision)
    raise ModelNotFound(f"Unknown source {source!r} for {name!r}: use 'huggingface' or 'modelscope'.")


def split_revision(name: str) -> tuple[str, str | None]:
    """`owner/name@revision` in two; None where no revision is given."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def hub_name(path: str) -> str:
    """The name on the Hub of a folder in its cache, `owner/name`; anything else as it is."""
    found = re.search(r"/models--([^/]+)--([^/]+)/snapshots/[0-9a-f]{40}/?$", Path(path).as_posix())
    return "/".join(found.groups()) if found else path


def say_commit(name: str, place: str | Path, rest: str = "") -> None:
    """Print which commit of `name` was fetched, if `place`, a path in a cache, tells; nothing otherwise.

    `rest` is what follows the revision where the name is that of a file in a data set.
    """
    found = re.search(r"(?:^|/)([0-9a-f]{40})(?:/|$)", Path(place).as_posix())
    if found:
        repository, revision = split_revision(name)
        again = "" if revision == found[1] else f"; the same again: '{repository}@{found[1]}{rest}'"
        print(f"{name}{rest}: commit {found[1]}{again}")


def dataset_commit(repository: str, revision: str | None = None) -> str:
    """The commit that a data set on the Hub has there now; empty when the Hub does not say."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(repository, revision=revision, timeout=10).sha or ""
    except Exception:  # what this means for the data, whoever loads them will see
        return ""


def check_safe(folder: str | Path) -> None:
    """Raise UnsafeModel for a folder, of a model, an adapter or a checkpoint, that should not be loaded.

    Its weights are a pickle alone, or its config.json asks for Python code that came with it; so, too, the folder of
    an adapter's base model.
    """
    folder = Path(folder)
    if hub_name(str(folder)) not in READ_AS_DATA:
        _refuse_pickles(str(folder), [path.name for path in folder.iterdir()])
    _refuse_code(str(folder), folder / "config.json")
    adapter = folder / "adapter_config.json"
    base = _facts(adapter).get("base_model_name_or_path") if adapter.is_file() else None
    if isinstance(base, str) and Path(base).is_absolute():
        if not Path(base).is_dir():
            raise ModelNotFound(
                f"{folder} is an adapter on {base}, which is not there any more. Put the model back, or write where it "
                f"is (or its name on the Hub) into 'base_model_name_or_path' of {adapter}."
            )
        check_safe(base)


def find_datasets(search: str, limit: int = 5, api: HfApi | None = None) -> list[dict[str, str]]:
    """Data sets on the Hub whose name has `search` in it, most downloaded first: what to compare before you choose.

    One row each: `name`, `rows` (the size class that its card states), `languages`, `licence`, `downloads` (of the last
    30 days), `changed`, `gated`; "?" where the card says nothing, and an unstated licence is no permission. When the Hub
    cannot be reached, that is printed, and the files of `data_samples/` whose name has `search` in it are listed instead.
    """
    from huggingface_hub import HfApi, constants

    try:
        found = list((api or HfApi()).list_datasets(search=search, sort="downloads", limit=limit))
    except Exception as error:  # httpx's, the client's own and OS errors alike mean "no list"
        where = without_login(constants.ENDPOINT)
        print(f"{where} cannot be reached ({type(error).__name__}): listing data_samples/ instead.")
        return _samples(search)[:limit]

    def tagged(tags: list[str], kind: str) -> str:
        return ", ".join(tag.split(":", 1)[1] for tag in tags if tag.startswith(f"{kind}:")) or "?"

    return [
        {
            "name": one.id,
            "rows": tagged(one.tags or [], "size_categories"),
            "languages": tagged(one.tags or [], "language"),
            "licence": tagged(one.tags or [], "license"),
            "downloads": f"{one.downloads:,}" if one.downloads is not None else "?",
            "changed": f"{one.last_modified:%Y-%m-%d}" if one.last_modified else "?",
            "gated": str(one.gated or "no"),
        }
        for one in found
    ]


def _samples(search: str) -> list[dict[str, str]]:
    """The course's own JSON files whose name has `search` in it, as rows like the Hub's."""
    from helpers.data import read_json_rows

    rows = []
    for path in sorted((root() / "data_samples").glob("*.json*")):
        if search.lower() in path.name.lower():
            language = next((name for name in ("en", "zh") if path.stem.endswith(f"_{name}")), "?")
            facts = {"rows": f"{len(read_json_rows(path)):,}", "languages": language, "licence": "apache-2.0"}
            rows.append(
                {"name": f"data_samples/{path.name}"}
                | facts
                | dict.fromkeys(("downloads", "changed"), "?")
                | {"gated": "no"}
            )
    return rows


def _folder(path: Path) -> str:
    if not ((path / "config.json").is_file() or (path / "adapter_config.json").is_file()):
        raise ModelNotFound(f"{path} holds no config.json and no adapter_config.json: it is no model folder.")
    check_safe(path)
    return str(path)


def _refuse_pickles(where: str, files: Iterable[str]) -> None:
    """Raise UnsafeModel when what would be loaded of a model's files is a pickle; those in folders are not loaded."""
    files = {file for file in files if "/" not in file}
    wanted = "adapter_model" if "adapter_config.json" in files else "model"
    if files & {f"{wanted}.safetensors", f"{wanted}.safetensors.index.json"}:
        return  # every loader takes these first
    pickles = sorted(file for file in files if _is_any(file, PICKLES) and not _is_any(file, NO_WEIGHTS))
    if pickles:
        shown = ", ".join(pickles[:3]) + (", …" if len(pickles) > 3 else "")
        raise UnsafeModel(
            f"{where} has its weights only as a pickle ({shown}), and a pickle can hold a program that runs when it is "
            "loaded. Nothing of it was loaded. Choose a model with *.safetensors files; often another revision has "
            "them ('owner/name@refs/pr/1', see the discussions on its page). Or convert it with transformers or PEFT, "
            "which read it as data: from_pretrained(…), then save_pretrained('converted')."
        )


def _refuse_code(where: str, config: Path) -> None:
    """Raise UnsafeModel when transformers has no class of its own for this model, and would ask for its author's."""
    facts = _facts(config) if config.is_file() else {}
    if "auto_map" not in facts:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if facts.get("model_type") not in CONFIG_MAPPING:
        raise UnsafeModel(
            f"{where} is a model of its own Python code (model_type {facts.get('model_type')!r}), which would run on "
            "this machine (trust_remote_code). The course does not do that. Choose a model that transformers knows."
        )


def _facts(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and UTF-8's alike
        raise ModelNotFound(f"{path} is not JSON ({error}). Download or save the model again.") from None
    if not isinstance(facts, dict):
        raise ModelNotFound(
            f"{path} is a JSON {type(facts).__name__}, not an object. Download or save the model again."
        )
    return facts


def _is_any(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _huggingface(name: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    _token_of_kaggle()
    pinned = {"revision": revision} if revision else {}
    instead = "or set MODEL to a folder, or to 'nano/qwen2', which needs no network."
    fetched = {}
    try:
        for file in ("config.json", "adapter_config.json"):
            try:
                fetched[file] = Path(hf_hub_download(name, file, **pinned))
                break
            except RemoteEntryNotFoundError:
                continue  # an adapter may have no config.json; what has neither, from_pretrained will judge
        files = _files_on_hub(name, revision, fetched)
        if name not in READ_AS_DATA:
            _refuse_pickles(name, files)
        else:  # as it is: no service outside is to be asked for a converted copy
            os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
        if "config.json" in fetched:
            _refuse_code(name, fetched["config.json"])
        if not revision:
            for path in fetched.values():
                say_commit(name, path)
            return name
        left = [] if name in READ_AS_DATA else [*PICKLES]
        # Other frameworks' copies of the same weights would only cost time and disk.
        left += ["*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "openvino/*", "original/*"]
        folder = snapshot_download(name, revision=revision, ignore_patterns=left)
    except HFValidationError:
        raise ModelNotFound(f"{name!r} is no model name. Hub names look like 'owner/model'; {instead[3:]}") from None
    except GatedRepoError:
        raise ModelNotFound(
            f"{name!r} is gated: accept its licence on https://huggingface.co/{name} and set the secret HF_TOKEN, {instead}"
        ) from None
    except RevisionNotFoundError:
        raise ModelNotFound(
            f"{name!r} has no revision {revision!r}. Look under 'Files and versions' on its page for a commit, or name "
            f"the model without @{revision}."
        ) from None
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"The Hub has no model {name!r} (or it is private: set HF_TOKEN). Check MODEL, {instead}"
        ) from None
    except OSError:  # LocalEntryNotFoundError (nothing cached, no network) and what the network raises
        where = without_login(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
        raise ModelNotFound(
            f"{name!r} is not downloaded yet and {where} cannot be reached. Check the name and the network "
            f"(in mainland China: HF_ENDPOINT set to a mirror, or source 'modelscope'), {instead}"
        ) from None
    say_commit(f"{name}@{revision}", folder)
    return folder


def _files_on_hub(name: str, revision: str | None, fetched: dict[str, Path]) -> list[str]:
    """A model's files; without a network those in the cache, which are then all that can be loaded."""
    from huggingface_hub import HfApi

    try:
        return [file.rfilename for file in HfApi().model_info(name, revision=revision, timeout=10).siblings or []]
    except Exception:  # offline, or a mirror that serves files alone
        folders = {path.parent for path in fetched.values() if path.is_file()}
        return [path.name for folder in folders for path in folder.iterdir()]


def _token_of_kaggle() -> None:
    """Kaggle's secrets are not the environment, and the Hub's client does not know them (Colab's it does)."""
    if runtime.platform_name() == "kaggle" and not os.environ.get("HF_TOKEN") and (token := runtime.secret("HF_TOKEN")):
        os.environ["HF_TOKEN"] = token


def without_login(address: str) -> str:
    """An address without the name and password that a mirror's may hold."""
    there = urlsplit(address)
    return there._replace(netloc=there.netloc.rpartition("@")[2]).geturl()


def _modelscope(name: str, revision: str | None) -> str:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise ModelNotFound(f"{name!r} from ModelScope needs its client: pip install modelscope") from None
    try:
        folder = Path(snapshot_download(name, **({"revision": revision} if revision else {})))
    except Exception as error:  # the client raises requests', its own and OS errors alike
        raise ModelNotFound(
            f"{name!r} could not be fetched from ModelScope: {error}. Check the name and the network."
        ) from None
    if folder.is_dir() and name not in READ_AS_DATA:
        check_safe(folder)
    return str(folder)
