"""What a run tells while it goes: `metrics.jsonl` and TensorBoard, both cut back to the step it resumes from."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from seeall import durable


class Journal:
    """Scalars and pictures of one run; writes nothing where `writes` is false."""

    def __init__(self, folder: Path, *, start: int = 0, writes: bool = True) -> None:
        self.folder, self.writes = folder, writes
        if not writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        file = folder / "metrics.jsonl"
        if start and file.exists():
            kept = [line for line in file.read_bytes().splitlines() if _step(line) <= start]
            durable.save(file, lambda out: out.write(b"".join(line + b"\n" for line in kept)))
        self._lines = file.open("a" if start else "w", encoding="utf-8")
        self._board = SummaryWriter(str(folder), purge_step=start + 1 if start else None)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics.jsonl, and a point on each curve."""
        if self.writes:
            self._lines.write(json.dumps({"step": step, **{k: round(float(v), 6) for k, v in values.items()}}) + "\n")
            self._lines.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def picture(self, name: str, pixels: Tensor, step: int) -> None:
        """A picture (3, H, W) uint8, for TensorBoard and in pictures/NAME.png."""
        if self.writes:
            from PIL import Image

            self._board.add_image(name, pixels, step)
            file = self.folder / "pictures" / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)

    def histogram(self, name: str, values: Tensor, step: int) -> None:
        """How values (n,) are spread, for TensorBoard's histograms over time; n above 0."""
        if self.writes:
            self._board.add_histogram(name, values, step, bins=64)

    def embedding(self, features: Tensor, labels: list[str] | None, sprites: Tensor, step: int) -> None:
        """Embeddings (n, D) with thumbnails (n, 3, H, W) in [0, 1] for TensorBoard's projector."""
        if self.writes:
            labels = labels and [name.encode(errors="replace").decode() for name in labels]
            with contextlib.redirect_stdout(sys.stderr):  # it prints a warning where a folder is already there
                self._board.add_embedding(features, metadata=labels, label_img=sprites, global_step=step)

    def close(self) -> None:
        """Flush and close the files."""
        if self.writes:
            self._lines.close()
            self._board.close()


def _step(line: bytes) -> float:
    """The step of a line; infinite where a kill cut the line short."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
