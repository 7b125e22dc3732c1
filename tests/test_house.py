"""The rules of the house that a machine can hold: layers, names, start-up."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import seeall

PACKAGE = Path(seeall.__file__).parent
LAYERS = [
    {"", "types", "catalog", "combinations", "console", "durable", "html"},
    {"data", "backbones", "metrics"},
    {"training"},
    {"ssl", "heads", "index"},
    {"cli", "commands", "demo", "doctor", "__main__"},
]
WORD = {name: height for height, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(parts: tuple[str, ...]) -> str:
    return parts[0].removesuffix(".py") if parts and parts[0] != "__init__.py" else ""


def imported(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            found += [node.module or ""] + [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_layers(file: Path) -> None:
    """A file imports only from its own room and from layers below; pillars never import each other."""
    own = room(file.relative_to(PACKAGE).parts)
    for name in imported(ast.parse(file.read_text())):
        if name.split(".")[0] == "seeall":
            other = name.split(".")[1] if "." in name else ""
            other = other if other in WORD else ""
            assert other == own or WORD[other] < WORD[own] or (WORD[other] == WORD[own] and other not in LAYERS[3]), (
                f"{file.name} imports {name}"
            )


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_rooms_are_small_and_say_what_they_are(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 420
    assert ast.get_docstring(ast.parse(text)), f"{file} does not say what it is"


def test_lightning_fabric_has_one_user() -> None:
    users = [f.name for f in FILES if any(n.startswith("lightning") for n in imported(ast.parse(f.read_text())))]
    assert users == ["engine.py"]


def test_import_ssl_is_the_standard_library() -> None:
    code = "import ssl; assert ssl.OPENSSL_VERSION and 'seeall' not in ssl.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, check=True)


def test_the_command_line_imports_no_torch() -> None:
    code = "import sys, seeall.cli, seeall.catalog; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lazy_names() -> None:
    from seeall.index.store import Index

    assert seeall.Index is Index
    assert callable(seeall.load)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seeall.nothing
