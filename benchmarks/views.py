"""Claim: a view of SimCLR costs one core less than a tenth of a millisecond at 32 px (more than 10,000 a second),
and views at 224 px from JPEGs, decoding included, come more than twice as fast as lightly's, its documented way.

    python benchmarks/views.py [--json]         about a minute on one core; kornia is skipped if not installed

Views per second per core, from pictures to a normalised batch: at 32 px from CIFAR-size arrays in memory, no
blur; at 224 px from JPEGs of 500x375 px in memory, each decoded once for two views. Every way draws for every
picture anew, save "torchvision, one draw a batch", which is no substitute and shows what batching alone gives.
CPU time of one thread, so that a busy machine shifts it little; repetitions of all ways take turns in one run,
and the table shows medians. Expect, on two hyperthreads of a server CPU kept busy by other work, 17,000 to
22,000 at 32 px, 12 to 18 times lightly's, and 390 to 450 at 224 px, 2.4 to 3.2 times lightly's.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from seeall.data.crops import crop_batch, crop_one
from seeall.ssl.views import Views

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
REPETITIONS = 7
BLUR = {32: 0.0, 224: 0.5}
Way = Callable[[], int]


def pictures(n: int, height: int, width: int) -> list[np.ndarray]:
    """Coarse random fields with a little grain: (height, width, 3) uint8, about as hard to decode as photos."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC)) for c in coarse]
    return [np.clip(s + rng.normal(0, 6, s.shape), 0, 255).astype(np.uint8) for s in smooth]


def jpeg(array: np.ndarray) -> bytes:
    """A picture as JPEG, quality 90."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """What every way opens a JPEG with."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def planar(array: np.ndarray) -> Tensor:
    """(H, W, 3) array to (3, H, W) tensor."""
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)


def normalise(x: Tensor) -> Tensor:
    """In place, with the statistics of ImageNet."""
    return x.sub_(MEAN[:, None, None]).div_(STD[:, None, None])


def ours(sources: list[np.ndarray] | list[bytes], size: int) -> Way:
    """`seeall.ssl.views`: batched crops at 32 px, a crop a picture at 224 px; then everything else batched."""
    recipe, index = Views(), torch.arange(len(sources))

    def small() -> int:
        batch = torch.from_numpy(np.stack(sources)).permute(0, 3, 1, 2).contiguous()
        boxes, flips = recipe.boxes(0, 0, index, torch.full((len(batch), 2), size))
        return len(normalise(recipe.photometric(crop_batch(batch, boxes, flips, size), 0, 0, index)))

    def large() -> int:
        arrays = [np.asarray(decode(data)) for data in sources if isinstance(data, bytes)]
        boxes, flips = recipe.boxes(0, 0, index, torch.tensor([a.shape[:2] for a in arrays]))
        cuts = zip(arrays * recipe.views, boxes.tolist(), flips.tolist())
        x = torch.stack([crop_one(array, box, flip, size) for array, box, flip in cuts])
        return len(normalise(recipe.photometric(x, 0, 0, index)))

    return small if size == 32 else large


def torchvision_steps(size: int) -> v2.Compose:
    """The same recipe in transforms.v2."""
    steps = [
        v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.Normalize(MEAN.tolist(), STD.tolist()),
    ]
    if BLUR[size]:
        steps.insert(5, v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=BLUR[size]))
    return v2.Compose(steps)


def torchvision(sources: list[np.ndarray] | list[bytes], size: int) -> Way:
    """transforms.v2 on one tensor at a time."""
    steps = torchvision_steps(size)

    def way() -> int:
        opened = (planar(np.asarray(decode(s)) if isinstance(s, bytes) else s) for s in sources)
        return len(torch.stack([steps(x) for x in opened for _ in range(2)]))

    return way


def torchvision_batch(sources: list[np.ndarray] | list[bytes], size: int) -> Way:
    """transforms.v2 on the whole batch, all pictures with the same parameters."""
    steps = torchvision_steps(size)

    def way() -> int:
        batch = torch.stack([planar(np.asarray(decode(s)) if isinstance(s, bytes) else s) for s in sources])
        return sum(len(steps(batch)) for _ in range(2))

    return way


def lightly(sources: list[np.ndarray] | list[bytes], size: int) -> Way:
    """SimCLRTransform, as documented, on one Pillow picture at a time."""
    from lightly.transforms import SimCLRTransform

    transform = SimCLRTransform(input_size=size, cj_strength=0.5, min_scale=0.2, gaussian_blur=BLUR[size])

    def way() -> int:
        opened = (decode(s) if isinstance(s, bytes) else Image.fromarray(s) for s in sources)
        return len(torch.stack([view for picture in opened for view in transform(picture)]))

    return way


def kornia(sources: list[np.ndarray] | list[bytes], size: int) -> Way:
    """Batched, each picture with parameters of its own; its crop does not antialias."""
    import kornia.augmentation as K

    steps = [
        K.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.Normalize(MEAN, STD),
    ]
    if BLUR[size]:
        steps.insert(4, K.RandomGaussianBlur((23, 23), (0.1, 2.0), p=BLUR[size]))
    transform = torch.nn.Sequential(*steps)

    def way() -> int:
        batch = torch.stack([planar(np.asarray(decode(s)) if isinstance(s, bytes) else s) for s in sources])
        return sum(len(transform(batch / 255)) for _ in range(2))

    return way


WAYS = {
    "ours": ours,
    "lightly": lightly,
    "torchvision": torchvision,
    "torchvision, one draw a batch": torchvision_batch,
    "kornia": kornia,
}


def rates(size: int, sources: list[np.ndarray] | list[bytes]) -> dict[str, float]:
    """Median views per second of CPU time of every way that can be imported."""
    ways: dict[str, Way] = {}
    for name, make in WAYS.items():
        try:
            ways[name] = make(sources, size)
        except ImportError:
            print(f"{name} is not installed: skipped", file=sys.stderr)
    for way in ways.values():
        way()
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        for name, way in ways.items():
            start = time.process_time()
            views = way()
            found[name].append(views / (time.process_time() - start))
    return {name: statistics.median(each) for name, each in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    tables = {
        32: rates(32, pictures(256, 32, 32)),
        224: rates(224, [jpeg(p) for p in pictures(8, 375, 500)]),
    }
    if as_json:
        keys = {name: name.replace(", ", "_").replace(" ", "_") for name in WAYS}
        print(json.dumps({f"{keys[n]}_{size}": round(r) for size, t in tables.items() for n, r in t.items()}))
        return
    print(f"{'views per second per core':<32}{'32 px':>9}{'ours is':>10}{'224 px':>9}{'ours is':>10}")
    for name in tables[32]:
        cells = (f"{t[name]:>9,.0f}{t['ours'] / t[name]:>9.1f}x" for t in tables.values())
        print(f"{name:<32}{''.join(cells)}")


if __name__ == "__main__":
    main()
