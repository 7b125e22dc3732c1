"""`ssl finetune` and what follows it as a stranger uses them: the whole way for each task, and every mistake."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from seeall import cli
from seeall.heads import finetune
from seeall.training.run import Run

Ssl = Callable[..., tuple[int, str, str]]
WORLD = "scenes:n=12,size=32,things=1-2,classes=3"
LIGHT = [
    "--from",
    "none",
    "--backbone",
    "shufflenet_v2_x0_5",
    "--image-size",
    "32",
    "--batch-size",
    "4",
    "--steps",
    "2",
]
SMALL = [f"--set={one}" for one in ("width=16", "hidden=16", "proposals=20", "sampled=8", "mask_width=16")]
OWN = {"classification": [], "detection": ["--set=width=16"], "instance": SMALL, "segmentation": []}
BEST = {"classification": "top1", "detection": "mAP", "instance": "mAP", "segmentation": "mIoU"}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 36)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def coco(root: Path, n: int, names: str = "cat dog", things: int = 1, outlines: bool = True) -> None:
    """n pictures with so many things each, of all classes in turn."""
    classes, found = names.split(), []
    for i in range(n):
        picture(root / f"{i}.png", i)
        for k in range(things):
            x = 3 + 14 * k
            thing = {"id": len(found) + 1, "image_id": i, "category_id": (i + k) % len(classes), "iscrowd": 0}
            thing |= {"bbox": [x, 4, 12, 14], "area": 168}
            found.append(thing | ({"segmentation": [[x, 4, x + 12, 4, x + 12, 18, x, 18]]} if outlines else {}))
    images = [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 36} for i in range(n)]
    categories = [{"id": k, "name": name} for k, name in enumerate(classes)]
    (root / "a.json").write_text(json.dumps({"images": images, "annotations": found, "categories": categories}))


def masks(root: Path, n: int, values: tuple[int, ...] = (0, 1, 2), size: tuple[int, int] = (40, 36)) -> None:
    for i in range(n):
        picture(root / "images" / f"{i}.png", i)
        (root / "masks").mkdir(exist_ok=True)
        mask = np.resize(np.array(values, np.uint8), (size[1], size[0]))
        Image.fromarray(mask).save(root / "masks" / f"{i}.png")
    (root / "classes.txt").write_text("background\ncat\ndog\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of each task."""
    root = tmp_path_factory.mktemp("heads")
    for task, own in OWN.items():
        args = ["finetune", WORLD, "--task", task, "--out", str(root / task), *LIGHT, *own, "--quiet"]
        assert cli.run(args) == 0
    return root


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


@pytest.fixture(scope="module")
def places(run: Path, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders and runs that have something amiss, and some that have not, by name."""
    root = tmp_path_factory.mktemp("places")
    for i in range(12):
        picture(root / "labelled" / "ab"[i % 2] / f"{i}.png", i)
        picture(root / "plain" / f"{i}.png", i)
    coco(root / "things", 8)
    coco(root / "cows", 6, "cat cow")
    coco(root / "one", 1)
    coco(root / "nothing", 6, things=0)
    coco(root / "boxes", 6, outlines=False)
    masks(root / "masks", 6)
    masks(root / "unlike", 6, size=(20, 20))
    masks(root / "strange", 6, values=(0, 1, 77))
    masks(root / "ignored", 6, values=(255,))
    for name in ("empty", "junk", "full"):
        (root / name).mkdir()
    (root / "full" / "letter.doc").write_text("dear")
    (root / "junk" / "a.jpg").write_text("words")
    (root / "text.pt").write_text("words")
    shutil.copytree(runs / "segmentation", root / "damaged")
    whole = (root / "damaged" / "head.safetensors").read_bytes()
    (root / "damaged" / "head.safetensors").write_bytes(whole[: len(whole) // 2])
    found = {p.name.split(".")[0]: p for p in root.iterdir()}
    return found | {"run": run, "nowhere": root / "nowhere"} | {f"head_{task}": runs / task for task in OWN}


CLS = "finetune {labelled} --out {out} --task classification --from none --backbone shufflenet_v2_x0_5 --image-size 32 "
DET = "finetune {things} --out {out} --task detection --from none --backbone shufflenet_v2_x0_5 --image-size 32 "
SEG = "finetune {masks} --out {out} --task segmentation --from none --backbone shufflenet_v2_x0_5 --image-size 32 "
BAD = [
    ("finetune {labelled}", "where should the run go? give --out FOLDER"),
    ("finetune --out {out} --task detection --from none", "which pictures?"),
    ("finetune {labelled} --out {out}", "which task? give --task classification, detection, instance, segmentation"),
    ("finetune {labelled} --out {out} --task classification", "give --from RUN, or --from none"),
    ("finetune {labelled} --out {out} --task clasification --from none", "did you mean classification or action?"),
    ("finetune {labelled} --out {out} --task classification --model unet --from none", "is for --task segmentation"),
    ("finetune {masks} --out {out} --task segmentation --model uned --from none", "did you mean unet?"),
    ("finetune {labelled} --out {out} --task classification --from {labelled}", "holds no backbone.safetensors"),
    ("finetune {labelled} --out {out} --task classification --from {nowhere}", "no weights at"),
    ("finetune {labelled} --out {out} --task classification --from {text}", "name it by --backbone"),
    ("finetune {labelled} --out {out} --task classification --from {head_detection}/head.safetensors", "is a head"),
    ("finetune {labelled} --out {out} --task classification --from {run} --backbone resnet18", "leave --backbone out"),
    (CLS + "--freeze 99", "--freeze 99: choose none, backbone, or how many of this backbone's 4 stages"),
    (CLS + "--freeze some", "--freeze some: choose none, backbone"),
    (CLS + "--labels 0", "--labels 0 asks for 0 of the 10 pictures to learn from; choose 1 to 10"),
    (CLS + "--labels 200%", "--labels 200% asks for 20 of the 10"),
    (CLS + "--labels inf%", "--labels inf%: give a share such as 10%"),
    (CLS + "--labels some", "--labels some: give a share such as 10%"),
    (CLS + "--limit 0", "--limit 0 must be at least 1"),
    (CLS + "--val 1.5", "--val 1.5: choose a share between 0 and 1, or other data"),
    (CLS + "--val nan", "--val nan: choose a share"),
    (CLS + "--val 0.99", "holding 12 of 12 pictures back leaves none to learn from; give more pictures, or by --val"),
    (CLS + "--val {nowhere}", "no such file or folder"),
    (CLS + "--val {masks}", "is pictures and masks, which serves --task segmentation, not classification"),
    (CLS + "--batch-size 99", "--batch-size 99 does not fit the 10 pictures to learn from; choose 1 to 10"),
    (CLS + "--image-size 8", "--image-size 8 must be at least 16"),
    (CLS + "--epochs 0", "--epochs 0 must be at least 1"),
    (CLS + "--lr nan", "--lr, is nan: choose a number above 0"),
    (CLS + "--set smoothing=2", "'smoothing' is 2.0: choose a share"),
    (CLS + "--set flp=1", "unknown setting 'flp': did you mean flip?"),
    (CLS + "--set backbone_rate=0", "'backbone_rate' is 0.0: choose a factor above 0"),
    (CLS + "--set crop_min=2", "choose shares of the picture's sides"),
    (CLS + "--set widen=on", "setting 'widen' is for the synthetic world; {labelled} cannot be made to vary"),
    (CLS + "--set widen_at=2", "'widen_at' is 2.0: choose above 0, 1 at most"),
    (CLS + "--set widen_every=0", "'widen_every' is 0: choose 1 epoch or more"),
    (DET.replace("{things}", WORLD) + "--set widen=on --set negatives=bootstrap", "choose one"),
    (DET.replace("{things}", WORLD) + "--set names=a,b", "has 3 classes; names must be as many, not 2"),
    (DET.replace("{things}", WORLD) + "--set ignore=a", "masks, ignore and colours are settings of files"),
    (CLS + "--set keep=first", "'first'"),
    (CLS + "--resume", "no such run folder"),
    (CLS + "--config {nowhere}", "cannot be read: No such file"),
    (CLS.replace("{out}", "{labelled}/run"), "lies inside the data folder"),
    (SEG.replace("{out}", "{things}/run") + "--val {things}", "lies inside the data folder"),
    (CLS.replace("{out}", "{full}"), "not empty: go on with it by --resume, or replace it by --overwrite"),
    (CLS.replace("{out}", "{full}") + "--overwrite", "holds something that is no run"),
    (CLS.replace("{labelled}", "{plain}"), "no labels found"),
    (CLS.replace("{labelled}", "{empty}"), "no pictures in it or below"),
    (CLS.replace("{labelled}", "{things}"), "is COCO JSON, which serves --task detection"),
    (DET + "--val {cows}", "--val {cows} has other classes: cow; say which they are in both by --set names=…"),
    (DET + "--set names=cow", "no class is called 'cow'; choose from: cat, dog"),
    (DET.replace("{things}", "{one}"), "holding 1 of 1 pictures back leaves none to learn from"),
    (DET.replace("{things}", "{nothing}"), "nothing is annotated in any; annotate some"),
    (DET.replace("{things}", "{empty}"), "no annotations for detection recognised"),
    (DET.replace("{things}", "{masks}"), "which serves --task segmentation, not detection"),
    (DET.replace("detection", "instance").replace("{things}", "{boxes}"), "instance needs outlines"),
    (SEG.replace("{masks}", "{unlike}"), "the mask is 20x20 px, its picture images/0.png 40x36 px; scale either"),
    (SEG.replace("{masks}", "{strange}"), "value 77 is no class, which are 0 to 2"),
    (SEG.replace("{masks}", "{ignored}"), "no pixel of the pictures to learn from has a class"),
    (SEG + "--set loss=diec", "did you mean dice"),
    (DET + "--set score=2", "'score' is 2.0: choose from 0 to 1"),
    (DET + "--devices 9999", "--devices 9999: this machine has no GPU, and"),
    ("finetune --settings --task clasification", "did you mean classification or action?"),
    ("finetune --out {run} --resume", "no ssl finetune began this run; to make a head on it, give it as --from"),
    ("finetune --out {head_detection}", "has begun already; go on with it by --resume"),
    ("finetune --out {head_detection} --resume --seed 5", "seed was 0 when the run began, and is 5 now"),
    ("predict {nowhere} {plain} --out {out}", "no such head; give the folder of a finished ssl finetune"),
    ("predict {run} {plain} --out {out}", "is a run without a head; make one with: ssl finetune"),
    ("predict {damaged} {plain} --out {out}", "is damaged, or holds no head"),
    ("predict {head_detection}/backbone.safetensors {plain} --out {out}", "holds no head"),
    ("predict {head_detection} {empty} --out {out}", "no pictures in it or below"),
    ("predict {head_detection} {plain} --out {plain}/said", "lies inside the data folder"),
    ("predict {head_detection} {plain} --out {full}", "is not empty: choose another, or replace"),
    ("predict {head_detection} {plain} --out {full} --overwrite", "holds no finished prediction"),
    ("predict {head_detection} {plain} --out {out} --tile 5", "--tile 5 px are too few for a head that sees 32 px"),
    ("predict {head_detection} {plain} --out {out} --score 2", "See: ssl predict --help"),
    ("evaluate {head_detection} {things}", "disc, square, triangle; these data have cat, dog; say"),
    ("evaluate {head_detection} {things} --val 0.5", "is a head, which has learnt already"),
    ("evaluate {head_detection} " + WORLD + " --limit 0", "--limit 0: want at least 1 picture"),
    ("evaluate {head_detection} " + WORLD + " --html {out}.png", "a page's name ends in .html"),
    ("evaluate {head_detection} {things} --set nmes=a", "unknown setting 'nmes': did you mean names?"),
    ("evaluate {damaged} " + WORLD, "is damaged, or holds no head"),
    ("evaluate {run} {labelled} --set names=a", "is no head, and a backbone is judged without annotations"),
    ("export {head_detection} --out {out}.txt", "choose a file that ends in .onnx or .pt2"),
    ("export {head_detection} --out {out}.pt2", "cannot pass torch.export, as what it does depends on what it finds"),
    ("export {run} --out {out}.onnx", "is a run without a head"),
    ("compare {nowhere}", "no such run folder"),
    ("compare {plain}", "not a run folder"),
    ("compare {head_detection} {head_segmentation}", "these runs are of several tasks, detection, segmentation"),
    ("compare {head_detection} {run}", "these runs are of several tasks, detection, pretraining"),
    ("data check {nowhere} --task detection", "no such file or folder"),
    ("data check {things} --task detectoin", "did you mean detection?"),
    ("data check {things} --task detection --sheet {out}.jpg", "choose a name that ends in .png"),
    ("data check {things} --task detection --sheet {things}/sub/sheet.png", "lies inside the data folder {things}"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), BAD, ids=[line for line, _ in BAD])
def test_a_mistake_is_one_line_and_writes_nothing(
    line: str, words: str, places: dict[str, Path], ssl: Ssl, tmp_path: Path
) -> None:
    where = places | {"out": tmp_path / "out"}
    before = {p: p.stat().st_mtime_ns for place in places.values() for p in place.rglob("*")}
    code, out, err = ssl(*(part.format(**where) for part in line.split()))
    last = err.strip().splitlines()[-1]
    assert code == 2 and out == "" and last.startswith("error: ") and "Traceback" not in err, err
    assert words.format(**where) in last, last
    assert not re.search(r"[{}]|\bNone\b", last), last
    assert not list(tmp_path.iterdir())
    assert {p: p.stat().st_mtime_ns for place in places.values() for p in place.rglob("*")} == before


@pytest.mark.parametrize(
    "line",
    [
        DET + "--set score=2", DET + "--set width=0", DET + "--freeze 99", DET + "--batch-size 99",
        SEG + "--set switch=5", SEG + "--freeze some",
    ],
)  # fmt: skip
def test_wrong_settings_are_told_before_pictures_are_read(
    line: str, places: dict[str, Path], ssl: Ssl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("pictures were read first")

    monkeypatch.setattr(finetune, "load", read)
    code, _, err = ssl(*line.format(**places, out=tmp_path / "out").split())
    assert code == 2 and "error: " in err


def test_one_picture_at_a_time_may_be_too_few(places: dict[str, Path], ssl: Ssl, tmp_path: Path) -> None:
    line = CLS.format(**places, out=tmp_path / "out") + "--labels 1"
    code, _, err = ssl(*line.split())
    assert (
        code == 2 and "error: BatchNorm cannot learn from one picture of 32 px at a time: choose --batch-size 2" in err
    )
    assert ssl(*line.split(), "--overwrite", "--freeze", "backbone", "--steps", 1)[0] == 0


def test_a_page_and_an_export_that_are_there_stay(runs: Path, ssl: Ssl, tmp_path: Path) -> None:
    for name in ("a.html", "a.onnx"):
        (tmp_path / name).write_text("mine")
    assert (
        "replace it by --overwrite" in ssl("evaluate", runs / "segmentation", WORLD, "--html", tmp_path / "a.html")[2]
    )
    assert "replace it by --overwrite" in ssl("export", runs / "segmentation", "--out", tmp_path / "a.onnx")[2]
    assert {p.read_text() for p in tmp_path.iterdir()} == {"mine"}
