"""How well the class of every pixel is known.

From the confusion matrix of all pixels of all pictures, n(t, p) of class t taken for class p:

    iou/NAME         100 · n(c, c) / (Σ_p n(c, p) + Σ_t n(t, c) - n(c, c))
    mIoU             its mean over the classes that the truth or the prediction has (Everingham et al. 2015, VOC)
    pixel_accuracy   100 · Σ_c n(c, c) / Σ n
    class_accuracy   100 · n(c, c) / Σ_p n(c, p), its mean over the classes that the truth has

Pixels whose truth is IGNORE count for nothing, whatever they are taken for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seeall.data.annotations.truth import IGNORE


@torch.no_grad()
def confusion(predicted: Tensor, truth: Tensor, classes: int) -> Tensor:
    """How many pixels of each class are taken for each. Matrices of several pictures are added up.

    predicted, truth: of one shape, such as (B, H, W), whole numbers.
    classes: K.
    Returns: (K, K) int64, rows truth, columns predicted.
    Raises: ValueError for shapes that differ, or a class that is not from 0 to K - 1.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted {(*predicted.shape,)}, truth {(*truth.shape,)}")
    counted = truth != IGNORE
    pairs = torch.stack([truth[counted].long(), predicted[counted].long()])
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < classes:
        raise ValueError(f"classes from {int(pairs.min())} to {int(pairs.max())}, want 0 to {classes - 1}")
    return (pairs[0] * classes + pairs[1]).bincount(minlength=classes**2).reshape(classes, classes)


def segmentation(confusion: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Measures of a confusion matrix.

    confusion: (K, K) as above; names: of the K classes.
    Returns: mIoU, pixel_accuracy, class_accuracy, and iou/NAME for every class that truth or prediction has, all in
        percent; nothing where no pixel was counted.
    Raises: ValueError if there are not as many names as classes.
    """
    if confusion.shape != (len(names), len(names)):
        raise ValueError(f"confusion {(*confusion.shape,)}, {len(names)} names")
    n = confusion.double()
    right, true, taken = n.diagonal(), n.sum(1), n.sum(0)
    either = true + taken - right
    occurs = either > 0
    if not bool(occurs.any()):
        return {}
    iou = 100 * right[occurs] / either[occurs]
    each = {f"iou/{name}": value for name, value in zip((x for x, o in zip(names, occurs) if o), iou.tolist())}
    return {
        "mIoU": float(iou.mean()),
        "pixel_accuracy": float(100 * right.sum() / n.sum()),
        "class_accuracy": float((100 * right[true > 0] / true[true > 0]).mean()),
        **each,
    }
