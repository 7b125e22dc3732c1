"""A plain network for small pictures: five convolutions, strides 2 and 4, a map that is still fine.

After the keypoint network of Transporter (Kulkarni et al. 2019, arXiv:1906.11883), with two departures that make it
several times cheaper: the first convolution halves already, by a kernel of 5 × 5, and there are five, not six.
"""

from __future__ import annotations

from torch import nn
from torchvision.ops import Conv2dNormActivation

from seeall.backbones.contract import Backbone, one_by_one
from seeall.types import SeeallError


def plain(*, width: int = 32) -> Backbone:
    """104,000 parameters at a width of 32; each place of its last map sees 29 px of the picture.

    width: channels at stride 2; twice as many at stride 4

    Raises: SeeallError for a width below 1.
    """
    return Backbone(layers(width), one_by_one, channels=(width, 2 * width), strides=(2, 4), embed_dim=2 * width)


def layers(width: int) -> nn.Sequential:
    """Two stages, which halve once each. Raises SeeallError for a width below 1."""
    if width < 1:
        raise SeeallError(f"setting 'width' is {width}: choose 1 or more")
    return nn.Sequential(
        nn.Sequential(Conv2dNormActivation(3, width, 5, 2), Conv2dNormActivation(width, width)),
        nn.Sequential(
            Conv2dNormActivation(width, 2 * width, 3, 2), *(Conv2dNormActivation(2 * width, 2 * width) for _ in "12")
        ),
    )
