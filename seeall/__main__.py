"""`python -m seeall` is the `ssl` command."""

from seeall.cli import app

app()
