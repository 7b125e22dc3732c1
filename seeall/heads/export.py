"""`ssl export`: a head as a file that runs without this package, checked against what the head itself says.

ONNX by torch's exporter, or, for detectors, whose steps it cannot follow, by the older one that records a run; `.pt2`
by torch.export. The file takes pictures as float32 in [0, 1], RGB, at one size, and does the normalisation itself:

    classification   (B, 3, S, S)  → scores (B, K), probabilities
    segmentation     (B, 3, H, W)  → logits (B, K, H, W)
    detection        (3, H, W)     → boxes (M, 4) xyxy px, labels (M,) from 0, scores (M,)
    instance         (3, H, W)     → the same, and masks (M, H, W), probabilities
    action           (B, 3, T, S, S)    → scores (B, K), probabilities, of one window of T frames
    flow             (B, 2, 3, H, W)    → flow (B, 2, H, W), px to the right and downwards
    keypoints        (B, 3, S, S)  → keypoints (B, K, 3), x and y in px, and how sure each is, 0 to 1

B is any number, which is tried out. A network that holds for one number alone is written for one at a time, if it can
be, and that number is told, and stands in FILE.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seeall.catalog import SEMANTIC
from seeall.console import log
from seeall.heads import build
from seeall.heads.action.task import Action
from seeall.heads.build import Recipe
from seeall.heads.flow.refine import enlarged
from seeall.types import SeeallError

TOLERANCE = 1e-4
"""The largest difference to the head's own output that passes: absolute, but of boxes a share of the largest
coordinate, since float32 has steps of 1.2e-4 px beyond 1024 px."""
FORMATS = (".onnx", ".pt2")
_TRIES = 3
_OTHERS = (1, 3)
"""Numbers of pictures that a file is tried with, besides that of the example that it was made with."""
_OUTPUTS = {
    "classification": "scores",
    "action": "scores",
    "flow": "flow",
    "keypoints": "keypoints",
    **dict.fromkeys(SEMANTIC, "logits"),
}


@final
class _Dense(nn.Module):
    def __init__(self, head: Any, scores: bool) -> None:
        super().__init__()
        self.network, self.scores = head.network, scores
        shape = (1, 3, 1, 1, 1) if isinstance(head, Action) else (1, 3, 1, 1)
        self.mean = nn.Buffer(head.normalise.mean.clone().view(shape))
        self.std = nn.Buffer(head.normalise.std.clone().view(shape))

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.network((pictures - self.mean) / self.std)
        return logits.softmax(1) if self.scores else logits


@final
class _Mover(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.network = head.network
        self.mean = nn.Buffer(head.normalise.mean.clone())
        self.std = nn.Buffer(head.normalise.std.clone())

    def forward(self, frames: Tensor) -> Tensor:
        first, second = ((frames[:, k] - self.mean) / self.std for k in (0, 1))
        return enlarged(self.network(first, second)[0], frames.shape[-2:])


@final
class _Pointer(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.network = head.network
        self.mean = nn.Buffer(head.normalise.mean.clone())
        self.std = nn.Buffer(head.normalise.std.clone())

    def forward(self, pictures: Tensor) -> Tensor:
        points, strength = self.network((pictures - self.mean) / self.std)
        sides = points.new_tensor([pictures.shape[3], pictures.shape[2]])
        return torch.cat([(points + 1) / 2 * sides, strength[..., None]], 2)


@final
class _Finder(nn.Module):
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.network, self.first, self.masks = head.network, head.first, head.masks

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        told = self.network([picture])[0]
        found = (told["boxes"], told["labels"] - self.first, told["scores"])
        return (*found, told["masks"][:, 0]) if self.masks else found


def _model(head: Any, task: str) -> nn.Module:
    if task in ("detection", "instance"):
        return _Finder(head)
    if task == "keypoints":
        return _Pointer(head)
    return _Mover(head) if task == "flow" else _Dense(head, task in ("classification", "action"))


def export(
    run: str | Path, out: Path, *, height: int | None = None, width: int | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write the head of `run` to `out`, FILE.onnx or FILE.pt2, and check it.

    height, width: of the pictures that the file will take, px; a square of the head's own size where not given

    Returns: the file, its inputs and outputs, and the largest difference; of files that take several pictures at a time
        `batch` besides, how many: "any", or the one number.
    Raises: SeeallError for another ending, a file that is there, a missing package, a head that cannot be exported
        so, or one that then says something else.
    """
    if out.suffix not in FORMATS:
        raise SeeallError(f"--out {out}: choose a file that ends in {' or '.join(FORMATS)}")
    if out.exists() and not overwrite:
        raise SeeallError(f"--out {out} is already there; replace it by --overwrite, or choose another name")
    head, recipe = build.load(run)
    head.cpu()
    finder = recipe.task in ("detection", "instance")
    if finder and out.suffix == ".pt2":
        raise SeeallError(
            f"{recipe.model} cannot pass torch.export, as what it does depends on what it finds; export it to .onnx"
        )
    size = (height or recipe.image_size, width or height or recipe.image_size)
    model = _model(head, recipe.task).eval()
    shape = {"action": (3, getattr(head, "frames", 1), *size), "flow": (2, 3, *size)}.get(recipe.task, (3, *size))
    batch: int | None = None
    things = ["boxes", "labels", "scores", "masks"][: 4 if recipe.task == "instance" else 3]
    outputs = things if finder else [_OUTPUTS[recipe.task]]
    with _beside(out) as file, torch.no_grad():
        if finder:
            given = [_drawn(size, seed) for seed in range(_TRIES)]
            difference = _checked(model, _onnx(model, given[0], file, outputs, finder), given, finder)
        else:
            difference, batch = _of_several(model, shape, file, outputs)
        if not difference <= TOLERANCE:  # nor NaN
            raise SeeallError(
                f"{recipe.model} as {out.suffix} says something else than the head (by {difference:.2g}): not exported"
            )
        file.replace(out)
    if batch:
        log.warning("%s cannot be written for any number at a time: the file takes %d, no other", recipe.model, batch)
    many = {} if finder else {"batch": batch or "any"}
    frames = {"action": {"frames": shape[1]}, "flow": {"frames": shape[0]}}.get(recipe.task, {})
    _describe(out, recipe, size, many | frames)
    taken = "×".join(map(str, shape if finder else (batch or "B", *shape)))
    return {"file": str(out), "input": taken, "outputs": ", ".join(outputs), "difference": difference} | many


def _of_several(model: nn.Module, shape: tuple[int, ...], file: Path, outputs: list[str]) -> tuple[float, int | None]:
    """Write a model that takes several of `shape` at a time.

    Returns: the largest difference; how many it takes, None for any number.
    """
    difference = float("nan")
    for count in (2, 1):  # of one alone no exporter sees that its number may change
        given = _noise((count, *shape))
        exported = (_onnx if file.suffix == ".onnx" else _program)(model, given, file, outputs, False)
        difference = _checked(model, exported, [given], False)
        try:
            others = [_checked(model, exported, [_noise((n, *shape), n)], False) for n in _OTHERS]
        except Exception:  # each runtime refuses what a file does not take in a way of its own
            continue
        return float(np.max([difference, *others])), None
    return difference, count


@contextlib.contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Where a file is written until it is known to be right. Raises SeeallError where the disk refuses."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=out.parent)
    except OSError as fault:
        raise SeeallError(f"--out {out}: cannot be written: {fault.strerror}") from None
    with folder as name:
        yield Path(name) / out.name


def _noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _drawn(size: tuple[int, int], seed: int) -> Tensor:
    """(3, *size), patches of colour that run into each other: of plain noise detectors are sure that it is full of
    things, all with a score of 1."""
    return F.interpolate(_noise((1, 3, 6, 6), seed), size, mode="bilinear")[0]


def _checked(model: nn.Module, exported: Callable[[Tensor], list[Any]], given: list[Tensor], finder: bool) -> float:
    """How far what both say lies apart. A detector has so many pictures to show that it is the same: where scores are
    equal to the last bit, rounding decides which things stay."""
    difference, found = float("nan"), False
    for pictures in given:
        own = model(pictures)
        said = [part.numpy() for part in (own if isinstance(own, tuple) else (own,))]
        if finder and not len(said[0]) and found:
            continue
        again = exported(pictures)
        difference = apart(said, _in_order(said, again), boxes=True) if finder else apart(said, again)
        found = found or len(said[0]) > 0
        if found and difference <= TOLERANCE:
            break
    if not found:
        log.warning("the head found nothing in the pictures that the check was made with, so little was compared")
    return difference


def apart(one: list[Any], other: list[Any], *, boxes: bool = False) -> float:
    """The largest difference; infinite where shapes differ, NaN where a value is.

    boxes: whether the first parts are boxes; their difference is a share of the largest coordinate, where above 1 px
    """
    if [a.shape for a in one] != [b.shape for b in other]:
        return float("inf")
    units = [one[0].max(initial=1) if boxes else 1, *[1] * (len(one) - 1)]
    return float(np.max([np.abs(a - b).max(initial=0) / unit for a, b, unit in zip(one, other, units)]))


def _in_order(one: list[Any], other: list[Any]) -> list[Any]:
    """The things of `other` in the order of those of `one` that they are nearest to; of equal ones any may be first."""
    if [a.shape for a in one] != [b.shape for b in other] or not len(one[0]):
        return other
    rows = [np.column_stack(part[:3]) for part in (one, other)]
    nearest = np.abs(rows[0][:, None] - rows[1][None]).max(2).argmin(1)
    return [part[nearest] for part in other]


def _onnx(
    model: nn.Module, given: Tensor, out: Path, outputs: list[str], finder: bool
) -> Callable[[Tensor], list[Any]]:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as fault:
        raise SeeallError(f"{fault.name} is missing: pip install 'seeall[export]'") from None
    how: dict[str, Any] = {"dynamo": False, "opset_version": 17} if finder else {"dynamo": True, "external_data": False}
    if not finder:
        how["dynamic_shapes"] = ({0: torch.export.Dim("batch", min=1, max=1024)},)
    with _silence():
        try:
            torch.onnx.export(
                model, (given,), str(out), input_names=["picture" if finder else "pictures"], output_names=outputs,
                verbose=False, **how,
            )  # fmt: skip
        except Exception as fault:
            raise SeeallError(f"cannot be exported to ONNX: {_reason(fault)}") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # it warns of every step whose shape is known only then; what is wrong is raised
    session = onnxruntime.InferenceSession(str(out), options, providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {session.get_inputs()[0].name: pictures.numpy()})


def _program(
    model: nn.Module, given: Tensor, out: Path, outputs: list[str], finder: bool
) -> Callable[[Tensor], list[Any]]:
    with _silence():
        try:
            # a network may hold only for as many as it was shown, which is found out
            made = torch.export.export(model, (given,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
            torch.export.save(made, str(out))
        except Exception as fault:
            raise SeeallError(f"cannot pass torch.export: {_reason(fault)}") from None
        loaded = torch.export.load(str(out)).module()
    return lambda pictures: [loaded(pictures).numpy()]


def _reason(fault: Exception) -> str:
    return str(fault).strip().partition("\n")[0][:200] or type(fault).__name__


@contextlib.contextmanager
def _silence() -> Any:
    """torch's exporters talk much; what matters is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _describe(out: Path, recipe: Recipe, size: tuple[int, int], more: dict[str, Any]) -> None:
    """FILE.json beside it: what the numbers that come out mean."""
    facts = {"task": recipe.task, "model": recipe.model, "classes": recipe.classes, "height": size[0], "width": size[1]}
    facts |= more
    out.with_suffix(out.suffix + ".json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    log.info("wrote %s", out)
