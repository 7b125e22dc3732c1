"""NT-Xent over 8,192 pairs: time and memory of the tiled loss beside lightly's and a plain whole-matrix one.

    python benchmarks/ntxent.py [--pairs 8192] [--rounds 3] [--threads 2] [--json]

Claim: the tiled loss and its gradient take about a quarter of the time of lightly's NTXentLoss, or less, and
1/40 of its memory, or less, with the same value and gradient to 1e-5. Figures to expect on two cores that other
work shares: lightly 4 to 5.5 times slower with 4,500 MB, the whole matrix 2 to 3 times with 3,200 MB, ours 75 MB.

Takes two to five minutes with the defaults, most of it lightly's, and 5 GB of memory; `--pairs 1024` takes one
minute. On cores that other work uses, `--threads 1` gives steadier figures.

Every figure is one forward and backward pass over float32 rows of 128 entries at T = 0.2, in a process of its
own, after a small pass that loads the libraries. The contenders take turns, so that other work on the machine
falls on all of them; the table shows medians. Memory is the peak resident size above what the process held just
before the pass, so it contains the gradient and not the input; it needs Linux.

`whole matrix` is the shortest correct loss: one N x N product and `cross_entropy`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE, DIM, WARM_UP_PAIRS = 0.2, 128, 256
STATUS = Path("/proc/self/status")


def seeall_loss(z: Tensor) -> Tensor:
    """`seeall.ssl.simclr`: z is (2P, D), the second views after the first ones, as for all contenders."""
    from seeall.ssl.simclr import SimCLR

    loss: Tensor = SimCLR(temperature=TEMPERATURE)(z, torch.arange(len(z) // 2).repeat(2))["loss"]
    return loss


def lightly_loss(z: Tensor) -> Tensor:
    """lightly's own."""
    from lightly.loss import NTXentLoss

    loss: Tensor = NTXentLoss(temperature=TEMPERATURE)(*z.chunk(2))
    return loss


def whole_matrix_loss(z: Tensor) -> Tensor:
    """NT-Xent as a cross-entropy: the right answer of row i is the other view of its picture."""
    z = F.normalize(z, dim=1)
    s = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(s, torch.arange(len(z)).roll(len(z) // 2))


CONTENDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "seeall": seeall_loss,
    "lightly": lightly_loss,
    "whole matrix": whole_matrix_loss,
}


def resident(field: str) -> float:
    """VmRSS, resident now, or VmHWM, its peak, in MB (10^6 bytes); nan where the system does not tell."""
    if not STATUS.exists():
        return float("nan")
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024 / 1e6


def measure(contender: str, pairs: int, gradient: Path) -> dict[str, float]:
    """One pass in this process: seconds, MB and the loss; the gradient is left in a file."""
    loss = CONTENDERS[contender]
    loss(torch.randn(2 * WARM_UP_PAIRS, DIM).requires_grad_()).backward()  # type: ignore[no-untyped-call]
    z = torch.randn(2 * pairs, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before, start = resident("VmRSS"), time.perf_counter()
    value = loss(z)
    value.backward()  # type: ignore[no-untyped-call]
    seconds = time.perf_counter() - start
    peak = resident("VmHWM") - before
    torch.save(z.grad, gradient)
    return {"seconds": seconds, "mb": peak, "loss": value.item()}


def in_a_process(contender: str, options: argparse.Namespace, gradient: Path) -> dict[str, float]:
    """`measure` in a fresh interpreter."""
    command = [sys.executable, __file__, "--pairs", str(options.pairs), "--threads", str(options.threads)]
    command += ["--contender", contender, "--gradient", str(gradient)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(output)
    return figures


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All contenders in turn, `options.rounds` times; medians, ratios to ours, and our distance to lightly."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in CONTENDERS}
        for turn in range(options.rounds):
            for name in CONTENDERS:
                runs[name].append(in_a_process(name, options, files[name]))
                print(f"round {turn + 1}: {name} {runs[name][-1]['seconds']:.2f} s", file=sys.stderr)
        gradients = {name: torch.load(file, weights_only=True) for name, file in files.items()}
    report: dict[str, Any] = {"pairs": options.pairs, "dim": DIM, "threads": options.threads}
    middle = {n: {k: statistics.median(run[k] for run in runs[n]) for k in ("seconds", "mb")} for n in runs}
    for name, figures in middle.items():
        key = name.replace(" ", "_")
        report |= {f"{key}_seconds": figures["seconds"], f"{key}_mb": figures["mb"]}
        if name != "seeall":
            report[f"{key}_times_slower"] = figures["seconds"] / middle["seeall"]["seconds"]
            report[f"{key}_times_more_memory"] = figures["mb"] / middle["seeall"]["mb"]
    want, off = gradients["lightly"], gradients["seeall"] - gradients["lightly"]
    report["loss_error"] = abs(runs["seeall"][0]["loss"] / runs["lightly"][0]["loss"] - 1)
    report["gradient_error"] = float(off.norm() / want.norm())
    return report


def table(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [f"{report['pairs']} pairs, {DIM} dimensions, {report['threads']} threads"]
    lines += [f"{'':14}{'seconds':>9}{'MB':>9}{'time':>10}{'memory':>10}"]
    for name in CONTENDERS:
        key = name.replace(" ", "_")
        times, memory = report.get(f"{key}_times_slower", 1), report.get(f"{key}_times_more_memory", 1)
        lines.append(f"{name:14}{report[f'{key}_seconds']:9.2f}{report[f'{key}_mb']:9.0f}{times:9.1f}x{memory:9.1f}x")
    errors = f"loss {report['loss_error']:.1e}, gradient {report['gradient_error']:.1e}"
    return "\n".join([*lines, f"relative difference of seeall from lightly: {errors}"])


def main() -> None:
    """Read the options and print the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="one object on standard output")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--gradient", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.contender:
        print(json.dumps(measure(options.contender, options.pairs, options.gradient)))
        return
    report = compare(options)
    print(json.dumps(report) if options.json else table(report))


if __name__ == "__main__":
    main()
