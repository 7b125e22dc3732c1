"""Backbones from torchvision: its networks, less the classifier, behind the feature contract.

    ResNet        He et al. 2016, arXiv:1512.03385      ShuffleNet V2   Ma et al. 2018, arXiv:1807.11164
    MobileNetV3   Howard et al. 2019, arXiv:1905.02244  ConvNeXt        Liu et al. 2022, arXiv:2201.03545
    ViT           Dosovitskiy et al. 2021, arXiv:2010.11929
    VGG           Simonyan and Zisserman 2015, arXiv:1409.1556

Departures from torchvision:
  - ResNet, stem "3x3" (for pictures of 64 px and less, as in the CIFAR experiments of SimCLR): the first
    convolution is 3×3 with stride 1 and there is no max-pool, so strides are 1, 2, 4, 8.
  - MobileNetV3: momentum 0.1 of the running statistics instead of 0.01, with which a short pretraining is
    over before the statistics of evaluation have forgotten their start.
  - ConvNeXt: a map is padded to a whole number of patches before each patchifying convolution; torchvision
    drops the rest.
  - VGG: pooling keeps the last row and column of an odd map.
  - ViT: any input size. The picture is padded to a multiple of the patch and the position embeddings are
    resampled bicubically to the grid. One stage, the normalised patch tokens of the last layer.
  - ViT "tiny" is torchvision's class with the dimensions of DeiT-Ti (Touvron et al. 2021, arXiv:2012.12877).

Dropout is gone with the classifiers. ConvNeXt keeps its stochastic depth of 0.1 in training.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.vision_transformer import VisionTransformer

from seeall.backbones.contract import Backbone, average, pad_to
from seeall.types import SeeallError

Stem = Literal["usual", "3x3"]


def _resnet_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    maps = []
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        maps.append(x)
    return maps, average(x)


def _resnet(network: Any, stem: Stem) -> Backbone:
    width = network.fc.in_features
    network.fc = nn.Identity()
    strides = (4, 8, 16, 32)
    if stem == "3x3":
        network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        strides = (1, 2, 4, 8)
    channels = (width // 8, width // 4, width // 2, width)
    return Backbone(network, _resnet_walk, channels=channels, strides=strides, embed_dim=width)


def resnet18(*, stem: Stem = "usual") -> Backbone:
    """ResNet-18: 11.2 million parameters, 512 dimensions."""
    return _resnet(models.resnet18(), stem)


def resnet34(*, stem: Stem = "usual") -> Backbone:
    """ResNet-34: 21.3 million parameters, 512 dimensions."""
    return _resnet(models.resnet34(), stem)


def resnet50(*, stem: Stem = "usual") -> Backbone:
    """ResNet-50: 23.5 million parameters, 2048 dimensions."""
    return _resnet(models.resnet50(), stem)


def resnet101(*, stem: Stem = "usual") -> Backbone:
    """ResNet-101: 42.5 million parameters, 2048 dimensions."""
    return _resnet(models.resnet101(), stem)


def _vgg_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    maps = []
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            maps.append(x)
        x = layer(x)
    return maps, average(x)


def vgg16_bn() -> Backbone:
    """VGG-16 with BatchNorm: 14.7 million parameters, 512 dimensions; its maps are those before each pooling."""
    network = models.vgg16_bn()
    network.avgpool, network.classifier = nn.Identity(), nn.Identity()
    for layer in network.features:
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True
    return Backbone(network, _vgg_walk, channels=(64, 128, 256, 512, 512), strides=(1, 2, 4, 8, 16), embed_dim=512)


def _mobilenet_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    maps = []
    for i, block in enumerate(network.features):
        x = block(x)
        if i in (1, 3, 8, 12):
            maps.append(x)
    return maps, average(x)


def mobilenet_v3_small() -> Backbone:
    """MobileNetV3-Small: 0.9 million parameters, 576 dimensions; light enough for a CPU."""
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.1)
    network = models.mobilenet_v3_small(norm_layer=norm)
    network.classifier = nn.Identity()
    channels = (16, 24, 48, 576)
    return Backbone(network, _mobilenet_walk, channels=channels, strides=(4, 8, 16, 32), embed_dim=576)


def _shufflenet_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    stem = network.maxpool(network.conv1(x))
    second = network.stage2(stem)
    third = network.stage3(second)
    last = network.conv5(network.stage4(third))
    return [stem, second, third, last], average(last)


def shufflenet_v2_x0_5() -> Backbone:
    """ShuffleNet V2 ×0.5: 0.3 million parameters, 1024 dimensions; the lightest here."""
    network = models.shufflenet_v2_x0_5()
    network.fc = nn.Identity()
    channels = (24, 48, 96, 1024)
    return Backbone(network, _shufflenet_walk, channels=channels, strides=(4, 8, 16, 32), embed_dim=1024)


def _convnext_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    stem, *rest = network.features
    x = stem(pad_to(x, 4))
    maps = [rest[0](x)]
    for (norm, convolution), blocks in zip(rest[1::2], rest[2::2]):
        maps.append(blocks(convolution(pad_to(norm(maps[-1]), 2))))
    return maps, network.classifier(network.avgpool(maps[-1]))


def convnext_tiny() -> Backbone:
    """ConvNeXt-Tiny: 27.8 million parameters, 768 dimensions."""
    network = models.convnext_tiny()
    network.classifier[2] = nn.Identity()
    channels = (96, 192, 384, 768)
    return Backbone(network, _convnext_walk, channels=channels, strides=(4, 8, 16, 32), embed_dim=768)


def resample_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings (1, 1 + s², D) of a class token and a square grid → (1, 1 + rows·columns, D).

    Bicubic, in float32; untouched where the grid fits.
    """
    side = math.isqrt(positions.shape[1] - 1)
    if (rows, columns) == (side, side):
        return positions
    grid = positions[:, 1:].float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.flatten(2).mT.to(positions.dtype)], dim=1)


def _vit_walk(network: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
    grid = network.conv_proj(pad_to(x, network.patch_size))
    rows, columns = grid.shape[-2:]
    tokens = torch.cat([network.class_token.expand(grid.shape[0], -1, -1), grid.flatten(2).mT], dim=1)
    encoder = network.encoder
    tokens = tokens + resample_positions(encoder.pos_embedding, rows, columns)
    tokens = encoder.ln(encoder.layers(encoder.dropout(tokens)))
    return [tokens[:, 1:].mT.unflatten(2, (rows, columns))], tokens[:, 0]


def _vit(image_size: int, patch: int, layers: int, heads: int, width: int) -> Backbone:
    if image_size < patch or layers < 1:
        raise SeeallError(f"a ViT wants image_size of {patch} px (its patch) or more and layers of 1 or more")
    network = VisionTransformer(
        image_size=math.ceil(image_size / patch) * patch,
        patch_size=patch,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        mlp_dim=4 * width,
    )
    network.heads = nn.Identity()
    return Backbone(network, _vit_walk, channels=(width,), strides=(patch,), embed_dim=width)


def vit_b_16(*, image_size: int = 224) -> Backbone:
    """ViT-B/16: 85.8 million parameters, 768 dimensions. `image_size`, px, sets the grid of positions."""
    return _vit(image_size, 16, 12, 12, 768)


def vit_tiny(*, image_size: int = 64, patch: Literal[4, 8, 16] = 8, layers: int = 12) -> Backbone:
    """ViT-Tiny: 5.4 million parameters, 192 dimensions, 3 heads. `image_size` and `patch` in px."""
    return _vit(image_size, patch, layers, 3, 192)
