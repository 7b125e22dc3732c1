"""The page at /, and the one that lists what can be asked: each one file, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("page.html")
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
)


def policy(text: str) -> str:
    """The Content-Security-Policy under which the scripts and styles in `text` run, and nothing else does."""
    scripts, styles = (_hashes(text, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hashes(text: str, tag: str) -> str:
    inner = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in inner]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def documentation(schema: Mapping[str, Any]) -> str:
    """A page that lists the routes of an OpenAPI schema."""
    parts = []
    for path, ways in schema["paths"].items():
        for way, about in ways.items():
            asked = "".join(
                f"<li><code>{html.escape(p['name'])}</code> {html.escape(p.get('description', ''))}</li>"
                for p in about.get("parameters", [])
            )
            sent = ", ".join(about.get("requestBody", {}).get("content", {}))
            told = ", ".join(about["responses"])
            parts.append(
                f"<h2><code>{way.upper()} {html.escape(path)}</code></h2><p>{html.escape(about.get('description', ''))}"
                f"</p><ul>{asked}{f'<li>body: {html.escape(sent)}</li>' if sent else ''}<li>answers: {told}</li></ul>"
            )
    title = html.escape(schema["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>Exactly, for programs: '
        f'<a href="/openapi.json">/openapi.json</a></p>{"".join(parts)}'
    )  # fmt: skip
