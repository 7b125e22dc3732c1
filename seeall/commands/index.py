"""`ssl index …` and `ssl search`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seeall.commands import index_uses
from seeall.commands.common import (
    AllowSkipped,
    Data,
    Gpu,
    IndexFolder,
    Json,
    Limit,
    Overwrite,
    Quiet,
    Wait,
    Workers,
    as_line,
    listen,
    tell,
)
from seeall.console import log
from seeall.types import SeeallError

if TYPE_CHECKING:
    from seeall.index.plan import Plan

group = typer.Typer(help="Build and keep a searchable index of pictures.", no_args_is_help=True, rich_markup_mode=None)


Structure = Annotated[
    str, typer.Option(help="auto, exact, exact-fp16, exact-int8, ivf, ivf-pq or hnsw: how it is searched.")
]
Recall = Annotated[
    float | None,
    typer.Option(help="Of the true ten nearest, how many are to be found: 0.95, say, and as fast as that allows."),
]
Memory = Annotated[str | None, typer.Option(help="What searching may take: 500MB, 2GB.")]


@group.command("build")
def index_build(
    data: Data,
    run: Annotated[Path, typer.Option(help="The run whose backbone sees the pictures.")],
    out: Annotated[Path, typer.Option(help="The index folder to write.")],
    structure: Structure = "auto",
    recall: Recall = None,
    memory: Memory = None,
    store: Annotated[
        str | None, typer.Option(help="Keep vectors and items in Milvus: milvus:http://HOST:19530, milvus:FILE.db.")
    ] = None,
    limit: Limit = None,
    workers: Workers = 0,
    overwrite: Overwrite = False,
    allow_skipped: AllowSkipped = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Embed pictures and build an index of them, or build one of FILE.npy as `ssl embed` writes it."""
    listen(quiet)
    from seeall.data.pictures import find
    from seeall.index.build import build
    from seeall.index.plan import Plan, amount

    plan = Plan(structure, recall, amount(memory))
    if data.endswith(".npy"):
        from seeall.index.features import build_from

        tell(build_from(Path(data), run, out, limit=limit, overwrite=overwrite, plan=plan, store=store), json_)
        return
    pictures = find(data, limit=limit)
    report = build(
        pictures, run, out, workers=workers, overwrite=overwrite, allow_skipped=allow_skipped, plan=plan, store=store
    )
    if store is None:
        _mind_the_few(plan, report["count"])
    tell(report, json_)


def _mind_the_few(plan: Plan, count: int) -> None:
    """Say it where what was asked for is not done, since there are too few items for it to matter."""
    from seeall.index.plan import SMALL

    asked = plan.structure not in ("auto", "exact") or plan.recall is not None or plan.memory is not None
    if asked and count < SMALL:
        log.warning("below %d items search is exact, whatever is asked for", SMALL)


@group.command("add")
def index_add(
    index: IndexFolder,
    data: Data,
    run: Annotated[Path | None, typer.Option(help="Not needed; checked against the index if given.")] = None,
    workers: Workers = 0,
    allow_skipped: AllowSkipped = False,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add pictures; those that are there and have changed since are replaced."""
    listen(quiet)
    from seeall.data.pictures import find
    from seeall.index.build import add, eye_of
    from seeall.index.stores import open_store

    with open_store(index, wait=wait) as opened:
        eye = eye_of(opened, run)
        skipped = add(opened, find(data), eye, workers=workers, allow_skipped=allow_skipped)
        tell({**opened.info(), "skipped": len(skipped)}, json_)


@group.command("sync")
def index_sync(
    index: IndexFolder,
    data: Data,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    remove_vanished: Annotated[
        bool, typer.Option("--remove-vanished", help="Remove pictures from the index whose files are gone.")
    ] = False,
    workers: Workers = 0,
    allow_skipped: AllowSkipped = False,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an index agree with a folder: add what is new, see again what has changed, name what is gone."""
    listen(quiet)
    from seeall.data.pictures import find
    from seeall.index.build import eye_of
    from seeall.index.stores import open_store
    from seeall.index.sync import bring

    pictures = find(data)
    with open_store(index, wait=wait) as opened:
        report = bring(
            opened, pictures, lambda: eye_of(opened), workers=workers, allow_skipped=allow_skipped,
            vanished=True, remove=remove_vanished, dry=dry_run,
        )  # fmt: skip
        facts = opened.info()
    counts = {**vars(report), "vanished": len(report.vanished), "skipped": len(report.skipped)}
    if not json_:
        print("".join(f"gone: {path}\n" for path in report.vanished), end="")
    lists = {"vanished_paths": report.vanished} if json_ else {}
    tell({**counts, "count": facts["count"], "generation": facts["generation"], **lists}, json_)


@group.command("remove")
def index_remove(
    index: IndexFolder,
    items: Annotated[
        list[str] | None,
        typer.Argument(help="Ids, paths as `search` prints them, or whole folders and films.", show_default=False),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Instead: all for which a condition holds, such as \"label = 'blurred'\".")
    ] = None,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove pictures from an index; the files themselves stay."""
    listen(quiet)
    from seeall.index.stores import open_store

    if bool(items) == (where is not None):
        raise SeeallError("give either what is to be removed, or --where and a condition")
    with open_store(index, wait=wait) as opened:
        if where is not None:
            chosen = opened.select(where).tolist()
        else:
            chosen = [item for text in items or () for item in _items(opened, text)]
        removed = opened.remove(chosen) if chosen else 0
        tell({"removed": removed, "count": len(opened)}, json_)


def _items(index: Any, text: str) -> list[int | str]:
    """What is typed: an id, or a path, as stored or from here, of an item, of a folder of them, or of a film."""
    from seeall.index.known import below

    if text.isascii() and text.isdecimal():
        return [int(text)]
    if text in index or not text:
        return [text]
    here = str(Path(text).absolute())
    return [here] if here in index else [*(below(index, text) or below(index, here))] or [here]


@group.command("tune")
def index_tune(
    index: IndexFolder,
    structure: Structure = "auto",
    recall: Recall = None,
    memory: Memory = None,
    wait: Wait = False,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose anew how an index is searched: exactly, or faster, or in less memory."""
    listen(quiet)
    from seeall.index.plan import Plan, amount
    from seeall.index.store import Index

    with Index.open(index, wait=wait) as opened:
        plan = Plan(structure, recall, amount(memory))
        opened.tune(plan)
        _mind_the_few(plan, len(opened))
        tell(opened.info(), json_)


@group.command("info")
def index_info(index: IndexFolder, json_: Json = False) -> None:
    """What an index holds."""
    from seeall.index.stores import open_store

    with open_store(index) as opened:
        tell(opened.info(), json_)


@group.command("check")
def index_check(
    index: IndexFolder,
    repair: Annotated[bool, typer.Option("--repair", help="Make again what can be made from the vectors.")] = False,
    wait: Wait = False,
    json_: Json = False,
) -> None:
    """Compare everything in an index with its checksums and counts; exit code 1 where something is wrong."""
    from seeall.index.manifest import Manifest
    from seeall.index.repair import repair as mend
    from seeall.index.stores import open_store

    if repair:
        done, problems = mend(index.resolve(), wait=wait)
        notes = [f"repaired: {line}" for line in done]
        problems = [f"cannot be repaired: {line}" for line in problems]
    else:
        try:
            with open_store(index) as opened:
                problems, notes = opened.check(), opened.notes()
        except SeeallError as error:
            Manifest.read(index.resolve())  # where there is no index at all, that is said as everywhere
            problems, notes = [str(error)], []
    if json_:
        print(json.dumps({"problems": problems, "notes": notes}))
    else:
        print("\n".join([*problems, *notes]) if problems or notes else "clean")
    raise typer.Exit(1 if problems else 0)


@group.command("compact")
def index_compact(index: IndexFolder, wait: Wait = False, json_: Json = False, quiet: Quiet = False) -> None:
    """Give back the room of removed pictures."""
    listen(quiet)
    from seeall.index.store import Index

    with Index.open(index, wait=wait) as opened:
        tell({"dropped": opened.compact(), **opened.info()}, json_)


group.command("duplicates")(index_uses.duplicates)
group.command("clusters")(index_uses.clusters)
group.command("outliers")(index_uses.outliers)
group.command("export")(index_uses.export)
group.command("merge")(index_uses.merge)


def search(
    index: IndexFolder,
    images: Annotated[
        list[str], typer.Argument(help="Pictures or folders to find look-alikes of, or ids in the index.")
    ],
    k: Annotated[int, typer.Option("-k", help="How many look-alikes.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help="Only items of which this holds: \"year >= 2020 and label in ('cat', 'dog')\"."),
    ] = None,
    together: Annotated[bool, typer.Option("--together", help="All pictures are one query: what they share.")] = False,
    box: Annotated[str | None, typer.Option(help="Only this region of the picture: x1,y1,x2,y2 in px.")] = None,
    run: Annotated[Path | None, typer.Option(help="Not needed; checked against the index if given.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails, NAME.html.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the page of --html.")] = False,
    gpu: Gpu = "auto",
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find look-alikes of pictures in an index."""
    listen(quiet)
    from seeall.html import refuse
    from seeall.index.query import page, search

    refuse(html, overwrite)
    results = search(index, images, k, run=run, gpu=gpu, where=where, together=together, box=box)
    if html:
        page(html, index, results)
        log.info("wrote %s", html)
    for result in results:
        if json_:
            print(as_line(result))
        else:
            print(result["query"])
            for match in result["matches"]:
                print(f"  {match['score']:.4f}  {match['id']:>8}  {match['path']}  {match['label'] or ''}".rstrip())
