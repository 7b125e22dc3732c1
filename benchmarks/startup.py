"""Claim: `ssl --help` answers in under 0.4 seconds, because the command imports no torch before it needs it.

    python benchmarks/startup.py [--rounds 9] [--json]         about a minute on two idle cores

Every figure is a whole process, from its start to its end, with its output thrown away and its files in the disk
cache. Processes take turns, so that other work on the machine falls on all of them; the table shows medians of
wall-clock time and, as that is what other work disturbs, of the processor time that each process took. Those that
import torch take seconds and run in every fourth round only; `lightly-ssl-train` is lightly's command.

Expect, on two cores of a server CPU kept busy by other work, 0.1 seconds for `ssl --help`, 0.2 for the other two, 2 to
4 for importing torch, and 6 to 11 for lightly.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

SCRIPTS = Path(sysconfig.get_path("scripts"))
BAR = 0.4
SELDOM = 4
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "ssl --help": [str(SCRIPTS / "ssl"), "--help"],
    "ssl --version": [str(SCRIPTS / "ssl"), "--version"],
    "ssl pretrain --help": [str(SCRIPTS / "ssl"), "pretrain", "--help"],
}
SLOW = {
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "lightly-ssl-train --help": [str(SCRIPTS / "lightly-ssl-train"), "--help"],
}


def run(command: list[str], folder: str) -> tuple[float, float]:
    """One process: seconds on the clock, and of processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int) -> dict[str, Any]:
    """Medians of every command, after one run of each that warms the disk cache."""
    commands = {name: command for name, command in (COMMANDS | SLOW).items() if Path(command[0]).exists()}
    for name in sorted((COMMANDS | SLOW).keys() - commands.keys()):
        print(f"{name}: not installed beside {sys.executable}, skipped", file=sys.stderr)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(-1, rounds):
            for name, command in commands.items():
                if turn > 0 and turn % SELDOM and name in SLOW:
                    continue
                took = run(command, folder)
                if turn >= 0:
                    found[name].append(took)
    seconds = {name: statistics.median(wall for wall, _ in runs) for name, runs in found.items()}
    cpu = {name: statistics.median(used for _, used in runs) for name, runs in found.items()}
    return {"seconds": seconds, "cpu_seconds": cpu}


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{'':<28}{'seconds':>9}{'CPU':>9}{'of ssl --help':>16}"]
    ours = report["seconds"]["ssl --help"]
    for name, seconds in report["seconds"].items():
        lines.append(f"{name:<28}{seconds:>9.3f}{report['cpu_seconds'][name]:>9.3f}{seconds / ours:>15.1f}x")
    return "\n".join([*lines, f"ssl --help {'keeps' if ours < BAR else 'MISSES'} its {BAR} seconds"])


def slug(name: str) -> str:
    """A command as part of a JSON key."""
    return re.sub(r"\W+", "_", name).strip("_")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    options = parser.parse_args()
    report = measure(options.rounds)
    flat = {f"{slug(name)}_{key}": v for key in ("seconds", "cpu_seconds") for name, v in report[key].items()}
    print(json.dumps({"rounds": options.rounds, "bar": BAR, **flat}) if options.json else table(report))


if __name__ == "__main__":
    main()
