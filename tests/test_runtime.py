"""helpers.runtime: platform, GPU, number format, secrets; what `require` refuses is in trust/test_platforms.py."""

import importlib.util
import subprocess
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import pytest
import torch

from helpers import runtime

VALUE = "hf_a-very-secret-value"


@pytest.fixture(autouse=True)
def _local(monkeypatch):
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE", "COURSE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)


def fake_gpu(monkeypatch, capability, gb=14.74, name="Tesla T4"):
    properties = types.SimpleNamespace(total_memory=int(gb * runtime.GB))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index=0: properties)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index=0: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=0: capability)


def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def fake_colab(monkeypatch, get):
    userdata = types.SimpleNamespace(get=get)
    monkeypatch.setitem(sys.modules, "google.colab", types.SimpleNamespace(userdata=userdata))
    monkeypatch.setitem(sys.modules, "google.colab.userdata", userdata)


def fake_kaggle(monkeypatch, get):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    client = lambda: types.SimpleNamespace(get_secret=get)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", types.SimpleNamespace(UserSecretsClient=client))


def failing(error):
    def get(name):
        raise error

    return get


def test_platform(monkeypatch):
    assert runtime.platform_name() == "local"
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260819")
    assert runtime.platform_name() == "colab"
    # Kaggle's image descends from Colab's.
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert runtime.platform_name() == "kaggle"


def test_platform_by_the_module(monkeypatch):
    fake_colab(monkeypatch, get=lambda name: VALUE)
    assert runtime.platform_name() == "colab"


def test_root_holds_the_course_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (runtime.root() / "course.toml").is_file()
    assert runtime.root() == Path(__file__).resolve().parents[1]


def test_import_needs_the_standard_library_alone():
    code = f"import sys; sys.path.insert(0, {str(runtime.root())!r}); import helpers.runtime; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_dtype_follows_the_compute_capability(monkeypatch, capability, wanted):
    fake_gpu(monkeypatch, capability)
    assert runtime.dtype() == wanted


@pytest.mark.parametrize(("flags", "wanted"), [("fpu avx2", torch.float32), ("avx512_bf16 avx2", torch.bfloat16)])
def test_dtype_on_a_cpu(monkeypatch, flags, wanted):
    no_gpu(monkeypatch)
    monkeypatch.setattr(Path, "read_text", lambda self, **kwargs: f"flags\t\t: {flags}\n")
    assert runtime.dtype() == wanted


def test_dtype_on_a_cpu_is_unsloths_own(monkeypatch):
    no_gpu(monkeypatch)
    monkeypatch.delenv("UNSLOTH_CPU_BF16", raising=False)
    # Its file alone: importing the package takes a quarter of a minute.
    file = Path(metadata.distribution("unsloth_zoo").locate_file("unsloth_zoo/cpu/runtime.py"))
    if not (file.is_file() and Path("/proc/cpuinfo").is_file()):
        pytest.skip("asks Linux and Unsloth's CPU backend")
    spec = importlib.util.spec_from_file_location("unsloth_cpu", file)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    assert (runtime.dtype() == torch.bfloat16) == theirs.cpu_bf16_supported()


def test_gpu_facts(monkeypatch):
    fake_gpu(monkeypatch, (7, 5))
    assert runtime.gpu() == runtime.Gpu("Tesla T4", 14.7, (7, 5))
    no_gpu(monkeypatch)
    assert runtime.gpu() is None


@pytest.mark.parametrize(
    ("says", "status", "listed"),
    [
        ("Tesla T4, 15360 MiB, 550.54\nTesla T4, 15360 MiB, 550.54\n", 0, ["Tesla T4, 15360 MiB, 550.54"] * 2),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", 9, []),
        ("No devices were found\n", 6, []),
        ("", 0, []),
    ],
)
def test_gpus_are_listed_by_the_driver(monkeypatch, tmp_path, says, status, listed):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.listed_gpus() == []  # no such command
    (tmp_path / "nvidia-smi").write_text(f"#!{sys.executable}\nprint({says!r}, end='')\nraise SystemExit({status})\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert runtime.listed_gpus() == listed


def test_describe_names_what_is_here(monkeypatch):
    fake_gpu(monkeypatch, (7, 5))
    monkeypatch.setenv("COURSE_TOKEN", VALUE)
    text = runtime.describe()
    assert "Tesla T4, 14.7 GB, compute capability 7.5" in text
    assert torch.__version__ in text and "transformers" in text
    assert VALUE not in text


def test_describe_without_the_packages(monkeypatch):
    def absent(name):
        raise runtime.metadata.PackageNotFoundError(name)

    no_gpu(monkeypatch)
    monkeypatch.setattr(runtime.metadata, "version", absent)
    assert runtime.describe().count("not installed") == 3


def test_secret_from_colab_kaggle_and_the_environment(monkeypatch):
    assert runtime.secret("COURSE_TOKEN") is None
    monkeypatch.setenv("COURSE_TOKEN", "from-environment\n")
    assert runtime.secret("COURSE_TOKEN") == "from-environment"
    fake_colab(monkeypatch, get=lambda name: VALUE)
    assert runtime.secret("COURSE_TOKEN") == VALUE
    fake_kaggle(monkeypatch, get=lambda name: VALUE[::-1])
    assert runtime.secret("COURSE_TOKEN") == VALUE[::-1]


@pytest.mark.parametrize("error", [LookupError("SecretNotFoundError"), PermissionError("NotebookAccessError")])
def test_a_platforms_refusal_falls_back_to_the_environment(monkeypatch, error):
    monkeypatch.setenv("COURSE_TOKEN", VALUE)
    fake_colab(monkeypatch, get=failing(error))
    assert runtime.secret("COURSE_TOKEN") == VALUE
    fake_kaggle(monkeypatch, get=failing(error))
    assert runtime.secret("COURSE_TOKEN") == VALUE


@pytest.mark.parametrize(
    ("fake", "place"), [(None, "environment variable"), (fake_colab, "Notebook access"), (fake_kaggle, "Add-ons")]
)
def test_a_required_secret_says_where_to_set_it(monkeypatch, capsys, fake, place):
    monkeypatch.setenv("OTHER_TOKEN", VALUE)
    if fake:
        fake(monkeypatch, get=failing(RuntimeError(f"refused {VALUE}")))
    with pytest.raises(runtime.MissingSecret) as caught:
        runtime.secret("COURSE_TOKEN", required=True)
    assert "COURSE_TOKEN" in str(caught.value) and place in str(caught.value)
    # Neither the error nor its causes nor the output may carry a value.
    assert VALUE not in repr(caught.value) + "".join(caught.value._render_traceback_())
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert VALUE not in "".join(capsys.readouterr())


def test_ipython_shows_the_text_without_a_traceback():
    assert runtime.NotEnough("too small")._render_traceback_() == ["NotEnough: too small"]


def test_several_writers_of_one_file_do_not_meet(tmp_path):
    texts = [str(number) * 10_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: [runtime.write_text(tmp_path / "summary.json", text) for _ in range(50)], texts))
    assert (tmp_path / "summary.json").read_text() in texts and len(list(tmp_path.iterdir())) == 1
