"""`all`: every row of another group."""

from __future__ import annotations


class All:
    """No choice is made; each loss has its own way of summing over everything."""
