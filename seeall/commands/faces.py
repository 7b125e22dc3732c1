"""`ssl faces …`: people enrolled with a few pictures each, recognised, or said to be nobody of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeall.commands.common import Json, Quiet, Seed, Wait, Workers, as_line, listen, tell
from seeall.console import log
from seeall.types import SeeallError

if TYPE_CHECKING:
    from seeall.index.faces.find import Finder
    from seeall.index.faces.gallery import Gallery

group = typer.Typer(
    help="Recognise people of whom there are a few pictures each, and say who is a stranger.",
    no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
GalleryFolder = Annotated[Path, typer.Argument(help="A gallery folder.")]
Folder = Annotated[str, typer.Option(help="A folder with a sub-folder for each person, or a manifest with labels.")]
Find = Annotated[
    str | None,
    typer.Option(help="none: pictures are faces already; opencv; or a run of --task detection. Else as enrolled."),
]
Score = Annotated[str | None, typer.Option(help="best, mean or classifier; else the gallery's own.")]
Least = Annotated[
    float | None, typer.Option("--threshold", help="Accept from this score on; else what was calibrated.")
]
SURE = 0.5
"""How sure a detector must be of a face."""


@group.command("enrol")
def faces_enrol(
    gallery: GalleryFolder,
    folder: Folder,
    run: Annotated[
        Path | None, typer.Option(help="The run whose backbone sees the faces: needed the first time.")
    ] = None,
    find: Find = None,
    score: Score = None,
    workers: Workers = 0,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a gallery of people, or add people and pictures to it."""
    listen(quiet)
    from seeall.data import pictures as data
    from seeall.index.faces.enrol import enrol, people_of
    from seeall.training.run import refuse_inside

    pictures = data.find(folder)
    refuse_inside(gallery, pictures.root, "GALLERY")
    people_of(pictures)
    opened, finder = _opened(gallery, find, score, wait=wait) if _there(gallery) else _begun(gallery, run, find, score)
    with opened:
        if run is not None:
            from seeall.backbones.load import digest

            opened.index.require_model(digest(run))
        tell(enrol(opened, pictures, finder, workers=workers), json_)


@group.command("identify")
def faces_identify(
    gallery: GalleryFolder,
    pictures: Annotated[list[str], typer.Argument(help="Pictures, folders or manifests.")],
    k: Annotated[int, typer.Option("-k", help="At most so many people a face.")] = 5,
    threshold: Least = None,
    score: Score = None,
    find: Find = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say who is on pictures: a line for each face, best first; nobody where it is a stranger."""
    listen(quiet)
    from seeall.data import pictures as data
    from seeall.index.faces.enrol import ask

    _mind(threshold)
    opened, finder = _opened(gallery, find)
    with opened:
        if threshold is None:
            threshold = opened.threshold(score)  # before anything is looked at
        asked = list(ask(opened, [data.find(text) for text in pictures], finder))
        matches = iter(
            opened.identify([v for one in asked for _, v in one.faces], k, threshold=threshold, score=score)
        )  # fmt: skip
        lines = [line for one in asked for line in _lines(one, matches)]
    unreadable = [one for one in asked if one.why]
    if unreadable:
        first = ", ".join(f"{one.path} ({one.why})" for one in unreadable[:3])
        if len(unreadable) == len(asked):
            raise SeeallError(f"none of the {len(asked)} pictures can be read: {first}; mend them or give others")
        log.warning("%d of %d pictures cannot be read: %s", len(unreadable), len(asked), first)
    for line in lines:
        print(as_line(line) if json_ else _words(line))


@group.command("verify")
def faces_verify(
    gallery: GalleryFolder,
    a: Annotated[str, typer.Argument(help="A picture.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    threshold: Least = None,
    find: Find = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether two pictures show the same person, by the network and the threshold of a gallery."""
    listen(quiet)
    from seeall.data import pictures as data
    from seeall.index.build import look
    from seeall.index.faces.find import one_each

    _mind(threshold)
    opened, finder = _opened(gallery, find)
    with opened:
        found = [one_each(data.find(text), finder) for text in (a, b)]
        several = next((text for text, some in zip((a, b), found) if len(some) != 1), None)
        if several is not None:
            raise SeeallError(f"{several}: holds several pictures: give two pictures")
        first, second = (look(some, opened.eye)[0].numpy() for some in found)
        verdict = opened.verify(first, second, threshold=threshold)
    facts = {"a": a, "b": b, "same": verdict.same, "score": verdict.score, "threshold": verdict.threshold}
    tell(facts if json_ else _fine(facts), json_)


@group.command("remove")
def faces_remove(
    gallery: GalleryFolder,
    people: Annotated[list[str], typer.Argument(help="Names, as `ssl faces list` prints them.")],
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove people, and every trace of them in the gallery's files."""
    listen(quiet)
    opened, _ = _opened(gallery, finding=False, wait=wait)
    with opened:
        removed = opened.remove(list(dict.fromkeys(people)))
        left = opened.people
        tell({"removed": removed, "people": len(left), "pictures": sum(left.values())}, json_)


@group.command("calibrate")
def faces_calibrate(
    gallery: GalleryFolder,
    folder: Folder,
    far: Annotated[float, typer.Option(help="How often a stranger may be taken for somebody.")] = 0.01,
    find: Find = None,
    workers: Workers = 0,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the threshold at which strangers are taken for somebody at a rate, by people who are not enrolled."""
    listen(quiet)
    from seeall.data import pictures as data
    from seeall.index.faces.enrol import see, tell_skipped
    from seeall.index.faces.gallery import calibration_facts

    opened, finder = _opened(gallery, find, wait=wait)
    with opened:
        seen = see(opened, data.find(folder), finder, workers=workers)
        tell_skipped(seen)
        opened.calibrate(seen.vectors, seen.people, far)
        found = calibration_facts(opened.settings, opened.generation)
    log.info(
        "a stranger's picture is taken for somebody with a chance of %.2g; the rate lies between %.2g and %.2g, by %d"
        " pictures of %d people, which tell as much as %.0f that have nothing to do with each other",
        found["far_expected"], found["far_low"], found["far_high"], found["stranger_pictures"], found["strangers"],
        found["independent_pictures"],
    )  # fmt: skip
    if found["far_high"] > 2 * far:
        log.warning("the rate may be %.2g: more people would tell it better", found["far_high"])
    tell(found if json_ else _fine(found), json_)


@group.command("evaluate")
def faces_evaluate(
    gallery: GalleryFolder,
    folder: Folder,
    html: Annotated[Path | None, typer.Option(help="Write a page that shows mistakes, NAME.html.")] = None,
    score: Score = None,
    find: Find = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page of --html.")] = False,
    workers: Workers = 0,
    seed: Seed = 0,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """How well people are told from each other and from strangers: those of FOLDER who are not enrolled."""
    listen(quiet)
    from seeall.data import pictures as data
    from seeall.html import refuse
    from seeall.index.faces.enrol import see, tell_skipped
    from seeall.index.faces.evaluate import evaluate, page

    refuse(html, overwrite)
    opened, finder = _opened(gallery, find)
    with opened:
        seen = see(opened, data.find(folder), finder, workers=workers)
        tell_skipped(seen)
        found = evaluate(opened, seen, rule=score, seed=seed)
        if html:
            page(html, opened, found)
            log.info("wrote %s", html)
    tell(found.figures, json_)


@group.command("list")
def faces_list(gallery: GalleryFolder, json_: Json = False) -> None:
    """Who is enrolled, and with how many pictures."""
    opened, _ = _opened(gallery, finding=False)
    with opened:
        people = opened.people
    if json_:
        for person, pictures in people.items():
            print(as_line({"person": person, "pictures": pictures}))
    else:
        tell(people, False) if people else print("nobody")


@group.command("info")
def faces_info(gallery: GalleryFolder, json_: Json = False) -> None:
    """What a gallery holds, and what it was calibrated on."""
    opened, _ = _opened(gallery, finding=False)
    with opened:
        facts = opened.info()
    tell(facts if json_ else _fine(facts), json_)


def _there(gallery: Path) -> bool:
    """Whether something is there already; a folder with nothing in it is nothing."""
    return gallery.exists() and (not gallery.is_dir() or any(gallery.iterdir()))


def _begun(gallery: Path, run: Path | None, find: str | None, score: str | None) -> tuple[Gallery, Finder | None]:
    from seeall.index.faces.gallery import Gallery
    from seeall.index.faces.score import check
    from seeall.index.faces.settings import Settings

    if run is None:
        raise SeeallError(
            f"there is no gallery at {gallery} yet: to make one, give the --run whose backbone sees faces"
        )
    name, where = _named(find or "none")
    settings = Settings(score=check(score or "best"), find=name, find_run=where)
    finding = finder(name, where)
    return Gallery.create(gallery, run, settings), finding


def _mind(threshold: float | None) -> None:
    if threshold is not None and not math.isfinite(threshold):
        raise SeeallError(f"--threshold {threshold}: choose a number, such as 0.6")


def _opened(
    gallery: Path, find: str | None = None, score: str | None = None, *, finding: bool = True, wait: bool = False
) -> tuple[Gallery, Finder | None]:
    """A gallery, and how faces are found in its pictures. score: its rule from now on."""
    from seeall.index.faces.gallery import Gallery

    opened = Gallery.open(gallery, wait=wait)
    try:
        settings = opened.settings
        if score is not None and score != settings.score:
            opened.prefer(score)
        if not finding:
            return opened, None
        name, where = settings.find, settings.find_run
        if find is not None or where is not None:
            name, where = _named(find or str(where))
        if name != settings.find:
            raise SeeallError(
                f"the gallery {gallery} was made with --find {settings.find_run or settings.find}, and what is cut out"
                f" otherwise looks otherwise: leave --find {find or where} out, or enrol the people in a new gallery"
            )
        return opened, finder(name, where)
    except BaseException:
        opened.close()
        raise


def _named(find: str) -> tuple[str, str | None]:
    """What a gallery remembers of a way to find faces: its name, or the digest of a head and where that is."""
    if find in ("none", "opencv"):
        return find, None
    import hashlib

    from seeall.heads import build

    path = Path(find)
    if not path.exists():
        raise SeeallError(f"--find {find}: neither none nor opencv, and there is no run of that name")
    recipe = build.describe(path)
    if recipe.task not in ("detection", "instance"):
        raise SeeallError(f"--find {find}: its head is for {recipe.task}; it takes one of --task detection")
    file = path if path.is_file() else path / build.HEAD_FILE
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16], str(path.absolute())


def finder(name: str, where: str | None) -> Finder | None:
    """What finds faces, by what a gallery remembers of it: a name and a head's folder; None: pictures are faces."""
    if name == "none":
        return None
    from seeall.index.faces.find import boxed, opencv

    return opencv() if where is None else boxed(_detector(Path(where)))


def _detector(run: Path) -> Callable[[Any], Any]:
    """Pixels (H, W, 3) uint8 → boxes of what a head finds: of its class face, if it has one, else of all."""
    import torch

    from seeall.heads import build

    head, recipe = build.load(run)
    wanted = next((i for i, name in enumerate(recipe.classes) if name.lower() == "face"), None)

    def look(pixels: Any) -> Any:
        found = head.predict([torch.from_numpy(pixels.copy()).movedim(-1, 0)])[0].found  # type: ignore[operator]
        kept = found.scores >= SURE
        return found.boxes[kept if wanted is None else kept & (found.classes == wanted)].tolist()

    return look


def _lines(one: Any, matches: Any) -> list[dict[str, Any]]:
    """What is said of a picture: a line for each face, or one that there is none."""
    if one.why:
        return [{"query": one.path, "matches": [], "error": one.why}]
    if not one.faces:
        return [{"query": one.path, "matches": [], "faces": 0}]
    return [
        {
            "query": one.path,
            **({"box": list(box)} if box else {}),
            "matches": [{"person": m.person, "score": round(m.score, 6)} for m in next(matches)],
        }
        for box, _ in one.faces
    ]


def _fine(facts: dict[str, Any]) -> dict[str, Any]:
    """The same with rates and scores to four places."""
    return {name: f"{value:.4f}" if isinstance(value, float) else value for name, value in facts.items()}


def _words(line: dict[str, Any]) -> str:
    place = f" at {','.join(map(str, line['box']))}" if "box" in line else ""
    nobody = line.get("error") or ("no face found" if "faces" in line else "unknown")
    found = [f"  {match['score']:.4f}  {match['person']}" for match in line["matches"]]
    return "\n".join([f"{line['query']}{place}", *(found or [f"  {nobody}"])])
