"""`FastCNN`: the network that is trained from scratch when seconds count.

Its first layer is computed from the data and stays as it is; the rest starts as close to the identity as its shapes
allow. Both save the first epochs, which other networks spend on finding edges and on passing them through (Jordan 2024,
"94% on CIFAR-10 in 3.29 seconds on a single GPU", sections 3.1 to 3.3, after Page 2019).
"""

import numpy as np
import torch
from torch import nn

from headstart.models.looks import ONCE, Looks
from headstart.models.scratch import LARGE_INPUT

_PATCH = 2  # side of the whitened patches, as in the source
_REGULARISED = 5e-4  # added to a patch direction's variance before its root is taken, as in the source
_WHITENED_PATCHES = 1_000_000  # chosen: for a covariance of 12 x 12
_WHITENED_IMAGES = (250, 1000)  # chosen: fewer would be too much alike, more would tell nothing new
_BLOCK_PATCHES = (
    1 << 21
)  # unfolded at once, 200 MB in float64; chosen: all patches of small images, whose sums nothing changes
_LOGIT_SCALE = 1 / 9  # as in the source: it keeps the first logits small beside the large first steps
_WIDENING = 4  # the second and third group have four times the first one's channels, as in the source


class FastCNN(nn.Module):
    """Whitened patches, three groups of two convolutions, global maximum, linear head.

    Args:
        classes: number of classes.
        input_size: side of the square input in pixels, at least 4.
        width: channels of the first group.
        looks: how it looks at images in evaluation mode.

    Shapes: `(N, 3, input_size, input_size) float32` to `(N, classes) float32` logits.
    """

    def __init__(self, classes: int, input_size: int, width: int = 32, looks: Looks = ONCE) -> None:
        super().__init__()
        self.looks = looks
        stride = 2 if input_size > LARGE_INPUT else 1
        directions = 3 * _PATCH**2
        self.whitening = nn.Conv2d(3, 2 * directions, _PATCH, stride)
        self.whitening.weight.requires_grad_(False)
        assert self.whitening.bias is not None
        nn.init.zeros_(self.whitening.bias)
        side = (input_size - _PATCH) // stride + 1
        groups: list[nn.Module] = []
        channels = 2 * directions
        for wider in (width, _WIDENING * width, _WIDENING * width):
            groups.append(_Group(channels, wider, pooled=side > 1))
            channels, side = wider, max(side // 2, 1)
        self.groups = nn.Sequential(nn.GELU(), *groups)
        self.head = nn.Linear(channels, classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._logits(images) if self.training else self.looks.answer(self._logits, images)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.groups(self.whitening(images)).amax((2, 3))) * _LOGIT_SCALE
        return logits

    @torch.no_grad()
    def whiten(self, images: torch.Tensor) -> None:
        """Set the first layer to the whitening transform of the images' 2x2 patches, once with each sign.

        The rows are the eigenvectors of the patches' covariance, each divided by the root of its eigenvalue.

        Args:
            images: `(N, 3, H, W) float32`, preprocessed; a few thousand training images are enough.
        """
        # On the CPU, so that every device starts from the same layer, and because not every device has float64.
        variances, axes = np.linalg.eigh(_patch_covariance(images.cpu()).numpy())
        whitened = (axes / np.sqrt(variances + _REGULARISED)).T.reshape(-1, 3, _PATCH, _PATCH)
        both = np.concatenate([whitened, -whitened]).astype(np.float32)
        self.whitening.weight.copy_(torch.from_numpy(both))


def images_to_whiten(size: int) -> int:
    """How many training images tell enough of the patches: a million patches' worth, but neither too few nor too many.

    Args:
        size: side of the images in pixels.

    >>> [images_to_whiten(size) for size in (8, 32, 48, 96, 224)]
    [1000, 1000, 452, 250, 250]
    """
    fewest, most = _WHITENED_IMAGES
    return min(max(_WHITENED_PATCHES // (size - _PATCH + 1) ** 2, fewest), most)


def _patch_covariance(images: torch.Tensor) -> torch.Tensor:
    """Covariance of all patches, `(12, 12) float64`; a block of images at a time, since patches take eight times their memory."""
    each = (images.shape[2] - _PATCH + 1) * (images.shape[3] - _PATCH + 1)
    blocks, count = torch.split(images, max(_BLOCK_PATCHES // each, 1)), len(images) * each
    mean = torch.stack([_patches(block).sum(0) for block in blocks]).sum(0) / count
    products = torch.zeros(3 * _PATCH**2, 3 * _PATCH**2, dtype=torch.float64)
    for block in blocks:
        rows = _patches(block).sub_(mean)
        products += rows.T @ rows
    return products / count


def _patches(images: torch.Tensor) -> torch.Tensor:
    """All patches of the images, `(n, 12) float64`."""
    patches = images.unfold(2, _PATCH, 1).unfold(3, _PATCH, 1).permute(0, 2, 3, 1, 4, 5)
    return patches.reshape(-1, 3 * _PATCH**2).double()


class _Group(nn.Sequential):
    """Convolution, 2x2 maximum, batch norm, GELU; convolution, batch norm, GELU."""

    def __init__(self, channels: int, wider: int, *, pooled: bool) -> None:
        super().__init__(
            _convolution(channels, wider),
            nn.MaxPool2d(2) if pooled else nn.Identity(),
            _norm(wider),
            nn.GELU(),
            _convolution(wider, wider),
            _norm(wider),
            nn.GELU(),
        )


def _convolution(channels: int, wider: int) -> nn.Conv2d:
    """3x3; the first filters pass their channel through (Zagoruyko and Komodakis 2017, "DiracNets")."""
    layer = nn.Conv2d(channels, wider, kernel_size=3, padding=1, bias=False)
    nn.init.dirac_(layer.weight[: min(channels, wider)].detach())
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm that shifts and does not scale: the convolution before it can."""
    layer = nn.BatchNorm2d(channels)
    layer.weight.requires_grad_(False)
    return layer
