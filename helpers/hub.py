"""Where a model comes from: the Hugging Face Hub, a mirror, ModelScope, a folder, or a nano model; which data sets
there are on the Hub.

A model or a data set on a hub may be named with a revision, `owner/name@revision`: a branch, a tag or, best, a commit.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from helpers import runtime
from helpers.runtime import Stop, Words, root, without_login

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
PATIENCE = 10  # seconds for the Hub to answer at all
# Numbers of the errors of a disk, which the Hub's client hands on like those of the network.
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
WORDS: Words = {
    "en": {
        "no folder": "Model folder {name!r} not found (looked from {here}). Check the name in the parameters cell; "
        "if another lesson makes this folder, run that lesson first.",
        "source": "Unknown source {source!r} for {name!r}: use 'huggingface' or 'modelscope'.",
        "no model folder": "{name} holds no config.json and no adapter_config.json: it is no model folder.",
        "base gone": "{name} is an adapter on {base}, which is not there any more. Put the model back, or write "
        "where it is (or its name on the Hub) into 'base_model_name_or_path' of {adapter}.",
        "base": "{name} is an adapter, and its base model, which 'base_model_name_or_path' of its adapter_config.json "
        "names, cannot be had:\n{error}",
        "pickle": "{name} has its weights only as a pickle ({files}), and a pickle can hold a program that runs "
        "when it is loaded. Nothing of it was loaded. Choose a model with *.safetensors files; often another "
        "revision has them ('owner/name@refs/pr/1', see the discussions on its page). Or convert it with "
        "transformers or PEFT, which read it as data: from_pretrained(…), then save_pretrained('converted').",
        "code": "{name} is a model of its own Python code (model_type {kind!r}), which would run on this machine "
        "(trust_remote_code). The course does not do that. Choose a model that transformers knows.",
        "no list of files": "{where} does not say which files {name!r} has, and has no {files} of it: its weights may "
        "be a pickle alone, and a pickle can hold a program that runs when it is loaded. Nothing of it was loaded. "
        "Wait a little and run this cell again, choose a model with *.safetensors files, or set HF_ENDPOINT to "
        "another mirror and restart the session.",
        "no JSON": "{name} is not JSON ({error}). Download or save the model again.",
        "no object": "{name} is a JSON {kind}, not an object. Download or save the model again.",
        "instead": "or set MODEL to a folder, or to 'nano/qwen2', which needs no network.",
        "no name": "{name!r} is no model name. Hub names look like 'owner/model'. Check MODEL, {instead}",
        "gated": "{name!r} is gated: accept its licence on https://huggingface.co/{name} and set the secret HF_TOKEN "
        "({place}), {instead}",
        "gated for you": "{name!r} is gated, and the account of the token in HF_TOKEN has no access: accept its "
        "licence on https://huggingface.co/{name} with that account (some models are granted after a while), or "
        "take a token that may read gated repositories, {instead}",
        "token": "{where} does not know the token in the secret HF_TOKEN: it was deleted, has expired, or was not "
        "copied whole. Make one on https://huggingface.co/settings/tokens and set it ({place}), {instead}",
        "no revision": "{name!r} has no revision {revision!r}. Look under 'Files and versions' on its page for a "
        "commit, or name the model without @{revision}.",
        "no model": "The Hub has no model {name!r} (or it is private: set HF_TOKEN). Check MODEL, {instead}",
        "unreachable": "{name!r} is not downloaded yet and {where} cannot be reached. Check the name and the "
        "network (in mainland China: HF_ENDPOINT set to a mirror, or source 'modelscope'), {instead}",
        "kaggle offline": "On Kaggle, switch on Settings > Internet.",
        "no hub": "{name!r} is not downloaded yet, and what answers at {where} is no hub: a sign-in page of this "
        "network, perhaps, or an HF_ENDPOINT that is not the address of a mirror. Open it in a browser, {instead}",
        "hub trouble": "{name!r} is not downloaded yet, and {where} answers with an error ({code}). Wait a little "
        "and run this cell again, or choose another HF_ENDPOINT and restart the session, {instead}",
        "no address": "HF_ENDPOINT is {where!r}, which is no address. Write it whole, as in "
        "'https://huggingface.co', in the very first cell, and restart the session.",
        "offline": "{name!r} is not downloaded yet, and HF_HUB_OFFLINE forbids to ask the Hub. Unset it and restart "
        "the session, {instead}",
        "not written": "{name!r} could not be written to {cache}: {error}. Make room there, or point HF_HOME at a "
        "folder where there is, and restart the session.",
        "no nano": "There is no nano model {name!r}. There are: {names}.",
        "late endpoint": "HF_ENDPOINT is {wanted} now, but this session asks {where}: it was set too late. Set it "
        "in the very first cell, restart the session, and run all.",
        "no client": "{name!r} from ModelScope needs its client. In a cell: !pip install modelscope",
        "modelscope": "{name!r} could not be fetched from ModelScope: {error}. Check the name and the network.",
        "no data": "Data set {name!r} could not be loaded from the Hugging Face Hub: {error}\nCheck the spelling "
        "and the network (in mainland China: set HF_ENDPOINT to a mirror and restart), or name a file instead, for "
        "example {file}.",
        "no data file": "{file} of the data set {name!r} could not be loaded from the Hugging Face Hub ({error}). "
        "Check the spelling and the network (in mainland China set HF_ENDPOINT to a mirror and restart), or name a "
        "file of your own.",
        "no list": "{where} cannot be reached ({error}): listing data_samples/ instead.",
    },
    "zh": {
        "no folder": "找不到模型文件夹 {name!r}（从 {here} 找起）。请检查参数那一格里的名字；如果它是另一课做出来的，请先跑那一课。",
        "source": "{name!r} 的来源 {source!r} 不认识：应为 'huggingface' 或 'modelscope'。",
        "no model folder": "{name} 里既没有 config.json，也没有 adapter_config.json，不是模型文件夹。",
        "base gone": "{name} 是 {base} 的适配器，而那个模型已经不在了。请把模型放回去，"
        "或者把它现在的位置（或它在 Hub 上的名字）写进 {adapter} 的 'base_model_name_or_path'。",
        "base": "{name} 是适配器，它的基座（adapter_config.json 里的 'base_model_name_or_path'）拿不到：\n{error}",
        "pickle": "{name} 的权重只有 pickle 格式（{files}），而 pickle 里可能藏着一加载就会运行的程序，所以什么都没加载。"
        "请换一个带 *.safetensors 的模型；它的别的版本里往往就有（'owner/name@refs/pr/1'，见模型页面的讨论区）。"
        "也可以用 transformers 或 PEFT 转换，它们只把它当数据读：from_pretrained(…)，再 save_pretrained('converted')。",
        "code": "{name} 要靠它自带的 Python 代码才能加载（model_type {kind!r}），这段代码会在这台机器上运行"
        "（trust_remote_code）。本课程不这样做。请换一个 transformers 认识的模型。",
        "no list of files": "{where} 没有给出 {name!r} 的文件列表，也没有它的 {files}：它的权重可能只有 pickle 格式，而 pickle 里"
        "可能藏着一加载就会运行的程序，所以什么都没加载。请稍等一会儿再跑这一格，换一个带 *.safetensors 的模型，"
        "或者把 HF_ENDPOINT 换成别的镜像站并重启会话。",
        "no JSON": "{name} 不是合法的 JSON（{error}）。请重新下载或重新保存这个模型。",
        "no object": "{name} 里的 JSON 是 {kind}，不是对象。请重新下载或重新保存这个模型。",
        "instead": "或者把 MODEL 设成一个文件夹，或设成不用联网的 'nano/qwen2'。",
        "no name": "{name!r} 不是模型名。Hub 上的名字形如 'owner/model'。请检查 MODEL，{instead}",
        "gated": "{name!r} 需要授权：请到 https://huggingface.co/{name} 同意许可协议，再设置密钥 HF_TOKEN（{place}），{instead}",
        "gated for you": "{name!r} 需要授权，而 HF_TOKEN 那个账号还没有权限：请用这个账号到 https://huggingface.co/{name} "
        "同意许可协议（有的模型要等作者审批），或者换一个有权读取这类仓库的令牌，{instead}",
        "token": "{where} 不认密钥 HF_TOKEN 里的令牌：可能已删除、过期，或者没复制全。"
        "请到 https://huggingface.co/settings/tokens 新建一个再设置（{place}），{instead}",
        "no revision": "{name!r} 没有 {revision!r} 这个版本。请在模型页面的 Files and versions 里找一个提交号，"
        "或者去掉名字后面的 @{revision}。",
        "no model": "Hub 上没有模型 {name!r}（也可能是私有的：请设置 HF_TOKEN）。请检查 MODEL，{instead}",
        "unreachable": "{name!r} 还没有下载，而 {where} 连不上。请检查名字和网络（在中国大陆：把 HF_ENDPOINT 设成镜像站，"
        "或者把来源设成 'modelscope'），{instead}",
        "kaggle offline": "在 Kaggle 上请打开 Settings > Internet。",
        "no hub": "{name!r} 还没有下载，而 {where} 那边应答的不是 Hub：可能是这个网络的登录页，"
        "也可能 HF_ENDPOINT 填的不是镜像站地址。用浏览器打开看看，{instead}",
        "hub trouble": "{name!r} 还没有下载，而 {where} 返回了错误（{code}）。请稍等一会儿再跑这一格，"
        "或者换一个 HF_ENDPOINT 并重启会话，{instead}",
        "no address": "HF_ENDPOINT 是 {where!r}，不是一个网址。请在最前面一格里写全，形如 'https://huggingface.co'，再重启会话。",
        "offline": "{name!r} 还没有下载，而 HF_HUB_OFFLINE 不让联网。请取消这个变量并重启会话，{instead}",
        "not written": "{name!r} 写不进 {cache}：{error}。请在那里腾点地方，或者让 HF_HOME 指向有空间的文件夹，再重启会话。",
        "no nano": "没有叫 {name!r} 的纳米模型。有这些：{names}。",
        "late endpoint": "HF_ENDPOINT 现在是 {wanted}，但这个会话用的是 {where}：设得太晚了。请放到最前面一格里设置，"
        "重启会话，再全部运行。",
        "no client": "从 ModelScope 下载 {name!r} 要先装它的客户端。在一格里运行：!pip install modelscope",
        "modelscope": "{name!r} 没能从 ModelScope 下载：{error}。请检查名字和网络。",
        "no data": "数据集 {name!r} 没能从 Hugging Face Hub 加载：{error}\n请检查拼写和网络"
        "（在中国大陆：把 HF_ENDPOINT 设成镜像站并重启），或者改用文件，比如 {file}。",
        "no data file": "数据集 {name!r} 里的 {file} 没能从 Hugging Face Hub 加载（{error}）。请检查拼写和网络"
        "（在中国大陆：把 HF_ENDPOINT 设成镜像站并重启），或者改用自己的文件。",
        "no list": "{where} 连不上（{error}）：改为列出 data_samples/ 里的文件。",
    },
}
_say = partial(runtime.say, WORDS)


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
    printed; `owner/name@revision` fetches that one and returns its folder. Of an adapter, its base model is checked, too.
    Raises ModelNotFound, and UnsafeModel where the weights are a pickle alone, or the model is Python code of its own.
    """
    _expect_name(name)
    if name.startswith(NANO):
        return str(_known_nano(name).build(name))
    if Path(name).is_dir():
        return _folder(Path(name).resolve(), source)
    repository, revision = _on_a_hub(name, source)
    return _modelscope(repository, revision) if source == "modelscope" else _huggingface(repository, revision)


def check_model(name: str, source: str = "huggingface") -> None:
    """Raise ModelNotFound for a model that `resolve_model` could not give, having fetched no weights and built nothing.

    So, too, for an adapter whose base model cannot be had; the error says that it is the base of that adapter.
    Imports neither transformers nor torch, so it may come before Unsloth; what needs them waits for `resolve_model`.
    """
    _check_base(name, _asked(name, source), source)


def _asked(name: str, source: str, loading: bool = False) -> str | None:
    """Raise ModelNotFound for a model that cannot be had; of an adapter, give its base model.

    `loading`: and UnsafeModel for one that should not be loaded, which may import transformers.
    """
    _expect_name(name)
    if name.startswith(NANO):
        _known_nano(name)
        return None
    if Path(name).is_dir():
        if loading:
            check_safe(name)
        return _base_in(Path(name))
    repository, revision = _on_a_hub(name, source)
    if source == "modelscope":
        files = _files_on_modelscope(repository, revision)
        _expect_model(name, files)
        if repository not in READ_AS_DATA:
            _refuse_pickles(name, files)
        if "config.json" not in files:
            facts = _facts_on_modelscope(repository, revision, "adapter_config.json")
            return _named_base(name, facts, f"{name}/adapter_config.json")
        if loading:
            _refuse_code(name, _facts_on_modelscope(repository, revision, "config.json"))
        return None
    fetched = _asked_hub(repository, revision)
    if loading and "config.json" in fetched:
        _refuse_code(name, _facts(fetched["config.json"]))
    return _base(name, fetched.get("adapter_config.json"))


def _check_base(name: str, base: str | None, source: str, loading: bool = False, above: tuple[str, ...] = ()) -> None:
    """Raise ModelNotFound when the base model of the adapter `name`, or that one's base, cannot be had.

    `base` None is no adapter's; `loading` is as for `_asked`; `above` are the adapters that led here.
    """
    above = (*above, name)
    if base is None or base in above:  # an adapter may name itself, and two each other
        return
    try:
        _check_base(base, _asked(base, source, loading), source, loading, above)
    except ModelNotFound as error:
        if source != "huggingface":  # libraries ask Hugging Face for a base by its name, wherever the adapter is from
            with suppress(ModelNotFound):
                _check_base(base, _asked(base, "huggingface", loading), "huggingface", loading, above)
                return
        raise type(error)(_say("base", name=name, error=error)) from None


def _base(name: str | Path, config: Path | None) -> str | None:
    """The base model that an adapter_config.json names; None without one. Raises ModelNotFound, as `_named_base`."""
    return _named_base(name, _facts(config), config) if config else None


def _named_base(name: str | Path, facts: dict[str, object], config: str | Path) -> str | None:
    """The base model in an adapter's configuration; raises ModelNotFound for a folder that is gone."""
    base = facts.get("base_model_name_or_path")
    if not isinstance(base, str):
        return None
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ModelNotFound(_say("base gone", name=name, base=base, adapter=config))
    return base


def _base_in(folder: Path) -> str | None:
    """The base model of a folder that holds an adapter alone."""
    config = folder / "adapter_config.json"
    return _base(folder, config) if config.is_file() and not (folder / "config.json").is_file() else None


def _expect_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ModelNotFound(_say("no name", name=name, instead=_say("instead")))


def _known_nano(name: str) -> ModuleType:
    """`helpers.nano`, which knows this nano model."""
    from helpers import nano

    if name not in nano.NANO:
        raise ModelNotFound(_say("no nano", name=name, names=", ".join(nano.NANO)))
    return nano


def _on_a_hub(name: str, source: str) -> tuple[str, str | None]:
    """The repository and the revision of a name that must be one on a hub."""
    repository, revision = split_revision(name)
    if name.startswith(("/", "./", "../", "~")) or repository.count("/") > 1:
        raise ModelNotFound(_say("no folder", name=name, here=Path.cwd()))
    if source not in ("huggingface", "modelscope"):
        raise ModelNotFound(_say("source", name=name, source=source))
    return repository, revision


def split_revision(name: str) -> tuple[str, str | None]:
    """`owner/name@revision` in two; None where no revision is given."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


def hub_name(path: str) -> str:
    """The name, `owner/name`, of a folder in the Hub's or ModelScope's cache; anything else as it is."""
    place = Path(path).as_posix()
    of_hub = r"/models--([^/]+)--([^/]+)/snapshots/[0-9a-f]{40}$"
    of_modelscope = r"/models/([^/]+?)--([^/]+)/snapshots/[^/]+$"  # as its client 1.38 and later keeps them
    found = re.search(of_hub, place) or re.search(of_modelscope, place)
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
        return HfApi().dataset_info(repository, revision=revision, timeout=PATIENCE).sha or ""
    except Exception:  # what this means for the data, whoever loads them will see
        return ""


def check_safe(folder: str | Path) -> None:
    """Raise UnsafeModel for a folder, of a model, an adapter or a checkpoint, that should not be loaded.

    Its weights are a pickle alone, or its config.json asks for Python code that came with it; so, too, the folder of
    an adapter's base model, named from the root or from the current folder.
    """
    place, seen = Path(folder), set()
    while place.resolve() not in seen:  # an adapter may name itself
        seen.add(place.resolve())
        if hub_name(str(place)) not in READ_AS_DATA:
            _refuse_pickles(str(place), _names(place))
        config, adapter = place / "config.json", place / "adapter_config.json"
        if config.is_file():
            _refuse_code(str(place), _facts(config))
        base = _base(place, adapter) if adapter.is_file() else None
        if base and Path(base).is_dir():
            place = Path(base)


def find_datasets(search: str, limit: int = 5, api: HfApi | None = None) -> list[dict[str, str]]:
    """Data sets on the Hub whose name has `search` in it, most downloaded first: what to compare before you choose.

    One row each: `name`, `rows` (the size class that its card states), `languages`, `licence`, `downloads` (of the last
    30 days), `changed`, `gated`; "?" where the card says nothing, and an unstated licence is no permission. When the
    Hub cannot be reached, that is printed, and the files of `data_samples/` whose name has `search` in it are listed
    instead.
    """
    from huggingface_hub import HfApi, constants

    try:
        found = list((api or HfApi()).list_datasets(search=search, sort="downloads", limit=limit))
    except Exception as error:  # httpx's, the client's own and OS errors alike mean "no list"
        where = without_login(constants.ENDPOINT)
        print(_say("no list", where=where, error=type(error).__name__))
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


def _folder(path: Path, source: str) -> str:
    _expect_model(path, _names(path))
    check_safe(path)
    _check_base(str(path), _base_in(path), source, loading=True)
    return str(path)


def _expect_model(where: str | Path, files: Iterable[str]) -> None:
    if not {"config.json", "adapter_config.json"} & set(files):
        raise ModelNotFound(_say("no model folder", name=where))


def _refuse_pickles(where: str, files: Iterable[str]) -> None:
    """Raise UnsafeModel when what would be loaded of a model's files is a pickle; those in folders are not loaded."""
    files = {file for file in files if "/" not in file}
    if files & {*_safetensors(files)}:
        return
    pickles = sorted(file for file in files if _is_any(file, PICKLES) and not _is_any(file, NO_WEIGHTS))
    if pickles:
        shown = ", ".join(pickles[:3]) + (", …" if len(pickles) > 3 else "")
        raise UnsafeModel(_say("pickle", name=where, files=shown))


def _safetensors(files: Container[str]) -> tuple[str, str]:
    """What every loader takes first of a model with these files: its weights, or the list of their parts."""
    wanted = "adapter_model" if "adapter_config.json" in files else "model"
    return f"{wanted}.safetensors", f"{wanted}.safetensors.index.json"


def _refuse_code(where: str, facts: dict[str, object]) -> None:
    """Raise UnsafeModel when transformers has no class of its own for a model with this config.json.

    It would ask for its author's.
    """
    if "auto_map" not in facts:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if facts.get("model_type") not in CONFIG_MAPPING:
        raise UnsafeModel(_say("code", name=where, kind=facts.get("model_type")))


def _facts(path: Path) -> dict[str, object]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's and UTF-8's alike
        raise ModelNotFound(_say("no JSON", name=path, error=error)) from None
    if not isinstance(facts, dict):
        raise ModelNotFound(_say("no object", name=path, kind=type(facts).__name__))
    return facts


def _is_any(file: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file, pattern) for pattern in patterns)


def _huggingface(name: str, revision: str | None) -> str:
    from huggingface_hub import snapshot_download

    fetched = _asked_hub(name, revision)
    if name in READ_AS_DATA:  # as it is: no service outside is to be asked for a converted copy
        os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")
    if "config.json" in fetched:
        _refuse_code(name, _facts(fetched["config.json"]))
    _check_base(name, _base(name, fetched.get("adapter_config.json")), "huggingface", loading=True)
    if not revision:
        for path in fetched.values():
            say_commit(name, path)
        return name
    left = [] if name in READ_AS_DATA else [*PICKLES]
    # Other frameworks' copies of the same weights would only cost time and disk.
    left += ["*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "openvino/*", "original/*"]
    with _told(name, revision):
        folder = snapshot_download(name, revision=revision, ignore_patterns=left)
    say_commit(f"{name}@{revision}", folder)
    return folder


def _asked_hub(name: str, revision: str | None) -> dict[str, Path]:
    """Ask the Hub whether this model can be had: its configuration's files, fetched; no weights.

    Raises ModelNotFound, and UnsafeModel where the weights are a pickle alone.
    """
    from huggingface_hub import _CACHED_NO_EXIST, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub import try_to_load_from_cache as cached
    from huggingface_hub.errors import HfHubHTTPError, RemoteEntryNotFoundError

    _token_of_kaggle()
    fetched, pinned = {}, {"revision": revision} if revision else {}
    with _told(name, revision):
        for file in ("config.json", "adapter_config.json"):
            if (known := cached(name, file, **pinned)) is _CACHED_NO_EXIST:  # so the cache can do without the Hub
                continue
            if not isinstance(known, str):
                # Once: behind a closed network the download below would ask for a minute and a half.
                with suppress(HfHubHTTPError):  # what the Hub itself has to say, the download will hear again
                    get_hf_file_metadata(hf_hub_url(name, file, **pinned), timeout=PATIENCE)
            try:
                fetched[file] = Path(hf_hub_download(name, file, **pinned))
                break
            except RemoteEntryNotFoundError:
                continue  # an adapter may have no config.json; what has neither, from_pretrained will judge
        if name not in READ_AS_DATA:
            _refuse_pickles(name, _files_on_hub(name, revision, fetched))
    return fetched


@contextmanager
def _told(name: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into one ModelNotFound that says what to do."""
    import httpx
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
        return
    except (HFValidationError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
        reason = error
    # What the client asks, whatever the environment says by now.
    where = without_login(constants.ENDPOINT)
    facts: dict[str, object] = {"name": name, "revision": revision, "where": where}
    facts["place"] = runtime.say(runtime.WORDS, f"secret {runtime.platform_name()}")
    # Nothing in the cache: what matters is why the Hub was of no help.
    cause = (isinstance(reason, LocalEntryNotFoundError) and reason.__cause__) or reason
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
    more = []
    if isinstance(reason, HFValidationError):
        what = "no name"
    elif isinstance(reason, GatedRepoError):
        what = "gated for you" if get_token() else "gated"
    elif isinstance(reason, RevisionNotFoundError):
        what = "no revision"
    elif isinstance(reason, RepositoryNotFoundError):
        what = "no model"
    elif status == 401:
        what = "token" if get_token() else "no model"
    elif isinstance(cause, httpx.UnsupportedProtocol | httpx.InvalidURL):
        what = "no address"
    elif isinstance(cause, FileMetadataError) or status == 404:  # a hub says with its 404 what there is none of
        what = "no hub"
    elif isinstance(cause, OfflineModeIsEnabled):
        what = "offline"
    elif getattr(cause, "errno", None) in NOT_WRITTEN:
        what, facts["cache"], facts["error"] = "not written", constants.HF_HUB_CACHE, cause
    elif status:
        what, facts["code"] = "hub trouble", status
    else:
        what = "unreachable"
        more = [_say("kaggle offline")] if runtime.platform_name() == "kaggle" else []
    wanted = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    if wanted and wanted != constants.ENDPOINT and what in ("unreachable", "no hub", "hub trouble", "no address"):
        more = [_say("late endpoint", wanted=without_login(wanted), where=where)]
    raise ModelNotFound("\n".join([_say(what, **facts, instead=_say("instead")), *more])) from None


def _files_on_hub(name: str, revision: str | None, fetched: dict[str, Path]) -> list[str]:
    """A model's files; without a network those in the cache, which are then all that can be loaded.

    Of what the Hub does not list, those in the cache and the safe weights; raises UnsafeModel when there are none.
    """
    import httpx
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        return [file.rfilename for file in HfApi().model_info(name, revision=revision, timeout=PATIENCE).siblings or []]
    except Exception:  # offline, overloaded, or a mirror that serves files alone
        folders = {path.parent for path in fetched.values() if path.is_file()}
        cached = [path.name for folder in folders for path in folder.iterdir()]
    wanted = _safetensors(fetched)
    if not fetched or {*wanted} & {*cached}:
        return cached
    for file in wanted:
        try:
            there = get_hf_file_metadata(hf_hub_url(name, file, revision=revision), timeout=PATIENCE)
        except RemoteEntryNotFoundError:
            continue
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout):
            return cached
        if there.commit_hash:  # a sign-in page has none
            return [*cached, file]
    where = without_login(constants.ENDPOINT)
    raise UnsafeModel(_say("no list of files", name=name, where=where, files=wanted[0]))


def _token_of_kaggle() -> None:
    """Kaggle's secrets are not the environment, and the Hub's client does not know them (Colab's it does)."""
    if runtime.platform_name() == "kaggle" and not os.environ.get("HF_TOKEN") and (token := runtime.secret("HF_TOKEN")):
        os.environ["HF_TOKEN"] = token


def _modelscope(name: str, revision: str | None) -> str:
    folder = _asked_modelscope(
        name, revision, lambda client, *what, **how: Path(client.snapshot_download(*what, **how))
    )
    # What is no ModelScope may answer with nothing, which its client takes for an empty model.
    _expect_model(folder, _names(folder))
    if name not in READ_AS_DATA:
        check_safe(folder)
    _check_base(name, _base_in(folder), "modelscope", loading=True)
    return str(folder)


def _files_on_modelscope(name: str, revision: str | None) -> list[str]:
    def ask(client: ModuleType, *what: str, **how: str) -> list[str]:
        return [file["Path"] for file in client.HubApi().get_model_files(*what, **how)]

    return _asked_modelscope(name, revision, ask, _names)


def _facts_on_modelscope(name: str, revision: str | None, file: str) -> dict[str, object]:
    def ask(client: ModuleType, *what: str, **how: str) -> dict[str, object]:
        # Not into its cache: a folder there counts as a whole model when there is no network.
        with TemporaryDirectory() as folder:
            return _facts(Path(client.model_file_download(*what, file, local_dir=folder, **how)))

    return _asked_modelscope(name, revision, ask, lambda folder: _facts(folder / file))


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _asked_modelscope(
    name: str, revision: str | None, ask: Callable[..., Any], of_cache: Callable[[Path], Any] = lambda folder: folder
) -> Any:
    """What `ask` gets of ModelScope's client; without an answer, `of_cache` of the model's folder in its cache."""
    try:
        import modelscope
    except ImportError:
        raise ModelNotFound(_say("no client", name=name)) from None
    pinned = {"revision": revision} if revision else {}
    try:
        return ask(modelscope, name, **pinned)
    except Exception as error:  # the client raises requests', its own and OS errors alike
        with suppress(Exception):
            return of_cache(Path(modelscope.snapshot_download(name, local_files_only=True, **pinned)))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFound(_say("modelscope", name=name, error=reason[:300])) from None
