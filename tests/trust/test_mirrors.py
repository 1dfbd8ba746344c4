"""A mirror of the Hub (HF_ENDPOINT) and ModelScope, as servers on this machine: real clients, a real model.

Each in a process of its own: the clients read their settings when they are imported.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import nano
from tests import hub_server
from tests.test_platform_setup import UNREACHABLE, uv  # noqa: F401, a fixture
from tools.lessons import ROOT

pytestmark = pytest.mark.platforms
TOKEN = "hf_" + "x" * 34
COMMIT, OLDER = "b" * 40, "a" * 40
REVISIONS = {"main": COMMIT, "master": COMMIT, "v1": OLDER}


def files(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def model() -> Path:
    return nano.build("nano/qwen2")


@pytest.fixture
def mirror(model):
    """A server with the nano model under a name of the Hub's kind, and a smaller revision of it."""
    there = files(model)
    older = {name: content for name, content in there.items() if not name.endswith(".jinja")}
    server = hub_server.open_hub({"models/course/nano": {COMMIT: there, OLDER: older}}, REVISIONS)
    server.elsewhere = True
    yield server
    server.shutdown()
    server.server_close()


def run(code: str, folder: Path, **environment: str) -> tuple[object, str, float]:
    """What the last line of `code` prints as JSON, all that was said besides, and the seconds."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "MODELSCOPE_"))}
    env = kept | {"PYTHONPATH": str(ROOT), "HF_HOME": str(folder / "hf"), "HOME": str(folder), "NO_PROXY": "127.0.0.1,localhost",
                  "HF_HUB_DISABLE_XET": "1", "COURSE_LANGUAGE": "en"} | environment  # fmt: skip
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *said, last = done.stdout.strip().splitlines()
    return json.loads(last), "\n".join([*said, done.stderr]), time.monotonic() - began


# --- HF_ENDPOINT ------------------------------------------------------------------------------------------------------

# As a lesson does it: asked for, resolved, loaded by name.
LESSON = """
import json, sys
from helpers import hub, runtime

def answer(name):
    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(name)
    model = AutoModelForCausalLM.from_pretrained(name)
    ids = tokenizer("Continue the sequence: 1, 1, 2, 3,", return_tensors="pt").input_ids
    return model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()

runtime.require(models=["course/nano"], unsloth=True)
names = [hub.resolve_model("course/nano"), hub.resolve_model("course/nano@v1"), LOCAL]
print(json.dumps([names, [answer(name) for name in names]]))
"""


@pytest.mark.nano
@pytest.mark.notebook
def test_a_model_comes_whole_from_a_mirror(mirror, model, tmp_path):
    code = LESSON.replace("LOCAL", repr(str(model)))
    (names, answers), said, _ = run(code, tmp_path, HF_ENDPOINT=f"{mirror.url}/", HF_TOKEN=TOKEN)
    assert names[0] == "course/nano" and f"course/nano: commit {COMMIT}" in said
    assert answers[0] == answers[1] == answers[2] and len(set(answers[0])) > 3
    pinned = files(names[1])
    assert Path(names[1]).name == OLDER
    assert pinned == {name: content for name, content in files(model).items() if not name.endswith(".jinja")}
    # Where the Hub leads for large files, and where the token is nobody's business.
    sent = {path.startswith("/elsewhere/course/nano/"): who for _, path, who in mirror.asked}
    assert sent == {False: f"Bearer {TOKEN}", True: None}


ASK = """
import json, sys
from helpers import hub, runtime
try:
    runtime.require(models=["course/nano"])
    print(json.dumps("there"))
except runtime.Stop as stop:
    print(json.dumps(str(stop)))
"""
BROKEN = {  # the address, given that of the server; what the server does; what the student reads
    "a mirror": ("{url}", {}, "there"),
    "a mirror with a login and a slash at its end": ("http://me:password@127.0.0.1:{port}/", {}, "there"),
    "a wrong port": ("http://127.0.0.1:9", {}, "http://127.0.0.1:9 cannot be reached. Check the name and the network"),
    "a wrong port, with a login": ("http://me:password@127.0.0.1:9", {}, "and http://127.0.0.1:9 cannot be reached"),
    "no scheme": ("127.0.0.1:{port}", {}, "which is no address. Write it whole"),
    "a path that is none": ("{url}/models", {}, "is no hub: a sign-in page"),
    "a sign-in page": ("{url}", {"leads_to": "http://localhost:9/login"}, "is no hub: a sign-in page"),
    "a page for everything": ("{url}", {"refuses": 200}, "is no hub: a sign-in page"),
    "a mirror that refuses": ("{url}", {"refuses": 403}, "answers with an error (403)"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_endpoint_that_is_none_ends_in_one_error(mirror, tmp_path, what):
    address, does, says = BROKEN[what]
    for name, value in does.items():
        setattr(mirror, name, value)
    read, said, seconds = run(ASK, tmp_path, HF_ENDPOINT=address.format(url=mirror.url, port=mirror.server_port))
    assert says in read and "password" not in read + said and "Traceback" not in said and seconds < 30
    assert not [path for _, path, _ in mirror.asked if "elsewhere" in path]


# --- ModelScope -------------------------------------------------------------------------------------------------------

SCOPE = """
import json, sys
from pathlib import Path
from helpers import hub, runtime
name = {name!r}
try:
    runtime.require(models=[name], source="modelscope", unsloth=True)
    assert "transformers" not in sys.modules
    found = hub.resolve_model(name, "modelscope")
except runtime.Stop as stop:
    found = str(stop)
print()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def client(uv, tmp_path_factory):  # noqa: F811
    """A folder with ModelScope's own client, which the course does not install."""
    folder = tmp_path_factory.mktemp("modelscope")
    done = subprocess.run(
        [uv, "pip", "install", "-q", "--python", sys.executable, "--target", str(folder), "modelscope"],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode and re.search(UNREACHABLE, done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    return folder


def scope(client: Path, folder: Path, name: str, endpoint: str) -> tuple[str, float]:
    settings = {"MODELSCOPE_ENDPOINT": endpoint, "MODELSCOPE_CACHE": str(folder / "cache")}
    # Behind what is installed: of the packages that both have, the course's count.
    code = f"import sys; sys.path.append({str(client)!r})\n" + SCOPE.format(name=name)
    found, said, seconds = run(code, folder, **settings)
    assert "Traceback" not in said
    return found, seconds


@pytest.mark.index
@pytest.mark.nano
@pytest.mark.notebook
@pytest.mark.parametrize("name", ["course/nano", "course/nano@v1"])
def test_a_model_comes_whole_from_modelscope_by_one_parameter(mirror, model, client, tmp_path, name):
    found, _ = scope(client, tmp_path, name, mirror.url)
    wanted = mirror.repositories["models/course/nano"][OLDER if "@" in name else COMMIT]
    assert {file: content for file, content in files(found).items() if file in wanted} == wanted
    assert {path.split("?")[0] for _, path, _ in mirror.asked} >= {
        "/api/v1/models/course/nano/repo/files", "/api/v1/models/course/nano/repo",
    }  # fmt: skip
    # What is here already needs no ModelScope.
    mirror.refuses = 403
    assert scope(client, tmp_path, name, mirror.url)[0] == found


@pytest.mark.index
@pytest.mark.notebook
@pytest.mark.parametrize(
    ("name", "address", "does", "says"),
    [
        ("course/none", "{url}", {}, "'course/none' could not be fetched from ModelScope"),
        ("course/nano", "http://127.0.0.1:9", {}, "'course/nano' could not be fetched from ModelScope"),
        ("course/nano", "{url}", {"leads_to": "http://localhost:9/login"}, "could not be fetched from ModelScope"),
        ("course/nano", "{url}", {"refuses": 200}, "course/nano holds no config.json"),
        ("course/nano", "{url}", {"refuses": 403}, "could not be fetched from ModelScope"),
    ],
)
def test_modelscope_that_does_not_answer_ends_in_one_error(mirror, client, tmp_path, name, address, does, says):
    for setting, value in does.items():
        setattr(mirror, setting, value)
    read, seconds = scope(client, tmp_path, name, address.format(url=mirror.url))
    assert says in read and "\n" not in read and seconds < 60
    assert not [path for _, path, _ in mirror.asked if "FilePath" in path]
