"""Build notebooks/{en,zh}/, the READMEs' lesson tables, and the readings' tables of what was measured.

Deterministic: the same sources give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import verified
from tools.bench.tables import with_records
from tools.lessons import LANGUAGES, Course, Lesson, LessonError

SETUP = '''\
# @title Set-up: fetches the course if it is not here, and installs what is missing
import os, pathlib, subprocess, sys

here = pathlib.Path.cwd()
root = next((p for p in [here, *here.parents] if (p / "course.toml").is_file()), here / "{name}")
if not root.exists():
    source = ["--branch", "{branch}", "https://github.com/{repository}.git"]
    try:
        subprocess.run(["git", "clone", "-q", "--depth=1", *source, root], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"""{unfetched}
git: {{getattr(error, "stderr", None) or error}}""")
os.chdir(root)
sys.path.insert(0, str(root))

from helpers import platform_setup

platform_setup.setup({extra}language="{language}"{several})'''

WORDS = {
    "en": {
        "unfetched": "The course could not be fetched from GitHub.\n"
        "- On Kaggle: switch on Settings > Internet.\n"
        "- No git: install it.\n"
        "- GitHub out of reach: try another network, or write a mirror's address into this cell,\n"
        "  or download the course elsewhere and upload its folder to {root}.\n"
        "Then run this cell again.",
        "gpu": "GPU memory",
        "disk": "disk",
        "minutes": "about {gpu} min expected on {card}, {cpu} min trimmed on 2 CPU cores",
        "cards": {"T4": "a T4", "2 × T4": "two T4s", "24 GB": "a GPU with 24 GB"},
        "reading": "reading: why it works",
        "read": "reading",
        "other": "中文",
        "head": "| | lesson | shows | GPU memory | minutes (T4 / CPU, trimmed) | on a GPU | open |",
        "none": "–",
        "seen": "seen to run on {hardware}, {date} ({how}, {minutes} min{peak})",
        "unseen": "not yet seen to run on a GPU",
        "how": {"trimmed": "trimmed", "full": "in full"},
        "peak": ", {peak_vram_gib} GiB",
    },
    "zh": {
        "unfetched": "没能从 GitHub 取到课程。\n"
        "- 在 Kaggle 上：请打开 Settings > Internet。\n"
        "- 没有 git：请先安装。\n"
        "- 连不上 GitHub：请换个网络，或者把这一格里的地址换成镜像的，\n"
        "  也可以在别处下载课程，把整个文件夹上传到 {root}。\n"
        "然后再跑一次这一格。",
        "gpu": "显存",
        "disk": "磁盘",
        "minutes": "{card}上预计 {gpu} 分钟，精简版在双核 CPU 上 {cpu} 分钟",
        "cards": {"T4": "T4 ", "2 × T4": "两块 T4 ", "24 GB": "24 GB 显存的 GPU "},
        "reading": "读一读：为什么这样做",
        "read": "讲解",
        "other": "English",
        "head": "| | 课程 | 内容 | 显存 | 分钟（T4 / CPU 精简版） | 实跑过 | 打开 |",
        "none": "–",
        "seen": "{date} 在 {hardware} 上跑通（{how}，{minutes} 分钟{peak}）",
        "unseen": "还没在 GPU 上跑过",
        "how": {"trimmed": "精简版", "full": "完整版"},
        "peak": "，{peak_vram_gib} GiB",
    },
}
TABLE_START, TABLE_END = "<!-- lessons: written by `course build` -->", "<!-- /lessons -->"
COLAB_BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
KAGGLE_BADGE = "https://kaggle.com/static/images/open-in-kaggle.svg"


def outputs(course: Course) -> dict[Path, str]:
    """Everything the build writes: path → text."""
    texts = {}
    for language in LANGUAGES:
        for lesson in course.lessons:
            text = nbformat.writes(notebook(course, lesson, language), version=4) + "\n"
            texts[course.root / "notebooks" / language / f"{lesson.slug}.ipynb"] = text
        readme = course.root / ("README.md" if language == "en" else f"README.{language}.md")
        pages = {page: page.read_text("utf-8") for page in sorted((course.root / "lessons").glob(f"*/*.{language}.md"))}
        pages[readme] = with_table(readme, table(course, language))
        for page, text in pages.items():
            where = str(page.relative_to(course.root))
            texts[page] = with_records(text, where, language, course.root / "benchmarks" / "records")
    return texts


def stale(course: Course) -> list[tuple[Path, str]]:
    """The files that are not what the build writes, each with a word on why."""
    return _compare(course, outputs(course))


def build(course: Course) -> list[Path]:
    """Write what is stale, remove notebooks of lessons that are gone; return the paths touched."""
    texts = outputs(course)  # all of it first: a wrong lesson leaves everything as it was
    changed = []
    for path, _ in _compare(course, texts):
        if path in texts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8", newline="\n")
        else:
            path.unlink()
        changed.append(path)
    return changed


def notebook(course: Course, lesson: Lesson, language: str) -> NotebookNode:
    """One language's notebook of one lesson: head, set-up, then the lesson's own cells."""
    mock = {"OUTPUT_DIR": lesson.trimmed_output(language)} | lesson.trim(language)
    cells = [new_markdown_cell(_head(course, lesson, language)), _setup_cell(course, lesson, language)]
    for cell in lesson.cells:
        if not cell.is_code:
            if cell.language == language:
                cells.append(new_markdown_cell(cell.node.source))
            continue
        tags = cell.node.metadata.get("tags", [])
        code = new_code_cell(cell.node.source, metadata={"tags": tags} if tags else {})
        if "parameters" in tags:
            code.metadata["nbmake"] = {"mock": mock}
        cells.append(code)
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index:02d}"
    built = new_notebook(cells=cells, metadata=_metadata(lesson, language))
    nbformat.validate(built)
    return built


def table(course: Course, language: str) -> str:
    """The lesson table of a README, with launch badges."""
    words = WORDS[language]
    rows = [words["head"], "|---" * (words["head"].count("|") - 1) + "|"]
    for lesson in course.lessons:
        facts = lesson.facts
        title, summary = facts["title"][language], facts["summary"][language]
        vram = f"{facts['needs']['vram_gb']} GB" if facts["needs"]["vram_gb"] else words["none"]
        minutes = f"{lesson.gpu_minutes} / {facts['minutes']['cpu']}"
        reading = f"[{words['read']}](lessons/{lesson.slug}/reading.{language}.md)"
        link = f"[{title}](notebooks/{language}/{lesson.slug}.ipynb) · {reading}"
        seen, badges = _seen(course, lesson, language), _badges(course, lesson, language)
        rows.append(f"| {lesson.number} | {link} | {summary} | {vram} | {minutes} | {seen} | {badges} |")
    return "\n".join(rows)


def with_table(readme: Path, rows: str) -> str:
    """A README's text with its lesson table replaced."""
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(TABLE_START)
    _, end, after = rest.partition(TABLE_END)
    if not (start and end):
        raise LessonError(f"{readme}: the lesson table's marks are gone. Put back {TABLE_START} and {TABLE_END}.")
    return f"{before}{start}\n{rows}\n{end}{after}"


def _head(course: Course, lesson: Lesson, language: str) -> str:
    words, facts = WORDS[language], lesson.facts
    other = next(name for name in LANGUAGES if name != language)
    page = f"https://github.com/{course.repository}/blob/{course.branch}"
    needs = [words["minutes"].format(card=words["cards"][lesson.card], **facts["minutes"])]
    if vram := facts["needs"]["vram_gb"]:
        needs.append(f"{words['gpu']} {vram} GB")
    if disk := facts["needs"]["disk_gb"]:
        needs.append(f"{words['disk']} {disk} GB")
    needs.append(_seen(course, lesson, language))
    links = [
        _badges(course, lesson, language),
        f"[{words['reading']}]({page}/lessons/{lesson.slug}/reading.{language}.md)",
        f"[{words['other']}]({page}/notebooks/{other}/{lesson.slug}.ipynb)",
    ]
    return f"# {lesson.number} · {facts['title'][language]}\n\n{' · '.join(links)}\n\n{' · '.join(needs)}"


def _seen(course: Course, lesson: Lesson, language: str) -> str:
    """Where and when this notebook was last seen to run on a GPU, from benchmarks/verified.json."""
    words = WORDS[language]
    if not (entry := verified.newest(course.root, lesson.slug, language)):
        return words["unseen"]
    peak = words["peak"].format(**entry) if entry["peak_vram_gib"] else ""
    return words["seen"].format(**entry | {"how": words["how"][entry["parameters"]], "peak": peak})


def _badges(course: Course, lesson: Lesson, language: str) -> str:
    path = f"{course.repository}/blob/{course.branch}/notebooks/{language}/{lesson.slug}.ipynb"
    colab = f"[![Colab]({COLAB_BADGE})](https://colab.research.google.com/github/{path})"
    kaggle = f"[![Kaggle]({KAGGLE_BADGE})](https://kaggle.com/kernels/welcome?src=https://github.com/{path})"
    return f"{colab} {kaggle}"


def _setup_cell(course: Course, lesson: Lesson, language: str) -> NotebookNode:
    name = course.repository.split("/")[-1]
    extra = f'"{lesson.facts["needs"]["extra"]}", ' if "extra" in lesson.facts["needs"] else ""
    several = ", several_gpus=True" if lesson.facts["needs"].get("several_gpus") else ""
    facts = {"branch": course.branch, "repository": course.repository, "language": language, "several": several}
    facts["unfetched"] = WORDS[language]["unfetched"]  # its {root} is filled in by the cell itself
    source = SETUP.format(name=name, extra=extra, **facts)
    return new_code_cell(source, metadata={"cellView": "form", "tags": ["setup"]})


def _metadata(lesson: Lesson, language: str) -> dict:
    needs_gpu = bool(lesson.facts["needs"]["vram_gb"])
    metadata = {
        "colab": {"provenance": [], "toc_visible": True},
        "course": {"language": language, "lesson": lesson.slug},
        "kaggle": {
            "isGpuEnabled": needs_gpu,
            "isInternetEnabled": True,
            "language": "python",
            "sourceType": "notebook",
        },
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if needs_gpu:
        metadata["accelerator"] = "GPU"
        metadata["colab"]["gpuType"] = "T4"
        metadata["kaggle"]["accelerator"] = "nvidiaTeslaT4"
    return metadata


def _compare(course: Course, texts: dict[Path, str]) -> list[tuple[Path, str]]:
    found = []
    for path, text in texts.items():
        if not path.is_file():
            found.append((path, "missing"))
        elif path.read_text(encoding="utf-8") != text:
            found.append((path, "differs from what lessons/ builds"))
    there = sorted((course.root / "notebooks").glob("*/*.ipynb"))
    return found + [(path, "belongs to no lesson") for path in there if path not in texts and _is_built(path)]


def _is_built(path: Path) -> bool:
    """Whether the build wrote this notebook, under this name; a copy, or one of somebody's own, is not to be removed."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["course"]["lesson"] == path.stem
    except (OSError, ValueError, KeyError, TypeError):
        return False
