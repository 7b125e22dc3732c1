"""`ssl compare`: finished runs of one task side by side, those that differ by nothing but their seed taken together.

Runs on other pictures are other runs, wherever the pictures lie.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seeall.catalog import SEMANTIC
from seeall.training.run import LATER, Run
from seeall.types import SeeallError

SHOWN = {
    "classification": ("top1", "top5"),
    "detection": ("mAP", "mAP50", "mAP75", "mAR"),
    "instance": ("mAP", "mAP50", "box_mAP", "box_mAP50"),
    **dict.fromkeys(SEMANTIC, ("mIoU", "pixel_accuracy", "class_accuracy")),
    "flow": ("EPE", "Fl"),
    "action": ("top1", "top5"),
    "keypoints": ("MSE", "stays", "kept", "on_things"),
    "pretraining": ("knn20", "loss"),
}
"""The metrics that stand in the table; --json has all."""
_SAME = (LATER | {"seed"}) - {"val"}
_TYPED = {"start": "from"}


def compare(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Each group of runs: `name`, what sets it apart; `runs`, how many; `metrics`, name → mean, standard deviation.

    Raises: SeeallError for a folder that is no finished run, or runs of several tasks.
    """
    facts = []
    for path in {path.resolve(): path for path in runs}.values():
        one = Run.open(path).facts
        if one["status"] != "finished":
            raise SeeallError(f"{path}: this run is {one['status']}, not finished; go on with it by --resume")
        facts.append(one)
    tasks = {one["settings"].get("task", "pretraining") for one in facts}
    if len(tasks) > 1:
        raise SeeallError(f"these runs are of several tasks, {', '.join(sorted(tasks))}: compare those of one")
    groups: dict[str, list[dict[str, Any]]] = {}
    called: dict[str, str] = {}  # the same pictures may lie in two places
    for one in facts:
        called.setdefault(one["data"]["fingerprint"], one["data"]["source"])
        groups.setdefault(json.dumps(_settings(one), sort_keys=True, default=str), []).append(one)
    sets = [{**_settings(group[0]), "data": called[group[0]["data"]["fingerprint"]]} for group in groups.values()]
    names = sorted({name for chosen in sets for name in chosen})
    differ = [name for name in names if len({json.dumps(chosen.get(name)) for chosen in sets}) > 1]
    found = []
    for group, chosen in zip(groups.values(), sets):
        metrics = {
            name: (statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0)
            for name in group[0]["results"]
            if len(values := [one["results"][name] for one in group if name in one["results"]]) == len(group)
        }
        name = ", ".join(f"{n}={'–' if chosen.get(n) is None else chosen[n]}" for n in differ) or "all alike"
        found.append({"name": name, "runs": len(group), "metrics": metrics, "task": next(iter(tasks))})
    return found


def _settings(facts: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, as it is typed, the pairs of --set apart, without what does not count."""
    chosen = {_TYPED.get(name, name): value for name, value in facts["settings"].items() if name not in _SAME}
    pairs = dict(pair.split("=", 1) for pair in chosen.pop("set", ()))
    return chosen | pairs | {"data": facts["data"]["fingerprint"]}


def table(groups: Sequence[dict[str, Any]]) -> list[str]:
    """Lines for people: a row for each group, a column for each metric of the task that all have."""
    shown = [n for n in SHOWN[groups[0]["task"]] if all(n in group["metrics"] for group in groups)]
    wide = max(len(group["name"]) for group in groups)
    lines = [f"{'':<{wide}}  runs  " + "  ".join(f"{name:>15}" for name in shown)]
    for group in groups:
        several = group["runs"] > 1  # one run alone does not tell how far runs differ
        each = (group["metrics"][name] for name in shown)
        cells = "  ".join(f"{mean:8.2f} ± {spread:4.2f}" if several else f"{mean:8.2f}{'':7}" for mean, spread in each)
        lines.append(f"{group['name']:<{wide}}  {group['runs']:>4}  {cells}")
    return lines
