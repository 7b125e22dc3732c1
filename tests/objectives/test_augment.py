"""Every augmentation against torchvision's (or scipy's), sample by sample, on the same parameters."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as oracle

from seeall.ssl import augment


@pytest.fixture
def pictures() -> Tensor:
    """Noise, and every case that colour formulas divide by zero or tie on."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 3, 24, 24, generator=generator)
    corners = torch.tensor([[r, g, b] for r in (0.0, 1.0) for g in (0.0, 1.0) for b in (0.0, 1.0)])
    x[0, :, 0, :8] = corners.T
    x[1] = x[1].round(decimals=1)
    x[2] = x[2, :1]
    x[3], x[4], x[5] = 0.0, 1.0, 0.25
    x[6] = torch.rand(3, 1, 1, generator=generator)
    x[7, 1] = x[7, 2]
    x[8, 0] = x[8, 1]
    return x


COLOUR: list[tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, float], Tensor], tuple[float, float]]]
COLOUR = [
    (augment.brightness, oracle.adjust_brightness, (0.0, 2.0)),
    (augment.contrast, oracle.adjust_contrast, (0.0, 2.0)),
    (augment.saturation, oracle.adjust_saturation, (0.0, 2.0)),
    (augment.hue, oracle.adjust_hue, (-0.5, 0.5)),
]


@pytest.mark.parametrize(("ours", "theirs", "span"), COLOUR, ids=["brightness", "contrast", "saturation", "hue"])
def test_colours_are_those_of_torchvision(ours, theirs, span, pictures: Tensor) -> None:
    for shift in range(5):
        parameters = torch.linspace(*span, len(pictures)).roll(4 * shift)
        result = ours(pictures, parameters)
        expected = torch.stack([theirs(x, float(p)) for x, p in zip(pictures, parameters)])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
        assert result.min() >= 0
        assert result.max() <= 1


def test_jitter_is_brightness_then_contrast_then_saturation_then_hue(pictures: Tensor) -> None:
    factors = torch.rand(len(pictures), 4) * 0.8 + torch.tensor([0.6, 0.6, 0.6, -0.4])
    result = augment.jitter(pictures, factors)
    for x, ours, (b, c, s, h) in zip(pictures, result, factors.tolist()):
        x = oracle.adjust_contrast(oracle.adjust_brightness(x, b), c)
        x = oracle.adjust_hue(oracle.adjust_saturation(x, s), h)
        torch.testing.assert_close(ours, x, atol=2e-5, rtol=0)


def test_grey_is_torchvisions_luminance(pictures: Tensor) -> None:
    expected = oracle.rgb_to_grayscale(pictures, num_output_channels=3)
    torch.testing.assert_close(augment.grey(pictures), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [2, 8, 24, 33, 97, 224])
def test_blur_is_torchvisions(size: int) -> None:
    x, sigmas = torch.rand(4, 3, size, size), torch.tensor([0.1, 0.5, 1.3, 2.0])
    kernel = augment.blur_kernel_size(size)
    assert kernel % 2 == 1
    result = augment.blur(x, sigmas, kernel)
    expected = [oracle.gaussian_blur(p, [kernel, kernel], [s, s]) for p, s in zip(x, sigmas.tolist())]
    torch.testing.assert_close(result, torch.stack(expected), atol=1e-5, rtol=0)


def test_the_kernel_is_a_tenth_of_the_side() -> None:
    assert [augment.blur_kernel_size(s) for s in (8, 32, 64, 96, 224)] == [3, 3, 7, 9, 23]


def test_rotations_are_quarter_turns_against_the_clock(pictures: Tensor) -> None:
    turns = torch.arange(len(pictures)) % 4
    result = augment.rotate(pictures, turns)
    for x, ours, turn in zip(pictures, result, turns.tolist()):
        assert torch.equal(ours, oracle.rotate(x, 90.0 * turn))


def test_cutout_erases_a_box_clipped_at_the_edges(pictures: Tensor) -> None:
    boxes = torch.randint(-8, 24, (len(pictures), 4))
    boxes[:, 2:] = boxes[:, 2:].abs() + 1
    result = augment.cutout(pictures, boxes)
    for x, ours, (x0, y0, w, h) in zip(pictures, result, boxes.tolist()):
        left, top, right, bottom = max(x0, 0), max(y0, 0), max(x0 + w, 0), max(y0 + h, 0)
        hole = torch.full((3, 1, 1), 0.5)
        expected = oracle.erase(x, top, left, bottom - top, right - left, hole)
        assert torch.equal(ours, expected)


def test_noise_is_added_and_clamped(pictures: Tensor) -> None:
    normal, sigma = torch.randn_like(pictures), torch.linspace(0, 1, len(pictures))
    expected = (pictures + sigma[:, None, None, None] * normal).clamp(0, 1)
    torch.testing.assert_close(augment.noise(pictures, sigma, normal), expected, atol=1e-6, rtol=0)


def test_sobel_is_scipys_gradient_magnitude(pictures: Tensor) -> None:
    array = pictures.double().numpy()
    expected = torch.empty_like(pictures)
    for n, c in np.ndindex(len(array), 3):
        across, down = (scipy.ndimage.sobel(array[n, c], axis=a, mode="nearest") for a in (1, 0))
        expected[n, c] = torch.from_numpy(np.clip(np.hypot(across, down) / 4, 0, 1))
    torch.testing.assert_close(augment.sobel(pictures), expected, atol=1e-5, rtol=0)


def test_nothing_changes_its_input(pictures: Tensor) -> None:
    before, n = pictures.clone(), len(pictures)
    half = torch.full((n,), 0.5)
    augment.jitter(pictures, half[:, None].expand(n, 4))
    augment.grey(pictures)
    augment.blur(pictures, half, 3)
    augment.rotate(pictures, torch.ones(n, dtype=torch.int64))
    augment.cutout(pictures, torch.tensor([[2, 2, 5, 5]]).expand(n, 4))
    augment.noise(pictures, half, torch.randn_like(pictures))
    augment.sobel(pictures)
    assert torch.equal(pictures, before)
