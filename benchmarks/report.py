# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the benchmarks and write what they found: tables, drawings, the README."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import sections
from benchmarks.harness.aims import held_against_aims
from benchmarks.harness.cache import BENCHMARKS, REPOSITORY, share_no_libpython
from benchmarks.harness.delivered import section as delivery
from benchmarks.harness.deployed import section as deploy
from benchmarks.harness.deployed import unpacked
from benchmarks.harness.markdown import Line, provenance, trouble
from benchmarks.harness.over_ssh import section as over_ssh
from benchmarks.harness.readme import figures, put_between_markers
from benchmarks.harness.received import section as receivers
from benchmarks.harness.stressed import section as stress
from benchmarks.harness.subjects import SUBJECTS

SECTIONS = {
    "memory": ("Memory", sections.memory),
    "logs": ("Logs", sections.logs),
    "start": ("Start-up", sections.start),
    "idle": ("Idle", sections.idle),
    "soak": ("Soak", sections.soak),
    "deploy": ("From a snapshot to an app", deploy),
    "unpack": ("Unpack", unpacked),
    "delivery_soak": ("Delivery", delivery),
    "drones": ("Many drones", over_ssh),
    "stress": ("Starts and endings", stress),
    "listen": ("Receivers", receivers),
}
RESULTS = "results.jsonl"
KIND = ("part", "drones", "receiver")


def main() -> None:
    share_no_libpython()
    options = argparse.ArgumentParser(
        description="Run the benchmark scripts one after the other, append their"
        " result lines to results.jsonl, and write report.md and its drawings from"
        " the newest line of each kind. A full run takes about an hour, --quick about"
        " ten minutes.",
        epilog="example: python benchmarks/report.py --only memory --readme README.md",
    )
    options.add_argument(
        "--quick", action="store_true", help="short runs: to try, not to quote"
    )
    options.add_argument(
        "--only",
        metavar="NAME[,NAME]",
        default=",".join(SECTIONS),
        help=f"run only these of {', '.join(SECTIONS)}; none: write from what is there",
    )
    options.add_argument(
        "--subjects",
        metavar="NAME[,NAME]",
        help="measure only these; the others keep their last results",
    )
    options.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=REPOSITORY / "docs" / "benchmarks",
        help="where to (default docs/benchmarks)",
    )
    options.add_argument(
        "--readme",
        type=Path,
        metavar="FILE",
        help="also put the main figures between the marks in this file",
    )
    given = options.parse_args()
    names = [] if given.only == "none" else given.only.split(",")
    if unknown := set(names) - set(SECTIONS):
        options.error(f"no benchmark is called {', '.join(unknown)}")
    given.output.mkdir(parents=True, exist_ok=True)
    words = ["--quick"] if given.quick else []
    words += ["--subjects", given.subjects] if given.subjects else []
    results = given.output / RESULTS
    failed = [name for name in names if not measure(name, words, results)]
    write(given.output, given.readme)
    if failed:
        sys.exit(f"report: failed: {', '.join(failed)}")


def measure(name: str, words: list[str], results: Path) -> bool:
    """Run one script and keep its lines; those of a failed run too."""
    script = f"{BENCHMARKS.name}/{name}.py"
    argv = [sys.executable, script, *words]
    with (
        subprocess.Popen(
            argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        ) as process,
        results.open("a") as kept,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            kept.write(line)
            kept.flush()
    return process.returncode == 0


def latest(results: Path, benchmark: str) -> list[Line]:
    """Return the newest line of each kind, in the order of the subjects."""
    newest: dict[tuple[object, ...], Line] = {}
    for text in results.read_text().splitlines() if results.exists() else ():
        line = json.loads(text)
        if line["benchmark"] != benchmark:
            continue
        subject = line["subject"]
        if "unavailable" in line:  # nothing older about it holds
            newest = {key: old for key, old in newest.items() if key[0] != subject}
        else:
            newest.pop((subject,), None)
        kind = (line[field] for field in KIND if field in line)
        newest[(subject, *kind)] = line
    order = {subject.name: number for number, subject in enumerate(SUBJECTS, 1)}
    return sorted(newest.values(), key=lambda line: order.get(str(line["subject"]), 0))


def write(output: Path, readme: Path | None) -> None:
    """Write the report, its drawings, and the README's figures."""
    found = {name: latest(output / RESULTS, name) for name in SECTIONS}
    found = {name: lines for name, lines in found.items() if lines}
    if not found:
        sys.exit("report: there are no results yet")
    parts = ["# Benchmarks", introduction(found)]
    parts += ["## Aims", held_against_aims(found)]
    for name, lines in found.items():
        title, render = SECTIONS[name]
        body, drawings = render(lines)
        parts += [f"## {title}", body]
        if missing := trouble(lines):
            parts += ["Not measured:", missing]
        parts += provenance(lines)
        for file, drawing in drawings.items():
            (output / file).write_text(drawing)
    (output / "report.md").write_text("\n\n".join(parts) + "\n")
    if readme:
        link = (output / "report.md").resolve()
        text = figures(found, str(link.relative_to(readme.resolve().parent)))
        put_between_markers(readme, text)


def introduction(found: Mapping[str, Sequence[Line]]) -> str:
    """Say what this is, and whether it may be quoted."""
    text = (
        "Written by `python benchmarks/report.py` from"
        f" [{RESULTS}]({RESULTS}), one JSON line for each result; never by hand. Every"
        " peer runs in the same run on the same machine, set up by the benchmark"
        " itself. Absolute times are this machine's; ratios travel better."
    )
    if any("--quick" in str(lines[-1]["command"]) for lines in found.values()):
        text += " **This is a quick run: not to be quoted.**"
    return text


if __name__ == "__main__":
    main()
