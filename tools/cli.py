"""The command `course`: list, run, build, export, bench, nano, doctor."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tools.bench import SUBJECTS
from tools.lessons import LANGUAGES, Course, LessonError, load_course

MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status: 0 fine, 1 not, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(load_course(), options)
    except LessonError as error:
        print(f"course: {error}", file=sys.stderr)
        return 1


def list_lessons(course: Course, options: argparse.Namespace) -> int:
    from tools import verified

    heads = ("", "lesson", "GPU memory", "disk", "minutes on a T4*", "trimmed, CPU", "seen to run on")
    grid = Table(*heads, box=None, pad_edge=False)
    for lesson in course.lessons:
        facts, needs, minutes = lesson.facts, lesson.facts["needs"], lesson.facts["minutes"]
        vram = f"{needs['vram_gb']} GB" if needs["vram_gb"] else "–"
        disk = f"{needs['disk_gb']} GB" if needs["disk_gb"] else "–"
        title = facts["title"][options.lang]
        seen = verified.newest(course.root, lesson.slug)
        where = f"{seen['hardware']} ({seen['parameters']}), {seen['date']}" if seen else "no GPU yet"
        grid.add_row(lesson.number, title, vram, disk, lesson.gpu_minutes, f"{minutes['cpu']} min", where)
    console = Console()
    console.print(grid)
    console.print(
        "\n* expected, downloads aside.  course run NN executes a lesson, trimmed for this machine.", highlight=False
    )
    return 0


def run_lesson(course: Course, options: argparse.Namespace) -> int:
    from tools import run, verified

    lesson = course.lesson(options.lesson)
    values = {} if options.full else lesson.trim(options.lang)
    values |= run.parse_settings(lesson, options.set)
    left = {name: path for name, path in run.left_by_runs(course, lesson, options.lang).items() if name not in values}
    console = Console(highlight=False)
    console.print(
        f"Lesson {lesson.number}, {lesson.facts['title'][options.lang]}" + ("" if options.full else ", trimmed")
    )
    if not options.full:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # nano models: threads cost more than they bring
    for name, path in left.items():
        console.print(f"{name}: {path}, of an earlier run", soft_wrap=True)
    values |= left
    run.prepare(values)
    with verified.watched() as peak:
        result = run.run(course, lesson, options.lang, values, options.out)
    promised = result.summary and not options.full and not options.set
    unseen = lesson.unseen(result.summary) if promised else []
    if options.verified:
        parameters, passed = "full" if options.full else "trimmed", not result.failure and not unseen
        if options.set:  # a trial: kept, and shown nowhere as the lesson's own
            parameters += f" with {', '.join(sorted(setting.partition('=')[0] for setting in options.set))}"
        verified.record(
            course.root, lesson.slug, options.lang, parameters, result.seconds, peak.gib, passed, verified.gpus(lesson)
        )
    if result.summary:
        grid = Table(box=None, show_header=False, pad_edge=False)
        for name, value in result.summary.items():
            grid.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        console.print(grid)
    console.print(f"\n{result.seconds:.0f} s")
    for path in (result.notebook, result.page):
        if path.is_file():
            console.print(f"  {_short(path)}", soft_wrap=True)
    if promised:
        console.print(f"  not seen: {'; '.join(unseen)}" if unseen else "  every promised effect was seen")
    if result.failure:
        console.print(f"\n{result.failure}", style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def build_notebooks(course: Course, options: argparse.Namespace) -> int:
    from tools import build

    if options.check:
        wrong = build.stale(course)
        for path, reason in wrong:
            print(f"{_short(path)}: {reason}. Run: course build", file=sys.stderr)
        return 1 if wrong else 0
    changed = build.build(course)
    print(
        "\n".join(f"wrote {_short(path)}" if path.exists() else f"removed {_short(path)}" for path in changed)
        or "up to date"
    )
    return 0


def export_script(course: Course, options: argparse.Namespace) -> int:
    from helpers import launch

    lesson = course.lesson(options.lesson)
    try:
        script = launch.export(course.root / "notebooks" / options.lang / f"{lesson.slug}.ipynb", options.out)
    except launch.LaunchFailed as error:
        raise LessonError(str(error)) from None
    print(
        f"wrote {_short(script)}; python {_short(script)} --help shows its options, torchrun --nproc-per-node 2 starts it twice"
    )
    return 0


def bench(course: Course, options: argparse.Namespace) -> int:
    from tools import build
    from tools.bench import compare, plots

    if options.compare:
        print(compare.report(*options.compare))
        return 0
    if options.report:
        written = [*plots.report(course.root), *build.build(course)]
        print("\n".join(f"wrote {_short(path)}" for path in written))
        return 0
    if options.subject:
        return subprocess.run(
            [sys.executable, "-m", f"tools.bench.{options.subject}", *options.arguments], cwd=course.root, check=False
        ).returncode
    for name, what in SUBJECTS.items():
        print(f"{name:12} {what}")
    print("\ncourse bench NAME --help says what each wants; its record goes to benchmarks/records/.")
    return 0


def build_nano(course: Course, options: argparse.Namespace) -> int:
    from helpers import nano
    from tools import run

    named = {
        name for lesson in course.lessons for language in LANGUAGES for name in run.nano_models(lesson.trim(language))
    }
    for name, folder in nano.build_all(named, options.workers).items():
        print(f"{name}: {_short(folder)}")
    return 0


def examine_machine(course: Course, options: argparse.Namespace) -> int:
    from tools import doctor

    console, verdicts = Console(highlight=False), []
    for finding in doctor.examine(course):
        verdicts.append(finding.verdict)
        mend = f"\n      → {finding.mend}" if finding.mend else ""
        console.print(f"{MARKS[finding.verdict]:>5} {finding.subject}: {finding.seen}{mend}", soft_wrap=True)
    bad = verdicts.count("bad")
    console.print(f"\n{'Ready.' if not bad else f'{bad} to mend.'}")
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="course", description="A course on fine-tuning language models, as notebooks that run."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="the lessons, what they need and how long they take")
    command.add_argument("--lang", choices=LANGUAGES, default="en")
    command.set_defaults(command=list_lessons)

    command = commands.add_parser("run", help="execute a lesson, trimmed for a machine without a GPU")
    command.add_argument("lesson", metavar="NN", help="number or name, as in `course list`")
    command.add_argument("--lang", choices=LANGUAGES, default="en")
    command.add_argument("--full", action="store_true", help="the real model and data: a GPU, downloads")
    command.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set one parameter; repeat at will"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="where everything goes (default: runs/NN_slug-LANG)")
    command.add_argument("--verified", action="store_true", help="note the run in benchmarks/verified.json")
    command.set_defaults(command=run_lesson)

    command = commands.add_parser("build", help="write notebooks/ and the READMEs' tables from lessons/")
    command.add_argument("--check", action="store_true", help="write nothing; fail when something is not up to date")
    command.set_defaults(command=build_notebooks)

    command = commands.add_parser("export", help="write a lesson's training as a script, for one process or many")
    command.add_argument("lesson", metavar="NN", help="a lesson with cells tagged `train`: 01")
    command.add_argument("--lang", choices=LANGUAGES, default="en")
    command.add_argument("--out", type=Path, metavar="FILE", default=Path("train.py"))
    command.set_defaults(command=export_script)

    command = commands.add_parser("bench", help="the benches: list them, run one, compare two records")
    command.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="what got slower or larger")
    command.add_argument("--report", action="store_true", help="write the plots and tables from the records")
    command.add_argument("subject", nargs="?", choices=SUBJECTS, metavar="NAME", help="run this one")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="for the bench itself")
    command.set_defaults(command=bench)

    command = commands.add_parser(
        "nano", help="build the lessons' nano models now, for a class or a machine without a network"
    )
    command.add_argument("--workers", type=int, default=2, metavar="N", help="so many at a time (default: 2)")
    command.set_defaults(command=build_nano)

    command = commands.add_parser("doctor", help="look at this machine: what works, what to mend")
    command.set_defaults(command=examine_machine)
    return parser


def _short(path: Path) -> str:
    """Relative to where the user is, when that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
