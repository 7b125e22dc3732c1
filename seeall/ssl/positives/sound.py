"""`sound`: a picture and what was heard with it belong together; every such pair is a group of its own.

Look, listen and learn (Arandjelović and Zisserman 2017, arXiv:1705.08168) and "Objects that Sound" (2018,
arXiv:1712.06651). Departure: they ask of a picture and a sound whether they correspond; here both are rows of the same
batch, and any objective may draw pairs together and push the rest apart. A sound's window is chosen by the sound's own
key, whatever picture it is held against: see `seeall.data.pairs`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from seeall.data.hearing import Heard
from seeall.data.pictures import Pictures
from seeall.ssl.listening import Listening
from seeall.ssl.positives.belonging import Belonging
from seeall.types import SeeallError


def sound(
    pictures: Pictures, seed: int, *, seconds: float = 1.0, rate: int = 16000, mels: int = 64, width: int = 32
) -> Belonging:
    """seconds: of a window · rate: Hz, that sounds are brought to · mels: bands of the spectrogram · width: of the
    network that hears; see `backbones.hearing`

    Raises: SeeallError where pictures have no sounds, or a setting is out of range.
    """
    if not 0.05 <= seconds <= 60:
        raise SeeallError(f"setting 'seconds' is {seconds}: choose from 0.05 to 60; 1 is usual")
    heard = Heard.of(pictures, seed, rate, round(seconds * rate))
    numbers = torch.arange(len(pictures))
    ears: Callable[..., Listening] = functools.partial(
        Listening, rate=rate, samples=heard.length, mels=mels, width=width
    )
    ears(lambda dim: torch.nn.Identity())  # finds fault with the settings, if there is any

    def hear(rows: Tensor, epoch: int) -> Tensor:
        return heard(rows.tolist(), epoch)

    return Belonging(lambda epoch: numbers, hear=hear, ears=ears, prepare=heard.read)
