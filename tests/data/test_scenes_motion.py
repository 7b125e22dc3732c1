"""Clips of the synthetic world: what moves, how, and where every pixel goes."""

import cmath
import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from seeall.data.scenes import ACTIONS, Scenes, parse, render
from seeall.data.scenes.flow import flow
from seeall.data.scenes.motion import Swing
from seeall.data.scenes.shapes import NAMES
from seeall.data.scenes.textures import clouds, noise
from seeall.types import SeeallError

CLIPS = parse("scenes:n=16,frames=16,fps=8,identities=8,poles=0")
CROWD = parse("scenes:n=24,frames=6,fps=4,identities=16,things=2-5,poles=0.6,size=48,light=0,noise=0")


def test_frames_are_numbered_within_clips() -> None:
    assert len(CLIPS) == 16 * 16
    assert CLIPS.id(12 * 16 + 7) == "scenes/identity_0004/clip_000012/007"
    assert CLIPS.moment(12 * 16 + 7) == ("scenes/identity_0004/clip_000012", 7 / 8)
    assert len({CLIPS.id(i) for i in range(len(CLIPS))}) == len(CLIPS)
    for clip in range(16):
        rows = range(clip * 16, clip * 16 + 16)
        assert {CLIPS.label(i) for i in rows} == {NAMES[clip % 8]}
        assert {CLIPS.identity(i) for i in rows} == {clip % 8}
    with pytest.raises(IndexError, match="picture 256 of 256"):
        CLIPS.image(256)


def test_single_pictures_are_what_they_always_were() -> None:
    scenes = parse("scenes:n=40,identities=20")
    assert scenes.moment(25) == ("scenes/identity_0005/000025", 0.0) and scenes.id(25) == scenes.moment(25)[0]
    assert scenes.action(25) == "still"
    seen = scenes.image(25)[8::24, 8::24].reshape(-1, 3)
    expected = [
        [131, 157, 175],
        [123, 227, 199],
        [99, 118, 139],
        [126, 167, 180],
        [93, 137, 136],
        [129, 145, 176],
        [124, 147, 166],
        [117, 144, 167],
        [108, 129, 153],
    ]
    assert np.abs(seen.astype(int) - expected).max() <= 2


def test_any_frame_can_be_drawn_alone() -> None:
    text = "scenes:n=3,frames=5,fps=4,size=32,things=1-3"
    scenes = parse(text)
    forwards = [scenes.image(i) for i in range(15)]
    for i in reversed(range(15)):
        again = pickle.loads(pickle.dumps(parse(text)))
        np.testing.assert_array_equal(again.image(i), forwards[i])
    np.testing.assert_array_equal(parse(text.replace("n=3", "n=90")).image(13), forwards[13])
    rest = parse(text.replace("n=3", "n=1,first=2"))
    np.testing.assert_array_equal(rest.image(3), forwards[13])
    assert rest.id(3) == scenes.id(13)
    assert all(not np.array_equal(a, b) for a, b in pairwise(forwards))


def shown(scenes: Scenes, clip: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frames, 2) middles, px, (frames,) areas, px, and (frames, H, W) masks of the chief thing."""
    masks = np.stack([scenes.truth(clip * scenes.frames + k).masks[0] for k in range(scenes.frames)])
    middles = np.array([[where.mean() for where in np.nonzero(mask)[::-1]] for mask in masks])
    return middles, masks.sum((1, 2)), masks


def test_the_chief_thing_does_what_its_action_says() -> None:
    scenes = replace(CLIPS, labels="action", identities=1, classes=2)  # discs alone, whose middle never leaves
    done = set()
    for clip in range(16):
        name = scenes.label(clip * 16)
        middles, areas, masks = shown(scenes, clip)
        (dx, dy), growth = middles[-1] - middles[0], areas[-1] / areas[0]
        along = {"left": -dx, "right": dx, "up": -dy, "down": dy}.get(name, 0)
        if name in ("left", "right", "up", "down"):
            aside = dy if name in ("left", "right") else dx
            assert along > 8 and abs(aside) < 0.35 * along and 0.7 < growth < 1.4
            steps = np.diff(middles[:, 0 if name in ("left", "right") else 1]) * np.sign(along)
            assert (steps > 0).all() if name in ("right", "down") else (steps < 0).all()
        elif name in ("grow", "shrink"):
            assert growth > 1.3 if name == "grow" else growth < 0.77
            assert np.hypot(dx, dy) < 4
        else:
            assert np.hypot(dx, dy) < 4 and 0.8 < growth < 1.25
            assert (masks == masks[0]).all() == (name == "still")
        turned = scenes.scene(clip * 16 + 15).things[0].start.angle - scenes.scene(clip * 16).things[0].start.angle
        assert (abs(turned) > 1) == (name == "turn")
        done.add(name)
    assert done == set(ACTIONS)


def test_actions_are_equally_frequent_and_follow_neither_class_nor_order() -> None:
    scenes = parse("scenes:n=800,frames=2,identities=40")
    names = np.array([scenes.action(2 * clip) for clip in range(800)])
    for block in names.reshape(-1, 8):
        assert sorted(block) == sorted(ACTIONS)
    for kind in range(8):
        mine = names[kind::8]
        assert max((mine == name).mean() for name in ACTIONS) < 0.3
    assert names.tolist() != [replace(scenes, seed=1).action(2 * clip) for clip in range(800)]


def test_paths_are_smooth_and_speeds_bounded() -> None:
    scenes = parse("scenes:n=8,frames=32,fps=32,things=3,size=32")
    for clip in range(8):
        frames = [scenes.scene(clip * 32 + k) for k in range(32)]
        for thing in range(3):
            poses = [f.things[thing].start for f in frames]
            places = np.array([[p.x, p.y, p.scale, p.angle] for p in poses]) * 32  # per second, once differenced
            speed = np.diff(places, axis=0)
            assert np.abs(speed[:, :2]).max() < 1.2 and np.abs(np.diff(speed[:, :3], axis=0)).max() < 0.15
        camera = np.diff([f.background.shift for f in frames], axis=0) * 32
        assert 0.001 < np.abs(camera).max() < 0.061
        for name in ("slope", "tint"):
            light = np.array([getattr(f.light, name) for f in frames])
            assert np.abs(np.diff(light, axis=0)).max() * 32 < 0.3


def test_long_clips_turn_back_and_the_chief_thing_stays_in_sight() -> None:
    scenes = parse("scenes:n=16,frames=16,fps=0.5,size=32,things=1-3,poles=1")
    turns = 0
    for clip in range(16):
        for k in range(16):
            truth, scene = scenes.truth(clip * 16 + k), scenes.scene(clip * 16 + k)
            assert truth.identities[0] == scenes.identity(clip * 16) and truth.masks[0].sum() > 0
            pose = scene.things[scene.main].start
            assert 0 < pose.x < 1 and 0 < pose.y < 1 and 0.09 < pose.scale < 0.5
        xs = [s.things[s.main].start.x for s in map(scenes.scene, range(clip * 16, clip * 16 + 16))]
        turns += len(set(np.sign(np.diff(xs)))) > 1
    assert turns > 8


@pytest.mark.parametrize("text", ["size=16,poles=1", "size=32,things=10,poles=1"])
def test_the_chief_thing_shows_in_the_smallest_clips(text: str) -> None:
    scenes = parse(f"scenes:n=60,frames=3,fps=1.5,{text}")
    for i in range(len(scenes)):
        truth = scenes.truth(i)
        assert truth.identities[0] == scenes.identity(i) and truth.masks[0].any()


def test_things_in_front_come_and_go_but_leave_the_middle_free() -> None:
    centres = (np.arange(48) + 0.5) / 48
    hidden = []
    for i in range(len(CROWD)):
        scene = replace(CROWD.scene(i), poles=())
        chief = scene.things[scene.main].start
        owner = render(scene, 48)[1]
        middle = np.hypot(centres - chief.x, centres[:, None] - chief.y) < 0.2 * chief.scale
        assert not (owner[middle] > scene.main).any()
        alone = render(replace(scene, things=(scene.things[scene.main],), main=0), 48)[1] == 0
        hidden.append(1 - (owner[alone] == scene.main).mean())
    assert max(hidden) > 0.2 and np.mean(np.array(hidden) < 0.01) > 0.1


def test_light_and_noise_change_with_the_frame_unless_switched_off() -> None:
    still, lit = parse("scenes:n=4,frames=4,light=0,noise=0"), parse("scenes:n=4,frames=4,light=1,noise=1")
    for clip in range(4):
        first, last = (still.scene(4 * clip + k).light for k in (0, 3))
        assert (first.tint, first.slope, first.direction) == (last.tint, last.slope, last.direction)
        first, last = (lit.scene(4 * clip + k).light for k in (0, 3))
        assert first.tint != last.tint and first.direction != last.direction and first.noise_seed != last.noise_seed


def test_swing_goes_to_and_fro() -> None:
    values = np.array([Swing(2.0, 0.5, 0.0, 2 * np.pi).at(t) for t in np.linspace(0, 1, 401)])
    assert values.max() == pytest.approx(2.5) and values.min() == pytest.approx(1.5)
    assert values[[0, 200, 400]] == pytest.approx(2.0) and np.argmax(values) == 100
    assert Swing(3.0).at(7.0) == 3.0


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.31, -0.17), (-9.6, 4.2)])
def test_drifting_clouds_are_the_noise_they_replace(shift: tuple[float, float]) -> None:
    lattice = np.random.default_rng(1).random((16, 16), dtype=np.float32)
    centres = np.linspace(0, 1, 30, endpoint=False, dtype=np.float32)
    columns, rows = centres - np.float32(shift[0]), centres[:20] - np.float32(shift[1])
    slow = noise(4 * columns[None, :], 4 * rows[:, None], lattice)
    assert np.abs(clouds(columns, lattice, rows) - slow).max() < 1e-4


def test_flow_is_that_of_an_explicit_loop() -> None:
    """Every pixel by complex arithmetic, with the owners and the hiding read off drawings eight times as fine."""
    wrong = seen = 0
    for i in range(0, len(CROWD), 12):
        now, then = (replace(CROWD.scene(k), poles=()) for k in (i, i + 1))
        vectors, visible = flow(now, then, 48)
        assert vectors.dtype == np.float32 and vectors.shape == (48, 48, 2) and visible.dtype == np.bool_
        owner, fine = render(now, 48)[1], render(then, 384)[1]
        for row in range(48):
            for column in range(48):
                point = complex(column + 0.5, row + 0.5) / 48
                who = owner[row, column]
                if who < 0:
                    goal = point + complex(*then.background.shift) - complex(*now.background.shift)
                else:
                    a, b = now.things[who].start, then.things[who].start
                    grown = b.scale / a.scale * cmath.exp(1j * (b.angle - a.angle))
                    goal = complex(b.x, b.y) + grown * (point - complex(a.x, a.y))
                step = 48 * (goal - point)
                assert abs(complex(*vectors[row, column].tolist()) - step) < 1e-4
                inside = 0 <= goal.real < 1 and 0 <= goal.imag < 1
                there = inside and fine[int(384 * goal.imag), int(384 * goal.real)] == who
                wrong += bool(visible[row, column]) != there
                seen += not visible[row, column]
    assert seen > 1000 and wrong < 0.003 * 12 * 48 * 48


def test_poles_flow_and_hide() -> None:
    barred = replace(CROWD, poles=1.0, things="1")
    for i in range(0, 60, 6):
        now, then = barred.scene(i), barred.scene(i + 1)
        vectors, visible = flow(now, then, 48)
        bare = flow(replace(now, poles=()), replace(then, poles=()), 48)
        pole = np.array([then.poles[0].x - now.poles[0].x, then.poles[0].y - now.poles[0].y]) * 48
        its = np.abs(vectors - pole).max(-1) < 1e-4
        free = render(replace(now, poles=()), 48)[1] >= 0
        assert its.sum() > 20 and (its & free).sum() > 0
        np.testing.assert_array_equal(vectors[~its], bare.vectors[~its])
        assert not (visible & ~bare.visible)[~its].any() and (bare.visible & ~visible)[~its].any()


def sampled(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear, at x and y in px, the middle of the first pixel being at 0.5."""
    side = len(image) - 1
    x, y = np.clip(x - 0.5, 0, side), np.clip(y - 0.5, 0, side)
    left, top = np.minimum(x.astype(int), side - 1), np.minimum(y.astype(int), side - 1)
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    above = image[top, left] * (1 - fx) + image[top, left + 1] * fx
    below = image[top + 1, left] * (1 - fx) + image[top + 1, left + 1] * fx
    return above * (1 - fy) + below * fy


def test_the_next_frame_warped_by_the_flow_is_this_frame() -> None:
    """Shadows, which do not move with what they fall on, are left out; what is left is blur at edges."""
    scenes = replace(CROWD, n=16, size=160)
    x, y = np.meshgrid(np.arange(160) + 0.5, np.arange(160) + 0.5)
    errors = []
    for clip in range(16):
        pair = [scenes.scene(6 * clip + k) for k in (2, 3)]
        pair = [replace(s, light=replace(s.light, shadow=0.0)) for s in pair]
        (vectors, visible), (now, owner), (then, _) = flow(*pair, 160), render(pair[0], 160), render(pair[1], 160)
        now, then = now.astype(float), then.astype(float)
        chief = visible & (owner == pair[0].main)
        for region in (visible, chief):
            back = sampled(then, x + vectors[..., 0], y + vectors[..., 1])
            off = sampled(then, x + vectors[..., 0] + 1, y + vectors[..., 1] + 1)
            errors.append([np.abs(other - now).mean(-1)[region].mean() for other in (back, off, then)])
    whole, chief = np.array(errors[::2]).mean(0), np.array(errors[1::2]).mean(0)
    assert whole[0] < 2.5 and whole[0] < 0.2 * whole[2] and whole[0] < 0.35 * whole[1]
    assert chief[0] < 5 and chief[0] < 0.15 * chief[2] and chief[0] < 0.4 * chief[1]


def test_flow_needs_a_next_frame() -> None:
    assert CLIPS.flow(14).vectors.shape == (64, 64, 2)
    with pytest.raises(IndexError, match="identity_0000/clip_000000/015 is the last of its clip"):
        CLIPS.flow(15)
    with pytest.raises(IndexError, match="last of its clip"):
        parse("scenes:n=5").flow(1)
    still = CLIPS.scene(3)
    vectors, visible = flow(still, still, 32)
    assert not vectors.any() and visible.all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scenes:frames=0", "frames=0 .*from 1 to"),
        ("scenes:frames=4,fps=0", "fps=0.0 .*from 0.01 to 1000"),
        ("scenes:frames=4,fps=nan", "fps=nan"),
        ("scenes:frames=many", "'frames' wants a whole number"),
        ("scenes:labels=action", "labels=action need clips; write frames=16"),
        ("scenes:frames=4,size=15", "clips need size=16 or more, not 15"),
        ("scenes:frames=4,size=31,things=1-2", "things=1-2 in clips need size=32 or more, not 31"),
        ("scenes:labels=acts", "acts"),
    ],
)
def test_bad_clips_are_refused_in_one_line(text: str, words: str) -> None:
    with pytest.raises(SeeallError, match=words) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


def test_some_actions_alone() -> None:
    world = parse("scenes:n=12,size=32,frames=4,labels=action,actions=left+right")
    names = [world.label(i) for i in range(0, len(world), 4)]
    assert set(names) == {"left", "right"} and names.count("left") == 6
    with pytest.raises(SeeallError, match="actions=left\\+rigth: did you mean right"):
        parse("scenes:n=2,size=32,frames=4,actions=left+rigth")


def test_left_and_right_are_the_same_frames_in_another_order() -> None:
    """Where the chief thing is, of all frames of all clips, says nothing about which way it goes."""
    world = parse("scenes:n=2000,size=32,frames=6,actions=left+right,poles=0")
    places: dict[str, list[float]] = {"left": [], "right": []}
    for i in range(len(world)):
        scene = world.scene(i)
        places[world.action(i)].append(scene.things[scene.main].pose(0.0).x)
    left, right = (np.sort(places[name]) for name in ("left", "right"))
    grid = np.linspace(0, 1, 50)
    apart = np.abs(np.searchsorted(left, grid) / len(left) - np.searchsorted(right, grid) / len(right)).max()
    assert apart < 0.05  # of the two distributions, by Kolmogorov and Smirnov
