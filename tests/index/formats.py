"""Manifests as other programs wrote them."""

import json
from pathlib import Path
from typing import Any

from seeall.index import manifest as manifests


def rewrite(root: Path, without: str, format: int = manifests.FORMAT, **change: Any) -> None:
    """Change the manifest as another program would, and take a field out."""
    body = json.loads((root / "manifest.json").read_text()) | change
    body = {key: value for key, value in body.items() if key not in ("format", "checksum", without)}
    text = json.dumps({"format": format, "checksum": manifests._checksum(body), **body})
    (root / "manifest.json").write_text(text)


def older(root: Path, format: int) -> None:
    """Make the manifest one of an older format."""
    body = json.loads((root / "manifest.json").read_text())
    change = {"ivf_from": body["plan"]["exact_below"]}
    if trained := body["projection"]:
        kept = ("path", "rows", "count", "recall", "sha256", *(["bytes"] if format > 1 else []))
        change["projection"] = {**{name: trained[name] for name in kept}, "nlist": 99, **trained["search"]}
    rewrite(root, "plan", format, **change)
    if format == 1:
        rewrite(root, "uuid", format)
