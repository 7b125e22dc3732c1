"""The built-in synthetic world: textured shapes over textured backgrounds, with exact truth.

`shapes` and `textures` are what things are made of, `world` says what is in a picture, `render` draws it,
`motion` makes clips of it, `flow` says where their pixels go, `sound` what things sound like, `dataset` numbers
the pictures.
"""

from seeall.data.scenes.dataset import Scenes, Truth, parse
from seeall.data.scenes.flow import Flow
from seeall.data.scenes.motion import ACTIONS
from seeall.data.scenes.render import render

__all__ = ["ACTIONS", "Flow", "Scenes", "Truth", "parse", "render"]
