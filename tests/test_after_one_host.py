"""The page on what comes after one host: its code runs, in both languages, and its figures are what the code says."""

import re
import signal
from collections import Counter

import pytest

from tools.lessons import ROOT

FOLDER = ROOT / "lessons" / "13_scale_out"
LANGUAGES = ["en", "zh"]


def page(language: str) -> str:
    return (FOLDER / f"after_one_host.{language}.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page(language), re.DOTALL)


@pytest.fixture
def old_handler():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.notebook
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_code_on_the_page_runs(language, tmp_path, monkeypatch, capsys, old_handler):
    import torch.distributed as dist

    (tmp_path / "data_samples").symlink_to(ROOT / "data_samples")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    try:
        for block in blocks(language):
            exec(block, names)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["True", "True"]  # resumed at the next row; the weights came back
    assert "False True" in said  # asked to stop, and only then
    assert len(list(names["stream"](1, 2))) == len(names["rows"]) / 2
    shares = Counter(str(row) for rank in range(2) for row in names["stream"](rank, 2))
    assert shares == Counter(map(str, names["rows"]))  # each row once, in one share
    hosts = [line for line in said if "hosts:" in line]
    assert "14.53 h" in hosts[0] and "0.32 h, 10.4%" in hosts[3]  # as the text below says
    one, two, spot = names["one_gpu"], names["two_gpus"], names["spot"]
    assert two[0] / one[0] == pytest.approx(1 / 0.95, abs=0.01) and spot[0] < one[0]
    assert any("10 Gbit/s" in line and "23.80 s, LoRA 0.252 s" in line for line in said)


def test_both_pages_hold_the_same_code():
    def bare(code: str) -> str:
        return re.sub(r'\s*#.*|""".*"""', "", code)

    assert [bare(block) for block in blocks("en")] == [bare(block) for block in blocks("zh")]
