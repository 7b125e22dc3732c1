"""`ssl finetune` and what follows it: every mistake of a stranger is told in one line, and writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from seeall.heads import finetune
from tests.heads.small_runs import WORLD

Ssl = Callable[..., tuple[int, str, str]]
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
    (CLS + "--val 1.5", "--val 1.5: choose a share between 0 and 1, such as 0.2 or 20%"),
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
    (CLS + "--labels 1", "the pictures to learn from, 1, are all of "),
    (SEG.replace("{masks}", "{flat}"), "have no other class than background: there is nothing to learn"),
    ("finetune --out {out} --config {run}/run.json", "run.json is of ssl pretrain"),
    ("propagate {things}", "give --out FOLDER and --from RUN"),
    ("propagate", "which clips? give a folder, or scenes:…"),
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
    (SEG.replace("{masks}", "{ignored}"), "pixels of the pictures to learn from have no class"),
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
    line = CLS.format(**places, out=tmp_path / "out") + "--labels 2 --batch-size 1"
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
