"""The synthetic world: the same everywhere, and true to what its pictures show."""

import hashlib
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from seeall import catalog
from seeall.data.scenes import Scenes, Truth, parse, render
from seeall.data.scenes.shapes import NAMES, REACH, SHAPES
from seeall.data.scenes.textures import FAMILIES, Texture, clouds, noise, paint
from seeall.data.scenes.world import Pose, Thing
from seeall.types import SeeallError

CROWD = parse("scenes:n=40,identities=20,things=2-5,poles=0.5")


def digest(scenes: Scenes, order: range) -> str:
    pictures = {i: scenes.truth(i) for i in order}
    sha = hashlib.sha256()
    for i in sorted(pictures):
        truth = pictures[i]
        for part in (truth.image, truth.identities, truth.boxes, truth.masks, truth.semantic):
            sha.update(part.tobytes())
    return sha.hexdigest()


def test_same_bytes_in_any_order_and_in_another_process() -> None:
    text = "scenes:n=12,size=37,things=1-3,seed=5"
    forwards = digest(parse(text), range(12))
    assert digest(parse(text), range(11, -1, -1)) == forwards
    assert digest(pickle.loads(pickle.dumps(parse(text))), range(12)) == forwards
    program = (
        "import hashlib, sys; from seeall.data.scenes import parse; s = parse(sys.argv[1]); h = hashlib.sha256()\n"
        "for i in range(12):\n"
        "  t = s.truth(i)\n"
        "  for p in (t.image, t.identities, t.boxes, t.masks, t.semantic): h.update(p.tobytes())\n"
        "print(h.hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", program, text], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == forwards


def test_another_seed_is_another_world() -> None:
    for i in range(4):
        assert not np.array_equal(parse("scenes:seed=1").image(i), parse("scenes:seed=2").image(i))


def test_the_number_of_pictures_changes_none_of_them() -> None:
    np.testing.assert_array_equal(parse("scenes:n=10").image(7), parse("scenes:n=500").image(7))


def test_later_pictures_continue_the_set() -> None:
    whole, rest = parse("scenes:n=50,identities=7"), parse("scenes:n=10,identities=7,first=40")
    assert [rest.id(i) for i in range(10)] == [whole.id(40 + i) for i in range(10)]
    np.testing.assert_array_equal(rest.image(3), whole.image(43))


@pytest.mark.parametrize("size", [16, 37, 64])
def test_masks_boxes_and_semantic_agree(size: int) -> None:
    scenes = replace(CROWD, size=size)
    for i in range(len(scenes)):
        check_truth(scenes.truth(i), size)
        assert scenes.truth(i).identities[0] == scenes.identity(i)
        assert NAMES[scenes.truth(i).classes[0]] == scenes.label(i)


def check_truth(truth: Truth, size: int) -> None:
    m = len(truth.classes)
    assert truth.image.shape == (size, size, 3) and truth.image.dtype == np.uint8
    assert truth.masks.shape == (m, size, size) and truth.masks.dtype == np.bool_
    assert truth.boxes.shape == (m, 4) and truth.boxes.dtype == np.float32
    assert truth.identities.shape == (m,) and truth.semantic.dtype == np.uint8
    assert truth.masks.sum(0).max() <= 1, "two things share a pixel"
    union = np.zeros((size, size), np.uint8)
    for mask, kind, box in zip(truth.masks, truth.classes, truth.boxes, strict=True):
        ys, xs = np.nonzero(mask)
        assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert box.min() >= 0 and box.max() <= size
        union[mask] = kind + 1
    np.testing.assert_array_equal(truth.semantic, union)


def test_what_is_in_front_hides_what_is_behind() -> None:
    """Owners follow from the things drawn alone, laid over each other from back to front."""
    overlaps = 0
    for i in range(len(CROWD)):
        scene = CROWD.scene(i)
        _, owner = render(replace(scene, poles=()), 64)
        expected = np.full((64, 64), -1)
        for k, thing in enumerate(scene.things):
            inside = render(replace(scene, things=(thing,), main=0, poles=()), 64)[1] == 0
            overlaps += int((expected[inside] >= 0).sum())
            expected[inside] = k
        np.testing.assert_array_equal(owner, expected)
    assert overlaps > 1000


def test_poles_hide_things_and_count_as_background() -> None:
    bare, barred = parse("scenes:n=30,poles=0"), parse("scenes:n=30,poles=1")
    hidden = 0
    for i in range(30):
        before, after = bare.truth(i).masks[0], barred.truth(i).masks[0]
        assert not (after & ~before).any()
        assert after.sum() > 0.5 * before.sum()
        hidden += after.sum() < before.sum()
        np.testing.assert_array_equal(barred.truth(i).semantic > 0, after)
    assert hidden > 25


def test_masks_cover_the_pixels_that_the_thing_changes() -> None:
    for i in range(10):
        scene = replace(CROWD.scene(i), poles=())
        chief = replace(scene, things=(scene.things[scene.main],), main=0)
        dark = replace(chief.light, shadow=0.0)
        without, _ = render(replace(chief, things=(), light=dark), 64)
        shown, owner = render(replace(chief, light=dark), 64)
        changed = (shown != without).any(-1)
        mask = owner == 0
        assert (changed & mask).sum() > 0.97 * mask.sum()
        assert (changed & ~mask).sum() < 0.35 * mask.sum(), "more than a soft edge outside the mask"


def test_things_that_hardly_show_are_left_out_but_never_the_chief_one() -> None:
    crowd = parse("scenes:n=60,identities=30,things=10,poles=1,size=32")
    left_out = 0
    for i in range(len(crowd)):
        truth, owner = crowd.truth(i), render(crowd.scene(i), 32)[1]
        counts = np.bincount(owner[owner >= 0], minlength=10)
        left_out += 10 - len(truth.classes)
        assert truth.identities[0] == crowd.identity(i)
        assert truth.masks[1:].sum((1, 2)).min() >= 0.003 * 32 * 32
        assert len(truth.classes) >= (counts > 0.003 * 32 * 32).sum()
    assert left_out > 0


@pytest.mark.parametrize("text", [
    "scenes:n=300,size=8,poles=1", "scenes:n=200,size=16,things=10,poles=1",
    "scenes:n=200,size=32,things=10,poles=1,small=1",
])  # fmt: skip
def test_the_chief_thing_shows_even_in_the_smallest_pictures(text: str) -> None:
    scenes = parse(text)
    for i in range(len(scenes)):
        assert scenes.truth(i).identities[0] == scenes.identity(i)


def test_a_vivid_backdrop_changes_nothing_but_itself() -> None:
    usual, vivid = parse("scenes:n=20,light=0,noise=0"), parse("scenes:n=20,light=0,noise=0,backdrop=1")
    spread = []
    for i in range(20):
        before, after = usual.truth(i), vivid.truth(i)
        np.testing.assert_array_equal(before.masks, after.masks)
        away = before.semantic == 0
        spread.append([truth.image[away].astype(float).std(0).mean() for truth in (before, after)])
    assert np.mean(spread, 0)[1] > 1.3 * np.mean(spread, 0)[0]


def test_small_things_are_the_same_things_less_large() -> None:
    usual, small = parse("scenes:n=60,poles=0"), parse("scenes:n=60,poles=0,small=1")
    shares = [small.truth(i).masks[0].sum() / usual.truth(i).masks[0].sum() for i in range(60)]
    assert max(shares) <= 1.05 and 0.1 < min(shares) < 0.3 and 0.4 < np.mean(shares) < 0.65
    assert [small.scene(i).things[0].identity.shape for i in range(60)] == [
        usual.scene(i).things[0].identity.shape for i in range(60)
    ]
    with pytest.raises(SeeallError, match="small=1.* needs size=32"):
        parse("scenes:small=1,size=16")


def test_every_class_and_every_identity_appears_equally_often() -> None:
    scenes = parse("scenes:n=320,identities=40")
    labels = [scenes.label(i) for i in range(len(scenes))]
    assert {name: labels.count(name) for name in NAMES} == dict.fromkeys(NAMES, 40)
    counts = np.bincount([scenes.identity(i) for i in range(len(scenes))])
    assert counts.tolist() == [8] * 40
    assert {parse("scenes:n=9,classes=3").label(i) for i in range(9)} == set(NAMES[:3])


def test_identity_ranges_are_disjoint_and_keep_their_looks() -> None:
    known, unseen = parse("scenes:n=40,identities=20"), parse("scenes:n=40,identities=20,first_identity=20")
    both = parse("scenes:n=40,identities=40")
    assert {known.identity(i) for i in range(40)} == set(range(20))
    assert {unseen.identity(i) for i in range(40)} == set(range(20, 40))
    ours, theirs = unseen.scene(0).things[0].identity, both.scene(20).things[0].identity
    assert ours.number == theirs.number == 20
    assert (ours.cut, ours.stretch, ours.texture.family) == (theirs.cut, theirs.stretch, theirs.texture.family)
    np.testing.assert_array_equal(ours.texture.palette, theirs.texture.palette)
    crowded = replace(unseen, things="3")
    assert all(20 <= k < 40 for i in range(20) for k in crowded.truth(i).identities)


def test_other_things_are_other_identities() -> None:
    for i in range(len(CROWD)):
        scene = CROWD.scene(i)
        others = [t.identity.number for k, t in enumerate(scene.things) if k != scene.main]
        assert CROWD.identity(i) not in others


def test_one_identity_keeps_its_looks_and_changes_all_else() -> None:
    scenes = parse("scenes:n=40,identities=4")
    a, b = scenes.scene(1), scenes.scene(5)
    assert a.things[0].identity.texture.family == b.things[0].identity.texture.family
    assert a.things[0].start != b.things[0].start and a.light.tint != b.light.tint
    assert not np.array_equal(a.background.texture.palette, b.background.texture.palette)


def test_raw_pixels_tell_identities_apart_poorly_but_better_than_chance() -> None:
    scenes = parse("scenes:n=600,identities=60,size=32")
    pixels = np.stack([scenes.image(i).ravel() for i in range(600)]).astype(np.float32)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    alike = pixels @ pixels.T
    np.fill_diagonal(alike, -1)
    who = np.array([scenes.identity(i) for i in range(600)])
    assert 2 / 60 < (who[alike.argmax(1)] == who).mean() < 0.4


def test_a_picture_is_the_same_at_every_size() -> None:
    small, large = parse("scenes:n=8,size=32,noise=0"), parse("scenes:n=8,size=96,noise=0")
    for i in range(8):
        shrunk = large.image(i).reshape(32, 3, 32, 3, 3).mean((1, 3))
        assert np.abs(shrunk - small.image(i)).mean() < 6
        share = [s.truth(i).masks[0].mean() for s in (small, large)]
        assert abs(share[0] - share[1]) < 0.02


def test_a_thing_moves_with_time_and_a_still_does_not() -> None:
    scene = parse("scenes:poles=0").scene(0)
    np.testing.assert_array_equal(render(scene, 64, t=3.0)[0], render(scene, 64)[0])
    still = Thing(scene.things[0].identity, Pose(0.4, 0.5, 0.25, 0.0))
    moving = replace(still, velocity=Pose(0.125, -0.0625, 0.0, 0.0))
    before = render(replace(scene, things=(still,)), 64)[1]
    after = render(replace(scene, things=(moving,)), 64, t=2.0)[1]
    np.testing.assert_array_equal(np.roll(before, (-8, 16), (0, 1)), after)


def test_a_thing_out_of_sight_is_no_error() -> None:
    scene = parse("scenes").scene(0)
    for x, y, scale in ((-3.0, 0.5, 0.3), (0.5, 4.0, 0.3), (9.0, -9.0, 0.3), (0.5, 0.5, 0.0)):
        away = Thing(scene.things[0].identity, Pose(x, y, scale, 0.0))
        assert (render(replace(scene, things=(away,), poles=()), 32)[1] == -1).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [0.0, 0.5, 1.0])
def test_shapes_fit_their_circle_and_have_unit_slope_at_the_outline(name: str, cut: float) -> None:
    axis = np.linspace(-1.5, 1.5, 601, dtype=np.float32)
    d = SHAPES[name](axis[None, :], axis[:, None], cut)
    inside = d <= 0
    radius = np.hypot(axis[None, :], axis[:, None])
    assert 0.7 < radius[inside].max() < REACH / np.sqrt(1.2) + 0.02
    assert 0.12 * np.pi < inside.mean() * 9 < np.pi
    slope = np.hypot(*np.gradient(d, axis, axis))[np.abs(d) < 0.01]
    assert abs(np.median(slope) - 1) < 0.02
    assert np.percentile(slope, 95) < 1.05


@pytest.mark.parametrize("family", FAMILIES)
def test_textures_stay_between_their_colours_and_show_more_than_one(family: str) -> None:
    rng = np.random.default_rng(0)
    palette = np.array([[0.1, 0.2, 0.3], [0.8, 0.7, 0.6], [0.9, 0.1, 0.5]], np.float32)
    texture = Texture(family, palette, 1.5, 0.4, (0.1, 0.2), 0.5, rng.random((16, 16), dtype=np.float32))
    axis = np.linspace(-1, 1, 64, dtype=np.float32)
    colours = paint(texture, axis[None, :], axis[:, None], 2 / 64)
    assert colours.shape == (3, 64, 64) and colours.dtype == np.float32
    for channel, painted in zip(palette.T, colours, strict=True):
        assert channel.min() - 1e-5 <= painted.min() and painted.max() <= channel.max() + 1e-5
    assert colours.std((1, 2)).min() > 0.05


def test_clouds_are_the_noise_they_replace() -> None:
    lattice = np.random.default_rng(1).random((16, 16), dtype=np.float32)
    centres = np.linspace(0, 1, 30, endpoint=False, dtype=np.float32)
    slow = noise(4 * centres[None, :], 4 * centres[:, None], lattice)
    assert np.abs(clouds(centres, lattice) - slow).max() < 1e-5


def test_parse_reads_typed_settings() -> None:
    assert parse("scenes") == parse("scenes:") == Scenes()
    scenes = parse("scenes: n=500, size=32,things=1-3,light=0.2")
    assert scenes == Scenes(n=500, size=32, things="1-3", light=0.2) and len(scenes) == 500
    assert parse("scenes:n=12,first=30,identities=8").id(2) == "scenes/identity_0000/000032"
    assert catalog.settings(Scenes)["n"] == (int, 2000)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scenes:sise=32", "did you mean size"),
        ("scenes:n=0", "n=0 .*from 1 to"),
        ("scenes:size=7", "size=7 .*from 8 to"),
        ("scenes:n=many", "'n' wants a whole number"),
        ("scenes:n=2.5", "'n' wants a whole number"),
        ("scenes:seed=-1", "seed=-1"),
        ("scenes:classes=9", "classes=9 .*from 1 to 8"),
        ("scenes:identities=0", "identities=0"),
        ("scenes:light=nan", "light=nan"),
        ("scenes:noise=2", "noise=2.0"),
        ("scenes:things=0", "things=0"),
        ("scenes:things=3-1", "things=3-1"),
        ("scenes:things=1-99", "things=1-99"),
        ("scenes:things=two", "things=two"),
        ("scenes:things=2,size=8", "size=16 or more"),
        ("scenes:500", "'500' is no setting; write name=value"),
        ("scenes:n=1,n=2", "n is set twice"),
        ("scene:n=1", "does not name the synthetic world"),
        ("", "does not name the synthetic world"),
    ],
)
def test_bad_texts_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(SeeallError, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("i", [-1, 5])
def test_pictures_beyond_the_set_are_refused(i: int) -> None:
    with pytest.raises(IndexError, match="of 5"):
        parse("scenes:n=5").image(i)
