"""The built-in synthetic world: textured shapes over textured backgrounds, with exact truth.

`shapes` and `textures` are what things are made of, `world` says what is in a picture, `render` draws it,
`dataset` numbers the pictures.
"""

from seeall.data.scenes.dataset import Scenes, Truth, parse
from seeall.data.scenes.render import render

__all__ = ["Scenes", "Truth", "parse", "render"]
