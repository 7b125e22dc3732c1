"""Ears beside the eyes: sound → z, in the space where the objective compares it with pictures; kept with the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from seeall import durable
from seeall.backbones.hearing import hearing
from seeall.backbones.load import load as load_backbone
from seeall.data.hearing import Heard
from seeall.data.pictures import Pictures
from seeall.data.pixels import NAMED
from seeall.data.sound import LogMel, normalised
from seeall.ssl.projector import projector
from seeall.training.embed import Eye
from seeall.types import SeeallError

FILE = "hearing.safetensors"
_BATCH = 256


class Listening(nn.Module):
    """Sound (B, samples) at `rate` Hz → z: log-mel spectrogram, the small network that hears, a projector.

    head: dimensions of what it hears → the projector to the objective's space
    """

    def __init__(
        self, head: Callable[[int], nn.Module], *, rate: int, samples: int, mels: int = 64, width: int = 32
    ) -> None:
        super().__init__()
        self.settings = {"rate": rate, "samples": samples, "mels": mels, "width": width}
        self.spectrogram = LogMel(rate=rate, n_fft=rate // 32, hop=rate // 64, mels=mels)
        self.encoder = hearing(width=width)
        self.projector = head(self.encoder.embed_dim)

    def forward(self, sound: Tensor) -> Tensor:
        """(B, samples) float → (B, D)."""
        z: Tensor = self.projector(self.encoder(normalised(self.spectrogram(sound))))
        return z


def keep(folder: Path, eyes: nn.Module, ears: Listening, settings: Mapping[str, Any]) -> None:
    """Write the ears and the pictures' projector, whose `settings` both share, into a run folder."""
    tensors = {f"eyes.{k}": v for k, v in eyes.state_dict().items()}
    tensors |= {f"ears.{k}": v for k, v in ears.state_dict().items()}
    header = {"ears": json.dumps(ears.settings), "projector": json.dumps(dict(settings))}
    content = serialise({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, header)
    durable.save(folder / FILE, lambda file: file.write(content))


class Together:
    """A run's eyes and ears, both looking into one space."""

    def __init__(self, eye: Eye, eyes: nn.Module, ears: Listening) -> None:
        self.eye, self.eyes, self.ears = eye, eyes.to(eye.device).eval(), ears.to(eye.device).eval()

    @classmethod
    def of(cls, run: Path) -> Together:
        """Raises: SeeallError where the run has not learnt from sound, or its file is damaged."""
        if not (run / FILE).exists():
            raise SeeallError(f"{run}: has not learnt from sound; pretrain with --positives sound")
        backbone = load_backbone(run)
        try:
            with safe_open(run / FILE, "pt") as file:
                header = file.metadata()
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            settings = json.loads(header["projector"])
            ears = Listening(lambda dim: projector(dim, **settings), **json.loads(header["ears"]))
            eyes = projector(backbone.embed_dim, **settings)
            for part, name in ((eyes, "eyes."), (ears, "ears.")):
                part.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as fault:
            raise SeeallError(f"{run / FILE}: damaged: {str(fault).splitlines()[0]}") from None
        return cls(Eye(backbone), eyes, ears)

    @torch.no_grad()
    def see(self, pictures: Pictures) -> tuple[Tensor, list[int]]:
        """z (n, D) of the pictures that can be read, and their rows."""
        z, rows = self.eye.see_all(pictures)
        return self._all(z, self.eyes), rows

    @torch.no_grad()
    def hear(self, pictures: Pictures, rows: list[int]) -> Tensor:
        """z (n, D) of what was heard with the pictures at `rows`. Raises SeeallError where a sound cannot be read."""
        settings = self.ears.settings
        heard = Heard.of(pictures.subset(rows), 0, settings["rate"], settings["samples"])
        if unheard := heard.read():
            some = ", ".join(f"{pictures.ids[rows[i]]} ({why})" for i, why in unheard[:NAMED])
            more = f" and {len(unheard) - NAMED} more" if len(unheard) > NAMED else ""
            raise SeeallError(f"{len(unheard)} of {len(rows)} pictures have a sound that cannot be read: {some}{more}")
        parts = [range(i, min(i + _BATCH, len(rows))) for i in range(0, len(rows), _BATCH)]
        return torch.cat([self._all(heard(part, 0), self.ears) for part in parts])

    def _all(self, x: Tensor, through: nn.Module) -> Tensor:
        return torch.cat([through(part.to(self.eye.device)).cpu() for part in torch.split(x, _BATCH)])
