"""Learn from pictures that nobody labelled, index them, and look for the look-alikes of one.

python examples/learn_and_search.py [PICTURES [FOLDER [STEPS]]]

Leaves a run, an index and a page to look at in FOLDER, which must be new or empty.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import seeall
from seeall.data.pictures import find
from seeall.index.build import build
from seeall.index.query import page, search
from seeall.ssl.pretrain import pretrain


def main(pictures: str = "scenes:n=1000,size=32", folder: str = "", steps: str = "60") -> None:
    """Pretrain, index, search."""
    out = Path(folder or tempfile.mkdtemp(prefix="seeall-"))
    pretrain(pictures, out / "run", steps=int(steps), devices=1)
    facts = build(find(pictures), out / "run", out / "index")
    print(f"{facts['count']} pictures of {facts['dim']} dimensions in {out / 'index'}")

    results = search(out / "index", ["1"], k=5)  # a query is a picture file, a folder, or an item's number
    page(out / "page.html", out / "index", results)

    with seeall.Index.open(out / "index") as index:  # the same from vectors, without files
        ids, scores = index.search(index.get(1).vector, 5)
        for item, score in zip(index.items(ids[0].tolist()), scores[0]):
            print(f"{score:.3f}  {item.path}  {item.label or ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
