"""Where a model comes from: the Hugging Face Hub, a mirror, ModelScope, a folder, or a nano model; which data sets
there are on the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.runtime import Stop, root

if TYPE_CHECKING:
    from huggingface_hub import HfApi

NANO = "nano/"


class ModelNotFound(Stop, ValueError):
    """A model that cannot be had; the message names it and says what to do."""


def resolve_model(name: str, source: str = "huggingface") -> str:
    """Turn a model's name into what `from_pretrained` takes, and fail now rather than mid-download.

    `nano/…` is built on the spot (about a minute, once); a folder becomes an absolute path, because
    an adapter stores its base model's path as given; with `source="modelscope"` the model is fetched
    from ModelScope and its folder returned; anything else is a name on the Hugging Face Hub (or the
    mirror in `HF_ENDPOINT`), checked by fetching its `config.json`.
    """
    if name.startswith(NANO):
        from helpers import nano

        return str(nano.build(name))
    if Path(name).is_dir():
        return _folder(Path(name).resolve())
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise ModelNotFound(f"Model folder {name!r} not found (looked from {Path.cwd()}). Check MODEL.")
    if source == "modelscope":
        return _modelscope(name)
    if source == "huggingface":
        return _huggingface(name)
    raise ModelNotFound(f"Unknown source {source!r} for {name!r}: use 'huggingface' or 'modelscope'.")


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
        print(f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}): listing data_samples/ instead.")
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
    return str(path)


def _huggingface(name: str) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    instead = "or set MODEL to a folder, or to 'nano/qwen2', which needs no network."
    try:
        hf_hub_download(name, "config.json")
    except HFValidationError:
        raise ModelNotFound(f"{name!r} is no model name. Hub names look like 'owner/model'; {instead[3:]}") from None
    except GatedRepoError:
        raise ModelNotFound(
            f"{name!r} is gated: accept its licence on https://huggingface.co/{name} and set the secret HF_TOKEN, {instead}"
        ) from None
    except RemoteEntryNotFoundError:
        return name  # an adapter has no config.json; from_pretrained will judge it
    except RepositoryNotFoundError:
        raise ModelNotFound(
            f"The Hub has no model {name!r} (or it is private: set HF_TOKEN). Check MODEL, {instead}"
        ) from None
    except OSError:  # LocalEntryNotFoundError (nothing cached, no network) and what the network raises
        where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise ModelNotFound(
            f"{name!r} is not downloaded yet and {where} cannot be reached. Check the name and the network "
            f"(in mainland China: HF_ENDPOINT set to a mirror, or source 'modelscope'), {instead}"
        ) from None
    return name


def _modelscope(name: str) -> str:
    try:
        from modelscope import snapshot_download
    except ImportError:
        raise ModelNotFound(f"{name!r} from ModelScope needs its client: pip install modelscope") from None
    try:
        return str(snapshot_download(name))
    except Exception as error:  # the client raises requests', its own and OS errors alike
        raise ModelNotFound(
            f"{name!r} could not be fetched from ModelScope: {error}. Check the name and the network."
        ) from None
