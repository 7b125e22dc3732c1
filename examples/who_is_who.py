"""Enrol a few with three pictures each, calibrate on others, and ask who is on new pictures, strangers among them.

python examples/who_is_who.py [PICTURES [FOLDER [STEPS]]]

PICTURES has labels: a sub-folder for each person. Of these a third are enrolled, a third calibrate, a third are new.
Leaves a run and a gallery in FOLDER, which must be new or empty.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import seeall
from seeall.data.pictures import find
from seeall.index.faces.enrol import enrol, see
from seeall.ssl.pretrain import pretrain


def main(
    pictures: str = "scenes:n=1000,size=32,labels=identity,identities=60", folder: str = "", steps: str = "60"
) -> None:
    """Pretrain, enrol, calibrate, identify."""
    out, found = Path(folder or tempfile.mkdtemp(prefix="seeall-")), find(pictures)
    pretrain(pictures, out / "run", steps=int(steps), devices=1)
    labels, names = found.labels or (), found.classes()
    rows = {name: [i for i, label in enumerate(labels) if label == name] for name in names}
    third = len(names) // 3
    friends = [i for name in names[:third] for i in rows[name][:3]]
    others = [i for name in names[third : 2 * third] for i in rows[name]]
    new = [i for name in names[:third] + names[2 * third :] for i in rows[name][3:]]

    with seeall.Gallery.create(out / "gallery", out / "run") as gallery:
        enrol(gallery, found.subset(friends), None)
        seen = see(gallery, found.subset(others), None)
        gallery.calibrate(seen.vectors, seen.people, far=0.2)
        vectors = gallery.see([found.read(i) for i in new])  # any faces, (H, W, 3) uint8
        for i, matches in zip(new, gallery.identify(vectors, k=1)):
            print(f"{labels[i]}: {f'{matches[0].person}, {matches[0].score:.3f}' if matches else 'nobody I know'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
