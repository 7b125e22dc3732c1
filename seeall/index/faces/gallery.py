"""`Gallery`: people of whom there are a few pictures each, and who is on another picture, or nobody of them.

A gallery is an index folder whose labels are people, and `gallery.json` beside: see `settings`. It grows and shrinks
by the index's own commits, and no network is trained for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import ArrayLike

from seeall.catalog import suggest
from seeall.console import log
from seeall.data.decode import Pixels
from seeall.index import skipped
from seeall.index.build import begin, eye_of
from seeall.index.durable import LOCK, Lock
from seeall.index.faces import calibrate, score
from seeall.index.faces.score import Doubles, Scorer
from seeall.index.faces.settings import PAIR, Calibration, Settings
from seeall.index.manifest import now
from seeall.index.segments import Floats, unit
from seeall.index.store import Index, Item
from seeall.training.embed import BATCH, Eye, square
from seeall.types import SeeallError


class Match(NamedTuple):
    """A person, and how much a picture looks like that person: a cosine, or a little less; see `score`."""

    person: str
    score: float


class Verdict(NamedTuple):
    """Whether two pictures show the same person."""

    same: bool
    score: float
    threshold: float


@final
class Gallery:
    """A gallery, opened with `open` or begun with `create`. Asking from several threads is fine."""

    def __init__(self, index: Index, settings: Settings, eye: Eye | None = None, *, wait: bool = False) -> None:
        self._wait = wait
        self.index, self.settings, self._eye = index, settings, eye
        self._scorers: dict[str, tuple[int, Scorer]] = {}
        self._warned = -1

    @classmethod
    def create(cls, path: str | Path, run: str | Path, settings: Settings | None = None) -> Gallery:
        """Begin a gallery at `path` that sees by the backbone of `run`. It is there as soon as somebody is enrolled.

        Raises: SeeallError where there is no such run, or the folder holds something.
        """
        index, eye = begin(Index.create, run, Path(path))
        settings = settings or Settings()
        try:
            settings.save(index.path)
        except BaseException:
            index.close()
            raise
        return cls(index, settings, eye)

    @classmethod
    def open(cls, path: str | Path, *, wait: bool = False) -> Gallery:
        """The gallery at `path`; `wait`: see `Index.open`. Raises SeeallError where there is none, or it is damaged."""
        if not Path(path).is_dir():
            raise SeeallError(f"there is no gallery at {path}: make one with `ssl faces enrol`")
        index = Index.open(path, gpu="off", wait=wait)
        try:
            return cls(index, Settings.read(index.path), wait=wait)
        except BaseException:
            index.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        self.index.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    def refresh(self) -> None:
        """See what others have changed since it was opened."""
        self.index.refresh()
        self.settings = Settings.read(self.index.path)

    # what is in it

    @property
    def path(self) -> Path:
        """The folder."""
        return self.index.path

    @property
    def people(self) -> dict[str, int]:
        """Everybody enrolled, by name, and of how many pictures."""
        return dict(sorted(Counter(str(item.label) for item in self._items()[1]).items()))

    @property
    def generation(self) -> int:
        """How often it has changed."""
        return int(self.index.info()["generation"])

    def info(self) -> dict[str, Any]:
        """What `ssl faces info` reports: flat names, plain values."""
        people, found = self.people, self.index.info()
        facts: dict[str, Any] = {
            "path": found["path"], "people": len(people), "pictures": sum(people.values()), "dim": found["dim"],
            "model": found["model"], "score": self.settings.score, "find": self.settings.find_run or self.settings.find,
            "bytes": found["bytes"], "generation": found["generation"], "updated": found["updated"],
        }  # fmt: skip
        return facts | calibration_facts(self.settings, found["generation"])

    # seeing

    @property
    def eye(self) -> Eye:
        """The network that sees for this gallery, its own copy. Raises SeeallError where that is not what it was."""
        if self._eye is None:
            self._eye = eye_of(self.index)
        return self._eye

    def see(self, pixels: Pixels | Sequence[Pixels]) -> Floats:
        """Faces (H, W, 3) uint8, one or several, of any sizes → vectors (n, D), as `identify` takes them."""
        several = [pixels] if isinstance(pixels, np.ndarray) and pixels.ndim == 3 else list(pixels)
        squares = [square(face, self.eye.size) for face in several]
        parts = [self.eye.see(torch.stack(squares[i : i + BATCH])) for i in range(0, len(squares), BATCH)]
        return torch.cat([torch.empty(0, self.index.dim), *parts]).numpy()

    # asking

    def identify(
        self, vectors: ArrayLike, k: int = 5, *, threshold: float | None = None, score: str | None = None
    ) -> list[list[Match]]:
        """Who each of `vectors` (n, D) may be, all at once: at most k people at or above the threshold, best first.

        No match means: nobody who is enrolled. threshold: the calibrated one where not given; score: the rule.
        Raises: SeeallError where the gallery is not calibrated and no threshold is given, or it is empty.
        """
        if k < 1:
            raise SeeallError(f"-k {k}: ask for at least 1 person")
        least = self.threshold(score) if threshold is None else threshold
        names, scores = self.scores(vectors, score)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = np.take_along_axis(scores, order, 1)
        return [
            [Match(names[p], float(s)) for p, s in zip(row, values) if s >= least] for row, values in zip(order, best)
        ]

    def verify(self, first: ArrayLike, second: ArrayLike, *, threshold: float | None = None) -> Verdict:
        """Whether two vectors (D,) are of the same person. Raises as `identify`."""
        least = self.threshold(PAIR) if threshold is None else threshold
        a, b = (unit(v, self.index.dim)[0].astype(np.float64) for v in (first, second))
        cosine = float(np.round(a @ b * score.LEVELS) / score.LEVELS)
        return Verdict(cosine >= least, cosine, least)

    def scores(self, vectors: ArrayLike, rule: str | None = None) -> tuple[list[str], Doubles]:
        """The names of all P people, and scores (n, P) of `vectors` (n, D). Raises SeeallError if there are none."""
        scorer = self._scorer(rule or self.settings.score)
        given = np.asarray(vectors)
        return scorer.names, scorer(unit(given, self.index.dim) if given.size else np.empty((0, 1), np.float32))

    def threshold(self, rule: str | None = None) -> float:
        """The calibrated threshold of a rule, or for a pair. Raises SeeallError where the gallery is not calibrated."""
        kind = rule or self.settings.score
        if kind != PAIR:
            score.check(kind)
        calibration = self.settings.calibration
        if calibration is None or kind not in calibration.thresholds:
            raise SeeallError(
                f"the gallery {self.path} is not calibrated, and cannot tell strangers from people it knows: run"
                f" `ssl faces calibrate {self.path} --folder OTHER_PEOPLE`, or give a --threshold"
            )
        generation = self.generation
        if generation not in (calibration.generation, self._warned):
            self._warned = generation
            log.warning(
                "the gallery has changed since it was calibrated, with %d people then and %d now: calibrate it again",
                calibration.enrolled, len(self.people),
            )  # fmt: skip
        return calibration.thresholds[kind].threshold

    # changing

    def remove(self, people: Sequence[str]) -> int:
        """Remove people so that no file holds a trace of them: see `Index.erase`. Returns how many pictures.

        Raises: SeeallError where one is not enrolled, and then removes nobody.
        """
        with self.index.writer() as writer:
            found = writer.labelled(people)
            listed = {line.get("person") for line in skipped.lines(self.path)}
            missing = [name for name in people if name not in found and name not in listed]
            if missing:
                raise SeeallError(f"{missing[0]!r} is not enrolled in {self.path}: {suggest(missing[0], self.people)}")
            removed = writer.erase(i for ids in found.values() for i in ids)
            skipped.forget(self.path, lambda line: line.get("person") in people)
        self._scorers.clear()
        self.index.mind_traces()
        return removed

    def prefer(self, rule: str) -> None:
        """Score by another rule from now on, unless asked otherwise. Raises SeeallError for one that is none."""
        self._keep(score=score.check(rule))

    def calibrate(self, vectors: ArrayLike, people: Sequence[str], far: float) -> Calibration:
        """Find and keep thresholds at which a stranger is taken for somebody at the rate `far`: see `calibrate`.

        vectors: (n, D) of people who are not enrolled; people: n names.
        Raises: SeeallError where one of them is enrolled, or they are too few for such a rate.
        """
        x, there = unit(vectors, self.index.dim), self.people
        known = sorted(set(people) & there.keys())
        if known:
            raise SeeallError(f"{known[0]!r} is enrolled in {self.path}: calibrate on people who are not")
        _, who = np.unique(np.array(people), return_inverse=True)
        thresholds = {
            rule: calibrate.strangers(self.scores(x, rule)[1].max(1), who, far) for rule in score.RULES
        } | {PAIR: calibrate.pairs(x, who, far)}  # fmt: skip
        made = Calibration(
            far, len(set(people)), len(x), len(there), sum(there.values()), self.generation, now(), thresholds
        )
        self._keep(calibration=made)
        return made

    def _keep(self, **changed: Any) -> None:
        """Change the settings of the gallery, as they are now on disk."""
        with closing(Lock(self.path / LOCK, wait=self._wait)):
            self.settings = replace(Settings.read(self.path), **changed)
            self.settings.save(self.path)

    def _items(self) -> tuple[int, list[Item]]:
        """The pictures of people, and the generation that they are of; or of a newer one."""
        while True:
            generation = self.generation
            try:
                return generation, [item for item in self.index.items(self.index.ids) if item.label is not None]
            except SeeallError:
                if self.generation == generation:
                    raise

    def _scorer(self, rule: str) -> Scorer:
        kept = self._scorers.get(score.check(rule))
        if kept and kept[0] == self.generation:
            return kept[1]
        generation, items = self._items()
        if not items:
            raise SeeallError(f"nobody is enrolled in {self.path}: enrol people with `ssl faces enrol`")
        scorer = Scorer(np.stack([item.vector for item in items]), [str(item.label) for item in items], rule)
        self._scorers[rule] = (generation, scorer)
        return scorer


def calibration_facts(settings: Settings, generation: int, rule: str | None = None) -> dict[str, Any]:
    """What is said of a calibration: flat names."""
    made = settings.calibration
    if made is None:
        return {"calibrated": False}
    kind = made.thresholds[rule or settings.score]
    return {
        "calibrated": True, "far": made.far, "threshold": kind.threshold, "far_expected": kind.expected,
        "far_low": kind.low, "far_high": kind.high, "strangers": made.people, "stranger_pictures": made.pictures,
        "independent_pictures": round(kind.independent, 1), "pair_threshold": made.thresholds[PAIR].threshold,
        "calibrated_at": made.date, "changed_since": made.generation != generation,
    }  # fmt: skip
