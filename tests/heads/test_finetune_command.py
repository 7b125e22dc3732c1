"""`ssl finetune` and what follows it as a stranger uses them: the whole way for each task, stopped and gone on with."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from seeall.training.run import Run
from tests.heads.small_runs import LIGHT, OWN, WORLD

Ssl = Callable[..., tuple[int, str, str]]
BEST = {"classification": "top1", "detection": "mAP", "instance": "mAP", "segmentation": "mIoU"}


@pytest.mark.parametrize("task", OWN)
def test_the_whole_way(task: str, runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    run = runs / task
    facts = json.loads((run / "run.json").read_text())
    assert facts["status"] == "finished" and {"loss", BEST[task], f"best {BEST[task]}"} <= facts["results"].keys()
    for file in ("head.safetensors", "backbone.safetensors", "metrics.jsonl", "pictures", "checkpoints/last"):
        assert (run / file).exists(), file
    code, out, err = ssl(
        "evaluate", run, f"{WORLD},first=50", "--json", "--html", tmp_path / "p.html", "--limit", 5, "--quiet"
    )
    told = json.loads(out)
    assert code == 0 and told["pictures"] == 5 and BEST[task] in told and err == ""
    assert all(isinstance(value, (int, float)) for value in told.values())
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")
    code, out, err = ssl("predict", run, "scenes:n=3,size=40", "--out", tmp_path / "said", "--json", "--quiet")
    assert code == 0 and json.loads(out)["pictures"] == 3, err
    code, out, err = ssl("compare", run)
    assert code == 0 and "all alike" in out and BEST[task] in out, err


def test_what_a_run_is_made_of_holds_for_the_next(runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    """--from a head's run, --config of another, and --resume of one that is done."""
    head = runs / "segmentation"
    given = ("--task", "segmentation", "--from", head, "--image-size", 32, "--steps", 1, "--batch-size", 4)
    code, _, err = ssl("finetune", WORLD, "--out", tmp_path / "on", *given, "--freeze", "2", "--quiet")
    assert code == 0, err
    code, _, err = ssl("finetune", "--config", head / "run.json", "--out", tmp_path / "again", "--quiet")
    assert (
        code == 0 and (tmp_path / "again" / "head.safetensors").read_bytes() == (head / "head.safetensors").read_bytes()
    ), err
    code, out, err = ssl("finetune", "--resume", "--out", tmp_path / "again", "--json")
    assert code == 0 and "already finished" in err and json.loads(out)["run"] == str(tmp_path / "again")
    code, _, err = ssl("finetune", WORLD, "--out", head, "--task", "detection", *LIGHT, "--resume")
    assert code == 2 and "task was 'segmentation' when the run began, and is 'detection' now" in err


def test_a_limit_is_for_both_parts_and_labels_are_of_what_it_leaves(
    places: dict[str, Path], ssl: Ssl, tmp_path: Path
) -> None:
    data = ("finetune", places["labelled"], "--task", "classification", *LIGHT, "--steps", 1, "--batch-size", 2)
    code, _, err = ssl(*data, "--out", tmp_path / "a", "--val", 0.5, "--limit", 4, "--labels", "50%")
    assert code == 0 and "2 pictures to learn from, 4 to judge by" in err
    code, _, err = ssl(*data, "--out", tmp_path / "b", "--limit", 99)
    assert code == 0 and "10 pictures to learn from, 2 to judge by" in err


def test_settings_are_listed_by_task_and_model(ssl: Ssl) -> None:
    code, out, _ = ssl("finetune", "--settings", "--task", "segmentation", "--model", "fpn", "--json")
    assert code == 0 and {"model.width", "loss.loss", "augment.flip", "transfer.norm"} <= json.loads(out).keys()
    code, out, _ = ssl("finetune", "--settings")
    assert code == 0 and "task.smoothing=0.0" in out


def test_data_are_checked(places: dict[str, Path], ssl: Ssl, tmp_path: Path) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    check = ("data", "check", places["things"], "--task", "detection", "--sheet", sheet, "--quiet")
    code, out, err = ssl(*check, "--json")
    assert code == 0 and json.loads(out)["balance"] == {"all": [4, 4]} and err == ""
    with Image.open(sheet) as drawn:
        assert drawn.width > 100
    code, _, err = ssl(*check)
    assert code == 2 and "already there; replace it by --overwrite" in err
    assert ssl(*check, "--overwrite")[0] == 0
    assert "nothing odd found" in ssl(*check[:-3])[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_and_gone_on_with_it_is_the_same_run(
    how: signal.Signals, ssl: Ssl, ssl_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    given = ("finetune", WORLD, "--task", "classification", *LIGHT, "--steps", 40, "--set", "checkpoint_seconds=0.3")
    assert ssl(*given, "--out", tmp_path / "whole", "--quiet")[0] == 0
    process = ssl_process(*given, "--out", tmp_path / "cut", OMP_NUM_THREADS="1")
    last, until = tmp_path / "cut" / "checkpoints" / "last", time.monotonic() + 60
    while not last.exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (130 if how is signal.SIGINT else -how), err
    assert out == "" and ("all is saved in" in err) == (how is signal.SIGINT)
    assert Run.open(tmp_path / "cut").facts["status"] == ("stopped" if how is signal.SIGINT else "running")
    code, _, err = ssl("finetune", "--out", tmp_path / "cut", "--resume")
    assert code == 0 and "resuming at step" in err
    for file in ("head.safetensors", "backbone.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_head_may_learn_from_drawn_pictures_and_be_judged_by_others(
    places: dict[str, Path], ssl: Ssl, tmp_path: Path
) -> None:
    world = WORLD.replace("classes=3", "classes=2")
    given = ("--task", "detection", *LIGHT, "--set", "width=16", "--set", "names=cat,dog", "--set", "widen=on")
    code, _, err = ssl("finetune", world, "--val", places["things"], "--out", tmp_path / "r", *given)
    assert code == 0 and "12 pictures to learn from, 8 to judge by" in err
    code, out, err = ssl("evaluate", tmp_path / "r", places["things"], "--json")
    assert code == 0 and {"AP/cat", "AP/dog"} <= json.loads(out).keys(), (out, err)


def test_pictures_that_cannot_be_read_are_listed(places: dict[str, Path], ssl: Ssl, tmp_path: Path) -> None:
    data = shutil.copytree(places["labelled"], tmp_path / "data")
    (data / "a" / "0.png").write_bytes(b"")
    given = [one for one in LIGHT if one not in ("--image-size", "32")]
    line = ("finetune", data, "--task", "classification", *given, "--out", tmp_path / "r")
    code, _, err = ssl(*line)
    assert code == 2 and "empty file" in err and "--allow-skipped" in err and "Traceback" not in err
    assert ssl(*line, "--allow-skipped", "--overwrite")[0] == 0
    assert "a/0.png,empty file" in (tmp_path / "r" / "skipped.csv").read_text()
    (data / "b" / "1.png").write_bytes(b"")
    code, out, err = ssl("evaluate", tmp_path / "r", data)
    assert code == 0 and "skipped" in err and "top1" in out


def test_a_head_is_judged_by_what_it_held_back(places: dict[str, Path], ssl: Ssl, tmp_path: Path) -> None:
    given = ("finetune", places["labelled"], "--task", "classification", *LIGHT, "--seed", 3, "--json", "--quiet")
    for val, held in ((None, 2), ("0.5", 6), (places["labelled"], 12)):
        out = tmp_path / str(held)
        code, told, _ = ssl(*given, "--out", out, *(() if val is None else ("--val", val)))
        assert code == 0
        code, found, err = ssl("evaluate", out, places["labelled"], "--json")
        assert code == 0 and json.loads(found)["pictures"] == held and ("judging by the" in err) == (held < 12)
        assert ("will know them better" in err) == (held == 12)
        assert json.loads(found)["top1"] == pytest.approx(json.loads(told)["top1"])


def test_a_run_goes_on_with_the_data_it_began_with(places: dict[str, Path], ssl: Ssl, tmp_path: Path) -> None:
    data = tmp_path / "things"
    shutil.copytree(places["things"], data)
    given = ("finetune", data, "--task", "detection", *LIGHT, "--set", "width=16", "--out", tmp_path / "r")
    assert ssl(*given, "--val", "0.3")[0] == 0
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    (tmp_path / "r" / "run.json").write_text(json.dumps(facts | {"status": "running"}))
    code, _, err = ssl(*given, "--val", "0.6", "--resume")
    assert code == 2 and "--val would hold other pictures back" in err
    text = (data / "a.json").read_text()
    (data / "a.json").write_text(text.replace('"cat"', '"cow"'))
    code, _, err = ssl(*given, "--val", "0.3", "--resume")
    assert code == 2 and "are not those the run began with" in err


def test_a_run_needs_its_origin_only_to_begin(run: Path, ssl: Ssl, tmp_path: Path) -> None:
    origin = shutil.copytree(run, tmp_path / "origin")
    given = ("finetune", WORLD, "--task", "classification", "--from", origin, "--steps", 2, "--batch-size", 4)
    code, _, err = ssl(*given, "--out", origin, "--overwrite")
    assert code == 2 and "which would replace it: choose another --out" in err
    assert ssl(*given, "--out", tmp_path / "r")[0] == 0
    whole = (tmp_path / "r" / "head.safetensors").read_bytes()
    facts = json.loads((tmp_path / "r" / "run.json").read_text())
    (tmp_path / "r" / "run.json").write_text(json.dumps(facts | {"status": "running"}))
    shutil.rmtree(origin)
    assert ssl("finetune", "--out", tmp_path / "r", "--resume")[0] == 0
    assert (tmp_path / "r" / "head.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(ssl_process: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """The same batch, BatchNorm over both halves of it, and the mean of two gradients."""
    given = [
        "finetune",
        "scenes:n=48,size=32,classes=3",
        "--task",
        "segmentation",
        "--from",
        "none",
        "--image-size",
        32,
    ]
    given += ["--batch-size", 32, "--steps", 1, "--optimiser", "sgd", "--set", "warmup=0"]
    for devices in (1, 2):
        process = ssl_process(*given, "--devices", devices, "--out", tmp_path / str(devices), OMP_NUM_THREADS="1")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    one, two = (load_file(tmp_path / n / "head.safetensors") for n in "12")
    assert one.keys() == two.keys()
    apart = {
        name: float((two[name] - one[name]).norm() / one[name].norm())
        for name in one
        if name.endswith(("weight", "var"))
    }
    assert max(apart.values()) < 1e-4, apart


@pytest.mark.slow
def test_two_processes_try_a_detector_out_and_go_on(
    ssl: Ssl, ssl_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    sets = [f"--set={one}" for one in ("width=16", "negatives=bootstrap", "every=1", "model.score=0.001")]
    given = ("finetune", WORLD, "--task", "detection", *LIGHT[:-2], "--epochs", 3, "--devices", 2, *sets)
    process = ssl_process(*given, "--out", tmp_path / "r", OMP_NUM_THREADS="1")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "were taken for things" in err, err
    assert sorted(p.name for p in (tmp_path / "r/checkpoints").glob("mistakes*")) == [
        "mistakes-2.json",
        "mistakes-4.json",
    ]
    assert "mAP50" in Run.open(tmp_path / "r").facts["results"]
    assert ssl("predict", tmp_path / "r", WORLD, "--out", tmp_path / "said")[0] == 0
