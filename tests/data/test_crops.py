"""Crops: two implementations, torch's own resize, and torchvision's distribution agree."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import RandomResizedCrop

from seeall.data import crops, keyed


def drawn(n: int, height: int, width: int, scale: tuple[float, float] = (0.05, 1.0)) -> torch.Tensor:
    u = keyed.uniform(3, torch.arange(n), n=4)
    return crops.sample_boxes(u, torch.tensor([[height, width]]).expand(n, 2), scale)


def oracle(picture: torch.Tensor, box: torch.Tensor, flip: bool, size: int) -> torch.Tensor:
    x0, y0, w, h = box.tolist()
    cut = picture[None, :, y0 : y0 + h, x0 : x0 + w]
    resized = F.interpolate(cut, (size, size), mode="bilinear", antialias=True)[0]
    return resized.flip(-1) if flip else resized


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (47, 90, 24), (20, 13, 40), (1, 30, 8)])
def test_crop_batch_is_torchs_antialiased_resize_of_the_cut(height: int, width: int, size: int) -> None:
    views, B = 2, 150
    pictures = torch.rand(B, 3, height, width)
    boxes = drawn(views * B, height, width)
    flips = torch.rand(views * B) < 0.5
    ours = crops.crop_batch(pictures, boxes, flips, size)
    assert ours.shape == (views * B, 3, size, size)
    for n in range(0, views * B, 7):
        expected = oracle(pictures[n % B], boxes[n], bool(flips[n]), size)
        torch.testing.assert_close(ours[n], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (60, 45, 24), (9, 16, 30), (1, 5, 8)])
def test_crop_one_agrees_with_crop_batch(height: int, width: int, size: int) -> None:
    pictures = torch.randint(0, 256, (40, 3, height, width), dtype=torch.uint8)
    boxes, flips = drawn(40, height, width), torch.arange(40) % 2 == 0
    together = crops.crop_batch(pictures, boxes, flips, size)
    for n, picture in enumerate(pictures):
        array = picture.permute(1, 2, 0).contiguous().numpy()
        x0, y0, w, h = boxes[n].tolist()
        alone = crops.crop_one(array, (x0, y0, w, h), bool(flips[n]), size)
        assert alone.dtype == torch.uint8
        assert alone.is_contiguous()
        assert (alone / 255 - together[n]).abs().max() <= 1.01 / 255


def test_crop_one_is_safe_in_threads_and_on_pictures_that_cannot_be_written() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    picture.flags.writeable = False
    boxes = [*drawn(64, 50, 70).tolist(), [0, 0, 70, 50]]

    def cut(box: list[int]) -> torch.Tensor:
        return crops.crop_one(picture, (box[0], box[1], box[2], box[3]), True, 32)

    with ThreadPoolExecutor(4) as pool:
        for box, result in zip(boxes, pool.map(cut, boxes)):
            assert torch.equal(result, cut(box))


def test_a_crop_of_the_whole_picture_at_its_own_size_is_the_picture() -> None:
    pictures = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    whole = torch.tensor([[0, 0, 16, 16]]).expand(8, 4)
    flips = torch.arange(8) >= 4
    result = crops.crop_batch(pictures, whole, flips, 16)
    torch.testing.assert_close(result[:4], pictures / 255, atol=1e-6, rtol=0)
    torch.testing.assert_close(result[4:], (pictures / 255).flip(-1), atol=1e-6, rtol=0)


def test_boxes_are_spread_as_torchvision_spreads_them_where_all_fit() -> None:
    scale, n = (0.08, 0.5), 4000
    ours = drawn(n, 200, 200, scale).double()
    picture = torch.empty(3, 200, 200)
    top_left = [RandomResizedCrop.get_params(picture, list(scale), [3 / 4, 4 / 3]) for _ in range(n)]
    theirs = torch.tensor([(x, y, w, h) for y, x, h, w in top_left]).double()
    shares = torch.linspace(0.05, 0.95, 19).double()
    for column in range(4):
        ours_at, theirs_at = ours[:, column].quantile(shares), theirs[:, column].quantile(shares)
        assert (ours_at - theirs_at).abs().max() < 6, column
    areas = ours[:, 2] * ours[:, 3] / 200**2
    assert abs(areas.mean() - 0.29) < 0.008
    assert abs((ours[:, 2] / ours[:, 3]).log().mean()) < 0.01


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (300, 1), (2, 3), (375, 500)])
def test_boxes_lie_inside_the_picture(height: int, width: int) -> None:
    x0, y0, w, h = drawn(3000, height, width, (0.01, 1.0)).unbind(1)
    assert (w >= 1).all() and (h >= 1).all()
    assert (x0 >= 0).all() and (y0 >= 0).all()
    assert (x0 + w <= width).all() and (y0 + h <= height).all()
    if height > 2 and width > 3:
        assert (x0 + w).max() == width and (y0 + h).max() == height and x0.min() == 0 and y0.min() == 0


def test_a_crop_does_not_depend_on_the_batch() -> None:
    pictures = torch.rand(300, 3, 32, 32)
    boxes, flips = drawn(600, 32, 32), torch.arange(600) % 3 == 0
    together = crops.crop_batch(pictures, boxes, flips, 32)
    alone = crops.crop_batch(pictures[77:78], boxes[[77, 377]], flips[[77, 377]], 32)
    torch.testing.assert_close(alone, together[[77, 377]], atol=1e-6, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_crops_on_a_gpu_are_those_of_the_cpu() -> None:
    pictures = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8)
    boxes, flips = drawn(32, 32, 32), torch.arange(32) % 2 == 0
    on_gpu = crops.crop_batch(pictures.cuda(), boxes, flips, 32).cpu()
    torch.testing.assert_close(on_gpu, crops.crop_batch(pictures, boxes, flips, 32), atol=2e-3, rtol=0)
