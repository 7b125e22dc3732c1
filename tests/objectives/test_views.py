"""The recipe: views depend on their key alone, operations come as often as asked, odd sizes pass."""

import pytest
import torch
from torch import Tensor

from seeall import catalog
from seeall.data.crops import crop_batch
from seeall.ssl.views import Views
from seeall.types import SeeallError

OFF = {"jitter_p": 0.0, "grey": 0.0, "blur": 0.0, "rotate": 0.0, "cutout": 0.0, "noise": 0.0, "sobel": 0.0}
EVERYTHING = dict.fromkeys(OFF, 0.5)


def made(recipe: Views, pictures: Tensor, epoch: int, index: Tensor, size: int, seed: int = 0) -> Tensor:
    """(V, B, 3, S, S): the whole way from pictures of one size."""
    sizes = torch.tensor(pictures.shape[-2:]).expand(len(index), 2)
    boxes, flips = recipe.boxes(seed, epoch, index, sizes)
    x = recipe.photometric(crop_batch(pictures, boxes, flips, size), seed, epoch, index)
    return x.view(recipe.views, len(index), 3, size, size)


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_view_does_not_depend_on_the_batch_around_it(size: int) -> None:
    recipe, pictures, index = Views(**EVERYTHING), torch.rand(60, 3, 20, 30), torch.arange(60) * 37
    together = made(recipe, pictures, 4, index, size)
    order = torch.randperm(60)
    shuffled = made(recipe, pictures[order], 4, index[order], size)
    torch.testing.assert_close(shuffled, together[:, order], atol=1e-6, rtol=0)
    for few in ([11], [59, 3, 30]):
        alone = made(recipe, pictures[few], 4, index[few], size)
        torch.testing.assert_close(alone, together[:, few], atol=1e-6, rtol=0)


def test_views_beside_each_other_do_not_change_each_other() -> None:
    pictures, index = torch.rand(20, 3, 16, 16), torch.arange(20)
    two = made(Views(**EVERYTHING), pictures, 0, index, 16)
    five = made(Views(views=5, **EVERYTHING), pictures, 0, index, 16)
    torch.testing.assert_close(five[:2], two, atol=1e-6, rtol=0)


def test_every_part_of_the_key_matters() -> None:
    recipe, index = Views(**EVERYTHING), torch.arange(40)
    pictures = torch.rand(1, 3, 16, 16).expand(40, -1, -1, -1)
    base = made(recipe, pictures, 0, index, 16)
    torch.testing.assert_close(made(recipe, pictures, 0, index, 16), base, atol=0, rtol=0)
    others = [made(recipe, pictures, 1, index, 16), made(recipe, pictures, 0, index, 16, seed=1)]
    others += [made(recipe, pictures, 0, index + 40, 16), base.flip(0), base.roll(1, 1)]
    for other in others:
        assert ((other - base).abs().amax((2, 3, 4)) > 1e-3).float().mean() > 0.95


@pytest.mark.parametrize("name", OFF)
def test_an_operation_comes_as_often_as_asked(name: str) -> None:
    x, index = torch.rand(1500, 3, 8, 8), torch.arange(1500)
    for share in (0.0, 0.3, 1.0):
        result = Views(views=1, **(OFF | {name: share})).photometric(x, 0, 0, index)
        changed = ((result - x).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
        # The weakest noise and blur change a picture by less than the threshold.
        missed = 0.08 if name in ("blur", "noise") else 0.0
        assert share * (1 - missed) - 0.04 * (share < 1) <= changed <= share + 0.04 * (0 < share < 1)
        assert share > 0 or changed == 0


def test_operations_are_drawn_apart_from_each_other() -> None:
    index = torch.arange(4000)
    x = torch.rand(1, 3, 8, 8).expand(4000, -1, -1, -1)
    changed = []
    for name in OFF:
        result = Views(views=1, **(OFF | {name: 0.5})).photometric(x, 0, 0, index)
        changed.append((result - x).abs().amax((1, 2, 3)) > 1e-4)
    correlation = torch.corrcoef(torch.stack(changed).float()) - torch.eye(len(changed))
    assert correlation.abs().max() < 0.08


def test_flips_come_as_often_as_asked() -> None:
    index, sizes = torch.arange(4000), torch.full((4000, 2), 32)
    shares = [Views(flip=p).boxes(0, 0, index, sizes)[1].float().mean().item() for p in (0.0, 0.25, 1.0)]
    assert shares == pytest.approx([0.0, 0.25, 1.0], abs=0.03)
    assert shares[0] == 0.0
    assert shares[2] == 1.0


def test_blur_unset_begins_at_64_px() -> None:
    only_blur = OFF | {"blur": None}
    for size, share in ((32, 0.0), (63, 0.0), (64, 0.5)):
        x = torch.rand(200, 3, size, size)
        result = Views(views=1, **only_blur).photometric(x, 0, 0, torch.arange(200))
        changed = ((result - x).abs().amax((1, 2, 3)) > 1e-4).float().mean().item()
        assert changed == pytest.approx(share, abs=0.12 if share else 0)


def test_with_everything_off_a_view_is_its_crop() -> None:
    x = torch.rand(6, 3, 8, 8)
    result = Views(**OFF).photometric(x, 0, 0, torch.arange(3))
    assert torch.equal(result, x)
    assert result.data_ptr() != x.data_ptr()


def test_uint8_and_float_make_the_same_views() -> None:
    x, index = torch.randint(0, 256, (40, 3, 24, 24), dtype=torch.uint8), torch.arange(20)
    recipe = Views(**EVERYTHING)
    from_bytes, from_floats = recipe.photometric(x, 0, 0, index), recipe.photometric(x / 255, 0, 0, index)
    torch.testing.assert_close(from_bytes, from_floats, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [1, 8, 33])
@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1), (1, 1), (13, 7)])
def test_odd_sizes_pass(size: int, height: int, width: int) -> None:
    result = made(Views(**dict.fromkeys(OFF, 1.0)), torch.rand(5, 3, height, width), 0, torch.arange(5), size)
    assert result.isfinite().all()
    assert result.min() >= 0
    assert result.max() <= 1


def test_crops_cover_no_less_than_asked() -> None:
    boxes, _ = Views(crop_min=0.5).boxes(0, 0, torch.arange(500), torch.full((500, 2), 200))
    assert (boxes[:, 2] * boxes[:, 3]).min() >= 0.42 * 200**2
    whole, _ = Views(crop_min=0.05).boxes(0, 0, torch.arange(500), torch.full((500, 2), 200))
    assert (whole[:, 2] * whole[:, 3]).min() < 0.1 * 200**2


def test_settings_are_read_off_the_signature() -> None:
    chosen = catalog.resolve({"views": Views}, ["crop_min=0.08", "blur=none", "views=4"])["views"]
    assert chosen == {"crop_min": 0.08, "blur": None, "views": 4}
    Views(**chosen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"views": 0},
        {"crop_min": 0.0},
        {"crop_min": 1.5},
        {"hue": 0.6},
        {"blur": -0.1},
        {"noise": 2.0},
        {"jitter": -1.0},
    ],
)
def test_a_setting_out_of_range_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(SeeallError, match=next(iter(wrong))):
        Views(**wrong)


def test_a_batch_with_another_number_of_views_is_refused() -> None:
    with pytest.raises(ValueError, match="6 rows are not 2 views of 4 samples"):
        Views().photometric(torch.rand(6, 3, 8, 8), 0, 0, torch.arange(4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_on_a_gpu_are_those_of_the_cpu() -> None:
    x, index = torch.rand(80, 3, 64, 64), torch.arange(40)
    recipe = Views(**EVERYTHING)
    on_gpu = recipe.photometric(x.cuda(), 0, 0, index).cpu()
    assert (on_gpu - recipe.photometric(x, 0, 0, index)).abs().mean() < 1e-4
