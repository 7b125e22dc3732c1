"""A gallery from folders to names and back to nothing: enrolment, strangers, verification, removal."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import seeall
from seeall.data.decode import decode
from seeall.data.pictures import find
from seeall.index import skipped
from seeall.index.faces.enrol import ask, enrol, people_of, see
from seeall.index.faces.find import boxed
from seeall.index.faces.gallery import Gallery, Match
from seeall.index.faces.score import RULES
from seeall.index.faces.settings import Settings
from seeall.index.store import Index
from seeall.types import SeeallError
from tests.index import people

KNOWN = {"ann": 1, "bob": 2, "cyd": 3, "dee": 4}
STRANGERS = {f"stranger {n}": 10 + n for n in range(8)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """known/ of two pictures each, new/ of others of the same people, strangers/, and a gallery."""
    root = tmp_path_factory.mktemp("people")
    people.folder(root / "known", KNOWN, range(2))
    people.folder(root / "new", KNOWN, range(2, 5))
    people.folder(root / "strangers", STRANGERS, range(5))
    with Gallery.create(root / "gallery", people.network(root / "run.safetensors")) as gallery:
        enrol(gallery, find(str(root / "known")), None)
    return root


@pytest.fixture
def place(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world / "gallery", tmp_path / "gallery")
    return tmp_path / "gallery"


def calibrated(gallery: Gallery, world: Path, far: float = 0.1) -> None:
    seen = see(gallery, find(str(world / "strangers")), None)
    gallery.calibrate(seen.vectors, seen.people, far)


def test_from_python(place: Path, world: Path) -> None:
    assert seeall.Gallery is Gallery
    with seeall.Gallery.open(place) as gallery:
        assert gallery.people == dict.fromkeys(KNOWN, 2)
        calibrated(gallery, world)
        pixels = [decode(world / "new" / name / f"{name}-03.png") for name in KNOWN]
        vectors = gallery.see(pixels)
        assert vectors.shape == (4, gallery.eye.dim) and vectors.dtype == np.float32
        assert np.allclose(gallery.see(pixels[0]), vectors[:1], atol=1e-5)
        found = gallery.identify(vectors, k=1)
        assert [m[0].person for m in found] == list(KNOWN) and all(isinstance(m[0], Match) for m in found)
        assert gallery.see([]).shape == (0, gallery.eye.dim) and gallery.identify(gallery.see([])) == []


def test_rules_agree_on_who_is_who_and_a_stranger_is_nobody(place: Path, world: Path) -> None:
    with Gallery.open(place) as gallery:
        calibrated(gallery, world)
        asked = list(ask(gallery, [find(str(world / "new")), find(str(world / "strangers"))], None))
        vectors = np.stack([one.faces[0][1] for one in asked])
        for rule in RULES:
            found = gallery.identify(vectors, score=rule)
            for one, matches in list(zip(asked, found))[:12]:
                assert not matches or matches[0].person in one.path
                assert [m.score for m in matches] == sorted((m.score for m in matches), reverse=True)
            assert sum(bool(m) for m in found[:12]) >= 9
            assert sum(bool(m) for m in found[12:]) <= 4, "of 40 strangers a tenth at most"
            assert all(m.score >= gallery.threshold(rule) for matches in found for m in matches)
            assert [len(m) for m in gallery.identify(vectors, threshold=-1, score=rule)] == [4] * 52
            assert [len(m) for m in gallery.identify(vectors, k=2, threshold=-1, score=rule)] == [2] * 52
            alone = [gallery.identify(v[None], score=rule)[0] for v in vectors[:5]]
            assert alone == found[:5]


def test_an_uncalibrated_gallery_does_not_pretend(place: Path) -> None:
    with Gallery.open(place) as gallery:
        for ask_it in (lambda: gallery.identify(np.ones((1, gallery.eye.dim))),
                       lambda: gallery.verify(np.ones(gallery.eye.dim), np.ones(gallery.eye.dim))):  # fmt: skip
            with pytest.raises(SeeallError, match="not calibrated.* run `ssl faces calibrate .* --threshold"):
                ask_it()
        assert gallery.identify(np.ones((1, gallery.eye.dim)), threshold=2) == [[]]
        assert gallery.info()["calibrated"] is False


def test_calibration_is_kept_and_says_when_it_is_old(place: Path, world: Path, notes: list[str]) -> None:
    with Gallery.open(place) as other, Gallery.open(place) as gallery:
        calibrated(gallery, world)
        with Gallery.open(place) as again:
            assert again.settings == gallery.settings
        other.refresh()
        assert other.threshold() == gallery.threshold() and not notes
        made = other.settings.calibration
        assert made and (made.people, made.pictures, made.enrolled, made.enrolled_pictures) == (8, 40, 4, 8)
        assert {*made.thresholds} == {*RULES, "pair"} and made.thresholds["best"].expected <= 0.1
        gallery.index.add(["more"], np.ones((1, gallery.eye.dim)), ["eve"])
        gallery.threshold()
        assert any("4 people then and 5 now: calibrate it again" in note for note in notes)
        assert gallery.info()["changed_since"] is True


def test_calibrating_on_somebody_enrolled(place: Path, world: Path) -> None:
    with Gallery.open(place) as gallery:
        seen = see(gallery, find(str(world / "new")), None)
        with pytest.raises(SeeallError, match="'ann' is enrolled in"):
            gallery.calibrate(seen.vectors, seen.people, 0.1)
        with pytest.raises(SeeallError, match="give more than 99"):
            calibrated(gallery, world, 0.01)
        assert gallery.settings.calibration is None


def test_verify(place: Path, world: Path) -> None:
    with Gallery.open(place) as gallery:
        calibrated(gallery, world)
        a, b, c = gallery.see([decode(world / "new" / f"{p}.png") for p in ("ann/ann-02", "ann/ann-03", "bob/bob-02")])
        same, other = gallery.verify(a, b), gallery.verify(a, c)
        assert same.same and not other.same and same.threshold == other.threshold == gallery.threshold("pair")
        assert same.score == pytest.approx(float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)), abs=1e-5)
        assert gallery.verify(a, a).score == 1 and gallery.verify(a, c, threshold=-1).same


def test_enrolling_again(place: Path, world: Path, tmp_path: Path) -> None:
    """Files that are the same change nothing; others add to the person or replace; new people come."""
    own = shutil.copytree(world / "known", tmp_path / "people")
    with Gallery.open(place) as gallery:
        before = gallery.generation
        facts = enrol(gallery, find(str(world / "known")), None)
        assert (facts["enrolled"], facts["unchanged"], gallery.generation) == (0, 8, before)
        people.portrait(own / "ann" / "ann-07.png", 1, 7)
        people.portrait(own / "eve" / "deep" / "eve.png", 5, 0)
        facts = enrol(gallery, find(str(own)), None)
        assert (facts["enrolled"], facts["people"]) == (10, 5) and gallery.people["ann"] == 5
        people.portrait(own / "bob" / "bob-00.png", 9, 0)
        facts = enrol(gallery, find(str(own)), None)
        assert (facts["enrolled"], facts["replaced"], facts["unchanged"]) == (0, 1, 9)
        assert gallery.index.check() == []


def test_what_cannot_be_used_is_listed_until_it_can(place: Path, tmp_path: Path, notes: list[str]) -> None:
    root = people.folder(tmp_path / "p", {"eve": 5, "fay": 6}, range(2))
    (root / "eve" / "bad.png").write_bytes(b"")
    (root / "gus").mkdir()
    (root / "gus" / "worse.png").write_text("no picture")
    with Gallery.open(place) as gallery:
        facts = enrol(gallery, find(str(root)), None)
        assert (facts["enrolled"], facts["skipped"]) == (4, 2) and "gus" not in gallery.people
        assert [(line["person"], line["reason"]) for line in skipped.lines(place)] == [
            ("eve", "empty file"), ("gus", "not a picture that Pillow can read"),
        ]  # fmt: skip
        assert any("no picture of 'gus' can be used" in note for note in notes)
        people.portrait(root / "gus" / "worse.png", 7, 0)
        enrol(gallery, find(str(root)), None)
        assert [line["person"] for line in skipped.lines(place)] == ["eve"] and gallery.people["gus"] == 1
        gallery.remove(["eve"])
        assert not (place / "skipped.csv").exists() and "eve" not in gallery.people
        shutil.rmtree(root / "fay")
        shutil.rmtree(root / "gus")
        for file in (root / "eve").iterdir():
            file.write_bytes(b"")
        with pytest.raises(SeeallError, match=r"none of the 3 pictures can be used; the first: .*bad.png \(empty file"):
            enrol(gallery, find(str(root)), None)


def test_removed_without_a_trace(place: Path, world: Path) -> None:
    with Gallery.open(place) as gallery:
        calibrated(gallery, world)
        items = [item for item in gallery.index.items(gallery.index.ids) if item.label == "bob"]
        secrets = [b"bob", *(item.vector.tobytes() for item in items)]

        def traces() -> list[str]:
            files = [p for p in place.rglob("*") if p.is_file() and p.name != "model.safetensors"]
            return [p.name for p in files for secret in secrets if secret in p.read_bytes()]

        assert len(traces()) >= 3
        assert gallery.identify(items[0].vector[None])[0][0].person == "bob"
        with pytest.raises(SeeallError, match="'bop' is not enrolled in .*: did you mean bob"):
            gallery.remove(["ann", "bop"])
        assert gallery.remove(["bob"]) == 2 and not traces()
        assert gallery.people == {"ann": 2, "cyd": 2, "dee": 2} and gallery.index.check() == []
        assert "bob" not in [m.person for m in gallery.identify(items[0].vector[None], threshold=-1)[0]]
        gallery.remove(["ann", "cyd", "dee"])
        with pytest.raises(SeeallError, match="nobody is enrolled"):
            gallery.identify(items[0].vector[None])


def test_a_gallery_of_one_person(world: Path, tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", world / "run.safetensors", Settings(score="classifier")) as gallery:
        enrol(gallery, find(str(people.folder(tmp_path / "p", {"ann": 1}, range(1)))), None)
        calibrated(gallery, world)
        ann, bob = gallery.see([decode(world / "new" / f"{p}/{p}-02.png") for p in ("ann", "bob")])
        found = gallery.identify([ann, bob])
        assert [m.person for m in found[0]] == ["ann"] and found[1] == []


def test_a_gallery_appears_whole_or_not_at_all(world: Path, tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", world / "run.safetensors")
    assert not (tmp_path / "g").exists()
    gallery.close()
    assert list(tmp_path.iterdir()) == []


def test_finder_gives_each_face_its_own_answer(place: Path, world: Path, tmp_path: Path) -> None:
    both = Image.new("RGB", (120, 60), "grey")
    both.paste(Image.open(world / "new/ann/ann-02.png"), (10, 10))
    both.paste(Image.open(world / "new/bob/bob-02.png"), (70, 10))
    both.save(tmp_path / "both.png")

    def look(pixels: np.ndarray) -> list[list[float]]:
        return [[70, 10, 110, 50], [10, 10, 50, 50], [200, 0, 300, 9]] if pixels.shape[1] == 120 else []

    with Gallery.open(place) as gallery:
        calibrated(gallery, world)
        for name in ("plain", "broken"):
            Image.new("RGB", (50, 50)).save(tmp_path / f"{name}.png")
        (tmp_path / "broken.png").write_bytes(b"x")
        found = [find(str(tmp_path / f"{name}.png")) for name in ("plain", "both", "broken")]
        plain, two, broken = ask(gallery, found, boxed(look))
        assert (plain.faces, plain.why) == ([], "") and broken.faces == [] and broken.why
        assert [box for box, _ in two.faces] == [(10, 10, 50, 50), (70, 10, 110, 50)]
        answers = gallery.identify([v for _, v in two.faces], k=1)
        assert [m[0].person for m in answers] == ["ann", "bob"]
        both.save(people.folder(tmp_path / "p", {"eve": 5}, range(1)) / "eve" / "two.png")
        whole = boxed(lambda pixels: look(pixels) or [[0, 0, 40, 40]])
        facts = enrol(gallery, find(str(tmp_path / "p")), whole)
        assert (facts["enrolled"], facts["skipped"]) == (1, 1)
        assert skipped.lines(place)[0]["reason"] == "2 faces found: cut it to one"
        with pytest.raises(SeeallError, match="no face found"):
            enrol(gallery, find(str(world / "known")), lambda pixels: [])


def test_boxes_beyond_the_edge_and_enlarged() -> None:
    pixels = np.zeros((50, 100, 3), np.uint8)
    (face,) = boxed(lambda _: [[-5, 10, 20.4, 30]], margin=0.5)(pixels)
    assert face.box == (0, 0, 33, 40) and face.pixels.shape == (40, 33, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is damaged"), ("[]", "is damaged"), ('{"format": 9}', "reads up to 1: update seeall"),
     ('{"format": 1, "score": "best"}', "is damaged"),
     ('{"format": 1, "calibration": null, "score": "x"}', "is damaged"),
     ('{"format": 1, "calibration": {"far": 1}}', "is damaged")],
)  # fmt: skip
def test_damaged_settings(text: str, words: str, place: Path) -> None:
    (place / "gallery.json").write_text(text)
    with pytest.raises(SeeallError, match=words):
        Gallery.open(place)


def test_an_index_is_no_gallery_and_a_gallery_is_not_overwritten_by_an_index(place: Path, world: Path) -> None:
    assert json.loads((place / "gallery.json").read_text())["format"] == 1
    with pytest.raises(SeeallError, match=r"holds other files \(gallery.json\)"):
        Index.create(place, dim=2, model="m", preprocessing={}, overwrite=True)
    (place / "gallery.json").unlink()
    with pytest.raises(SeeallError, match=r"is no gallery of faces \(no gallery.json\)"):
        Gallery.open(place)
    with pytest.raises(SeeallError, match="there is no gallery at .*: make one with `ssl faces enrol`"):
        Gallery.open(world / "nowhere")


def test_who_is_who(world: Path, tmp_path: Path) -> None:
    people.portrait(tmp_path / "p" / "loose.png", 1, 0)
    people.portrait(tmp_path / "p" / "ann" / "1.png", 1, 0)
    with pytest.raises(SeeallError, match=r"loose.png lies in no sub-folder: give every person a folder"):
        people_of(find(str(tmp_path / "p")))
    (tmp_path / "list.csv").write_text("path,label\np/loose.png,zoe\n")
    assert people_of(find(str(tmp_path / "list.csv"))) == ["zoe"]
    with pytest.raises(SeeallError, match="does not say who is who"):
        people_of(find(str(tmp_path / "p" / "loose.png")))
    assert people_of(find(str(world / "known")))[:3] == ["ann", "ann", "bob"]
