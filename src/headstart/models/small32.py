"""The `small32` family: backbones made for images of 28 to 64 px, at their native size.

Public ImageNet backbones divide the image's side by 32 before they pool it: a 32 px image leaves them one position. These
divide it by 8, with a stem that keeps every pixel, so that 32 px end as a map of 4 x 4. They are made of plain 3x3
convolutions, which a CPU runs at a higher share of its arithmetic peak than depthwise ones (docs/small-images.md).

Importing this module makes the three widths known to timm, so that they are built, named and cut like any other backbone.
"""

from typing import Any

import torch
from timm.models import register_model
from torch import nn

NATIVE_SIZE = 32
LARGEST_IMAGE = 64
"""Side in pixels up to which these backbones are made for; larger images lose what makes them different."""


FAMILY = {
    "small32_s": (16, 24, 64, 128),
    "small32_m": (32, 64, 96, 192),
    "small32_l": (48, 96, 160, 320),
}
"""Channels of the stem and of the three stages: about 0.5, 1.1 and 2.9 million parameters; 13, 33 and 87 million
multiply-adds at 32 px. The middle one is as wide as leaves it twice as quick as MobileNetV2 at 96 px (docs/log.md); some widths of
about equal cost are quicker (docs/small-images.md)."""


class Small32(nn.Module):
    """Stem, three stages that halve the map, and of the last two maps the mean, the mean of the central half, the maximum.

    Two taps because the middle map still holds textures and parts that the last one has traded for the classes it was
    trained on; the centre because what a small image shows is usually there, and its background around it; the maximum
    because a mean over 16 positions hides what is seen at one of them (measured: docs/log.md).

    Args:
        channels: of the stem and of the three stages.

    Shapes: `(N, 3, H, W) float32` with H, W >= 8 to `(N, num_features) float32`.
    """

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        stem, first, second, third = channels
        self.stem = _convolution(3, stem)
        self.stage1 = _convolution(stem, first, stride=2)
        self.stage2 = nn.Sequential(_convolution(first, second, stride=2), ResidualBlock(second))
        self.stage3 = nn.Sequential(_convolution(second, third, stride=2), ResidualBlock(third))
        self.num_features = 3 * (second + third)
        self.pretrained_cfg: dict[str, Any] = {
            "input_size": (3, NATIVE_SIZE, NATIVE_SIZE),
            "interpolation": "bilinear",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
        }

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        middle = self.stage2(self.stage1(self.stem(images)))
        last = self.stage3(middle)
        return torch.cat([pooled for maps in (middle, last) for pooled in _pooled(maps)], dim=1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside an identity (He et al. 2016, figure 2); the second starts at zero, so that a new
    block is the identity (Goyal et al. 2017, section 5.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(*list(_convolution(channels, channels))[:2])
        nn.init.zeros_(self.second[1].weight)  # type: ignore[arg-type]

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(maps + self.second(self.first(maps)))


def _pooled(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`(N, C, H, W)` to three times `(N, C)`: the mean, the mean of the central half of the rows and columns, the maximum."""
    top, left = maps.shape[2] // 4, maps.shape[3] // 4
    centre = maps[:, :, top : maps.shape[2] - top, left : maps.shape[3] - left]
    return maps.mean((2, 3)), centre.mean((2, 3)), maps.amax((2, 3))


def _convolution(channels: int, wider: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, wider, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(wider),
        nn.ReLU(inplace=True),
    )


@register_model  # type: ignore[untyped-decorator]
def small32_s(pretrained: bool = False, **_: Any) -> Small32:
    """The smallest width, for the quickest answer."""
    return Small32(FAMILY["small32_s"])


@register_model  # type: ignore[untyped-decorator]
def small32_m(pretrained: bool = False, **_: Any) -> Small32:
    """The middle width."""
    return Small32(FAMILY["small32_m"])


@register_model  # type: ignore[untyped-decorator]
def small32_l(pretrained: bool = False, **_: Any) -> Small32:
    """The largest width, the most accurate."""
    return Small32(FAMILY["small32_l"])
