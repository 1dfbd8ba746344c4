"""llama.cpp's converter and quantizer for Unsloth, from the package index instead of GitHub.

Unsloth fetches llama.cpp from GitHub by itself. Where GitHub cannot be reached, the converter is taken from the
source distribution of `llama-cpp-python`, which carries all of llama.cpp, and k-quants are computed by the same C
functions, which `xllamacpp` (a wheel) contains. `use` must be called before `import unsloth`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from filelock import FileLock

from helpers.runtime import Stop

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TAKEN = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion/", "gguf-py/gguf/", "LICENSE")
# Qwen2's split of a text into words, as tokenizer.json states it. The converter knows tokenizers by a hash over some
# token ids, which a BPE trained on the spot changes; the split, which is what llama.cpp must know, is the same.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RECOGNIZE = """\
        if res is None:  # added by the course: Qwen2's split, whatever the vocabulary
            steps = (json.loads(tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] or {}).get("pretokenizers", [])
            if SPLIT in [step.get("pattern", {}).get("Regex") for step in steps]:
                res = "qwen2"

"""
NOT_RECOGNIZED = """\
        if res is None:
            logger.warning("\\n")
"""
# Unsloth takes a folder for llama.cpp when these are in it.
EXPECTED_FOLDERS = ("src", "ggml", "common")
LAUNCHER = """\
#!/bin/sh
exec "${COURSE_PYTHON:-python3}" "$(dirname "$0")/llama_quantize.py" "$@"
"""


class LlamaCppMissing(Stop):
    """llama.cpp could not be had; the text says why and what to do."""


def use(source: str) -> Path | None:
    """Tell Unsloth which llama.cpp to use, before it is imported; return its folder.

    "" leaves it to Unsloth, which downloads a build from GitHub when it first needs one (returns None);
    "index" takes the converter from the package index, once, and keeps it in the course's cache;
    anything else is a folder with llama.cpp in it, its `llama-quantize` built.
    Raises LlamaCppMissing.
    """
    if not source:
        print("llama.cpp: Unsloth's own build, fetched from GitHub when first needed")
        return None
    folder = fetch() if source == "index" else Path(source).expanduser().resolve()
    if not (folder / TAKEN[0]).is_file():
        raise LlamaCppMissing(f"LLAMA_CPP: {folder} holds no {TAKEN[0]}. Give a checkout of llama.cpp, 'index' or ''.")
    loaded = sys.modules.get("unsloth_zoo.llama_cpp")
    if loaded and Path(loaded.LLAMA_CPP_DEFAULT_DIR) != folder:
        raise LlamaCppMissing("LLAMA_CPP is read when unsloth is imported, and it was already. Restart and run again.")
    os.environ["UNSLOTH_LLAMA_CPP_PATH"] = str(folder)
    os.environ |= {"UNSLOTH_LLAMA_CPP_OFFLINE": "1", "UNSLOTH_AUTO_INSTALL": "0", "COURSE_PYTHON": sys.executable}
    print(f"llama.cpp: {folder}")
    return folder


def fetch() -> Path:
    """The folder with converter and quantizer, downloaded (77 MB, of which 2 are kept) if it is not in the cache."""
    from helpers.nano import cache_folder

    folder = cache_folder() / f"llama.cpp-{VERSION}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            print(f"fetching llama.cpp's converter (llama-cpp-python {VERSION}) from the package index: 77 MB, once")
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                unpack(download(Path(work)), Path(work, "llama.cpp"))
                os.replace(Path(work, "llama.cpp"), folder)
        # The quantizer is the course's own and may be newer than the cache.
        quantizer = Path(__file__).with_name("llama_quantize.py").read_bytes()
        there = folder / "llama_quantize.py"
        if not there.exists() or there.read_bytes() != quantizer:
            there.write_bytes(quantizer)
    return folder


def download(work: Path) -> Path:
    """The source distribution, by pip from whichever index pip is set to, its hash checked."""
    wanted = work / "wanted.txt"
    wanted.write_text(f"llama-cpp-python=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "llama-cpp-python"]
    done = subprocess.run([*command, "-r", wanted, "-d", work], capture_output=True, text=True)
    found = list(work.glob("*.tar.gz"))
    if done.returncode or not found:
        raise LlamaCppMissing(
            f"llama-cpp-python {VERSION} could not be downloaded from the package index (a mirror: PIP_INDEX_URL). "
            f"Set LLAMA_CPP to a folder with llama.cpp, or to '' where GitHub can be reached.\n{done.stderr[-1500:]}"
        )
    return found[0]


def unpack(archive: Path, folder: Path) -> None:
    """Take the converter out of the source distribution into `folder`, and put a quantizer beside it."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, found, name = member.name.partition("/vendor/llama.cpp/")
            if found and member.isfile() and name.startswith(TAKEN):
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(tar.extractfile(member).read())  # `extract` has a filter only from Python 3.11.4 on
    teach(folder / "conversion" / "base.py")
    for name in EXPECTED_FOLDERS:
        (folder / name).mkdir()
    launcher = folder / "llama-quantize"
    launcher.write_text(LAUNCHER, encoding="utf-8")
    launcher.chmod(0o755)


def teach(base: Path) -> None:
    """Make this copy of the converter recognize Qwen2's split under a vocabulary that it has never seen."""
    source = base.read_text(encoding="utf-8")
    before, found, after = source.partition(NOT_RECOGNIZED)
    if not found or NOT_RECOGNIZED in after:
        raise LlamaCppMissing(f"{base} is not as llama-cpp-python {VERSION} has it; llama_cpp.py must be adapted.")
    base.write_text(before + RECOGNIZE.replace("SPLIT", repr(QWEN2_SPLIT)) + found + after, encoding="utf-8")
