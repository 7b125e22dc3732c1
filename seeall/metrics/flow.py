"""How far a field of flow is from the true one.

With the end-point error e = ‖said - true‖₂ of each pixel whose flow is known, px:

    EPE              its mean over all pixels of all pairs (Baker et al. 2011)
    EPE/0-10, …      over those whose true flow is 0 to 10, 10 to 40, 40 and more px long (Butler et al. 2012, Sintel)
    EPE/hidden       over those that cannot be seen in the second frame, where that is known
    Fl               100 · the share with e > 3 px and e > 0.05 · ‖true‖₂ (Menze and Geiger 2015, KITTI)
    zero             EPE of saying that nothing moves
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

SPEEDS = ((0, 10), (10, 40), (40, np.inf))
"""Bounds, px, the lower one included."""
_OUT, _OUT_SHARE = 3.0, 0.05

Measured = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_] | None]
"""said (H, W, 2), true (H, W, 2), px; known (H, W), and hidden (H, W) where that is known."""


def flow(pairs: Iterable[Measured]) -> dict[str, float]:
    """The measures above by name; groups without a pixel are left out, and nothing is said where no pixel is known.

    Raises: ValueError for shapes that differ.
    """
    sums: dict[str, tuple[float, int]] = {}

    def add(name: str, values: NDArray[np.float64]) -> None:
        total, count = sums.get(name, (0.0, 0))
        sums[name] = total + float(values.sum()), count + len(values)

    for said, true, known, hidden in pairs:
        if said.shape != true.shape or known.shape != true.shape[:2]:
            raise ValueError(f"said {said.shape}, true {true.shape}, known {known.shape}")
        errors = errors_of(said, true)[known]
        lengths = np.sqrt((true.astype(np.float64) ** 2).sum(-1))[known]
        add("EPE", errors)
        for low, high in SPEEDS:
            name = f"EPE/{low}-{high}" if high < np.inf else f"EPE/{low}+"
            add(name, errors[(lengths >= low) & (lengths < high)])
        if hidden is not None:
            add("EPE/hidden", errors[hidden[known]])
        add("Fl", 100.0 * ((errors > _OUT) & (errors > _OUT_SHARE * lengths)))
        add("zero", lengths)
    return {name: total / count for name, (total, count) in sums.items() if count}


def errors_of(said: NDArray[np.float32], true: NDArray[np.float32]) -> NDArray[np.float64]:
    """(…, H, W, 2) each, px → end-point errors (…, H, W), px."""
    errors: NDArray[np.float64] = np.sqrt(((said.astype(np.float64) - true) ** 2).sum(-1))
    return errors
