"""What is said about pictures, written down: drawn, as JSON, as masks and flow, as videos."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seeall import durable
from seeall.console import log
from seeall.data.annotations.draw import palette
from seeall.data.annotations.polygons import encode
from seeall.data.decode import EXTENSIONS, Pixels
from seeall.data.motion import fields
from seeall.data.motion.movie import Movie
from seeall.data.pictures import Pictures
from seeall.data.pixels import write_skipped
from seeall.data.video import EXTENSIONS as FILMS
from seeall.data.video import Frame
from seeall.heads.examine import as_one, as_truth, drawn
from seeall.heads.flow.draw import beside as flow_beside
from seeall.heads.flow.draw import fastest
from seeall.heads.keypoints.draw import Trails
from seeall.heads.prediction import Prediction
from seeall.metrics.detection import Found
from seeall.training.run import refuse_inside
from seeall.types import SeeallError

_NAMED = 5
"""Classes of a picture that are named, the surest ones."""
_BEGUN = ".unfinished"
"""A file that is in the folder from the beginning to the end: what was begun and never finished can be replaced."""


def moment(pictures: Pictures, row: int) -> tuple[str, float] | None:
    """The clip that a picture is a frame of, and seconds within it; None where it is none of a video."""
    if pictures.moments:
        return pictures.moments[row]
    key = pictures.keys[row]
    return (key.video.name, key.seconds) if isinstance(key, Frame) else None


def prepare(out: Path, overwrite: bool, roots: Sequence[Path | None]) -> None:
    """Make the folder, or empty it of what was predicted before. Raises SeeallError where it holds something else."""
    for root in roots:
        refuse_inside(out, root)
    if out.is_dir() and any(part.suffix != durable.PARTIAL for part in out.iterdir()):
        if not overwrite:
            raise SeeallError(f"--out {out} is not empty: choose another, or replace what is there by --overwrite")
        if not any((out / name).exists() for name in ("predictions.json", _BEGUN)):
            raise SeeallError(f"--out {out} holds no finished prediction, nor one begun, so it is kept; remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        durable.write(out / _BEGUN, lambda file: file.write(b""))
        clear(out, (_BEGUN,))
        (out / "pictures").mkdir()
    except OSError as fault:
        raise SeeallError(f"--out {out}: cannot be written: {fault.strerror}") from None


def clear(out: Path, kept: Sequence[str] = ()) -> None:
    """Take away what a prediction consists of, and nothing else; what says that one was begun goes last.

    The folder goes, too, where that leaves it empty.
    """
    for name in ("pictures", "videos", "masks", "flow", "predictions.json", "skipped.csv", _BEGUN):
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        elif name not in kept:
            (out / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()


class Book:
    """What is written down of each picture."""

    def __init__(self, out: Path, task: str, classes: Sequence[str], score: float) -> None:
        self.out, self.task, self.classes, self.score = out, task, classes, score
        self.images: list[dict[str, Any]] = []
        self.things: list[dict[str, Any]] = []
        self.skipped: list[tuple[str, str]] = []
        self._taken: set[str] = set()
        self._clip, self._movie = "", Movie(out / "videos" / ".mp4")
        self._scale: float | None = None
        self._trails = Trails()

    @property
    def count(self) -> int:
        return len(self.images)

    def write(self, name: str, pixels: Pixels, prediction: Prediction, when: tuple[str, float] | None) -> None:
        """One picture: its entry, its drawing, its mask or flow. when: its clip, and seconds within it."""
        height, width = pixels.shape[-3:-1]
        stem, number = self._stem(name), len(self.images) + 1
        entry: dict[str, Any] = {"id": number, "file_name": name, "width": width, "height": height}
        entry["drawn"] = f"pictures/{stem}.png"
        classes = self.classes
        if prediction.scores is not None:
            best = np.argsort(-prediction.scores)[:_NAMED]
            entry["classes"] = [{"name": classes[k], "score": round(float(prediction.scores[k]), 6)} for k in best]
        if prediction.semantic is not None:
            entry["mask"] = f"masks/{stem}.png"
            _save_mask(self.out / "masks" / f"{stem}.png", prediction.semantic)
        if prediction.keypoints is not None:
            entry["keypoints"] = [
                {"x": round(x, 2), "y": round(y, 2), "score": round(score, 6)}
                for x, y, score in prediction.keypoints.points.tolist()
            ]
        if prediction.found is not None:
            self._things(number, prediction.found)
        if prediction.flow is not None:
            entry["flow"] = f"flow/{stem}.flo"
            (self.out / "flow" / stem).parent.mkdir(parents=True, exist_ok=True)
            fields.write(self.out / "flow" / f"{stem}.flo", prediction.flow)
        self.images.append(entry)
        picture = self._drawn(pixels, prediction, when)
        file = self.out / "pictures" / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)
        if when is not None:
            self._show(picture, *when)

    def _drawn(self, pixels: Pixels, prediction: Prediction, when: tuple[str, float] | None) -> Pixels:
        if prediction.flow is not None:
            if self._scale is None or when is None or when[0] != self._clip:
                self._scale = fastest(prediction.flow)  # colours mean the same all through a clip
            return flow_beside(pixels[0], prediction.flow, self._scale)
        if prediction.keypoints is not None:
            return self._trails.draw(pixels, prediction.keypoints.points, when[0] if when else None)
        truth, scores = as_truth(prediction, self.score)
        return drawn(as_one(pixels), truth, self.classes, scores)

    def _show(self, picture: Pixels, clip: str, seconds: float) -> None:
        """The next frame of the clip's video, which is begun where it is the first; none without PyAV."""
        if importlib.util.find_spec("av") is None:
            return
        if clip != self._clip:
            self.cut()
            self._clip = clip
            name = clip.rpartition(".")[0] if Path(clip).suffix.lower() in FILMS else clip
            self._movie = Movie(self.out / "videos" / f"{self._stem(name)}.mp4")
        self._movie.write(picture, seconds)

    def cut(self) -> None:
        """The video that is being written is over."""
        self._movie.close()
        self._clip = ""

    def _things(self, picture: int, found: Found) -> None:
        """An entry for each thing, in COCO's layout: x, y, width and height, categories from 1."""
        for k, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
            thing = {
                "id": len(self.things) + 1,
                "image_id": picture,
                "category_id": int(found.classes[k]) + 1,
                "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), 2),
                "iscrowd": 0,
                "score": round(float(found.scores[k]), 6),
            }
            self.things.append(thing if found.masks is None else {**thing, "segmentation": encode(found.masks[k])})

    def _stem(self, name: str) -> str:
        """A name for the files of one picture, below the folder, and no other's."""
        path = Path(name)
        path = path.with_suffix("") if path.suffix.lower() in EXTENSIONS else path
        clean = "/".join(part for part in path.parts if part not in ("/", "..", "."))
        stem, k = clean, 2
        while stem in self._taken:
            stem, k = f"{clean}-{k}", k + 1
        self._taken.add(stem)
        return stem

    def close(self) -> dict[str, Any]:
        """Write the JSON; what was done."""
        told: dict[str, Any] = {
            "task": self.task, "images": self.images,
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(self.classes)],
        }  # fmt: skip
        if self.task in ("detection", "instance"):
            told["annotations"] = self.things
        write_skipped(self.out / "skipped.csv", self.skipped)
        text = json.dumps(told, ensure_ascii=False).encode(errors="backslashreplace")
        durable.save(self.out / "predictions.json", lambda file: file.write(text))
        (self.out / _BEGUN).unlink()
        if self.skipped:
            first = ", ".join(f"{name} ({why})" for name, why in self.skipped[:3])
            log.warning("skipped %d pictures: %s", len(self.skipped), first)
        facts: dict[str, Any] = {"out": str(self.out), "pictures": self.count, "skipped": len(self.skipped)}
        return facts | ({"things": len(self.things)} if "annotations" in told else {})


def _save_mask(file: Path, semantic: np.ndarray) -> None:
    """A palette PNG whose values are the classes, so that it looks like something and can be read back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(semantic, mode="P")
    mask.putpalette(palette(256).ravel().tolist())
    mask.save(file)
