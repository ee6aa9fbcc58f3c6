"""`SimpleCNN`: the convolutional network that is trained from scratch, as a class would draw it on the board."""

import torch
from torch import nn

LARGE_INPUT = 64
"""Inputs above this side (pixels) get a stem of stride 2; a small image keeps every pixel (FAILURES: stride audit)."""

_POOLED_SIDE = 4  # chosen: a 32 px image ends at 4x4 by itself; larger maps are averaged down to it
_DENSE_UNITS = 128  # chosen: the size of the exercise's dense layer


class SimpleCNN(nn.Module):
    """Three convolution blocks with batch norm, then dropout and a dense head.

    A block is 3x3 convolution, batch norm, ReLU and 2x2 maximum pooling (left out where the map is already one
    pixel wide); channels double from block to block.

    Args:
        classes: number of classes.
        input_size: side of the square input in pixels, at least 4.
        width: channels of the first block.
        dropout: rate before the last layer.

    Shapes: `(N, 3, input_size, input_size) float32` to `(N, classes) float32` logits.
    """

    def __init__(self, classes: int, input_size: int, width: int = 32, dropout: float = 0.5) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side, channels = input_size, 3
        for block in range(3):
            stride = 2 if block == 0 and input_size > LARGE_INPUT else 1
            wider = width << block
            layers += [
                nn.Conv2d(channels, wider, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                nn.ReLU(inplace=True),
            ]
            side, channels = -(-side // stride), wider
            if side > 1:
                layers.append(nn.MaxPool2d(2))
                side //= 2
        if side > _POOLED_SIDE:
            layers.append(nn.AdaptiveAvgPool2d(_POOLED_SIDE))
            side = _POOLED_SIDE
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * side * side, _DENSE_UNITS),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(_DENSE_UNITS, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.blocks(images))
        return logits
