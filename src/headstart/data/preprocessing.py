"""Pixels made ready for a network, in one way only, whether it trains, is tested or predicts."""

import numpy as np
import numpy.typing as npt
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from headstart.records import Images, Preprocessing

# Nearest is the centre-aligned kind that Pillow and Keras use, not the one that favours the upper left corner.
_INTERPOLATIONS = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def apply_preprocessing(images: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Resize, scale and normalise images; an image's result does not depend on the others in its batch.

    Args:
        images: `(B, S, S, 3) uint8` RGB.
        preprocessing: what the network expects. `mean` and `std` are in the order of the channels that the network
            sees.

    Returns:
        `(B, 3, input_size, input_size) float32`, channels last in memory: `(pixel / 255 - mean) / std`.
    """
    pixels = _resized(images, preprocessing)
    if preprocessing.channel_order == "BGR":
        pixels = pixels.flip(1)
    result = pixels.to(torch.float32, memory_format=torch.channels_last).div_(255)
    if any(preprocessing.mean):
        result.sub_(torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
    if any(value != 1 for value in preprocessing.std):
        result.div_(torch.tensor(preprocessing.std).view(1, 3, 1, 1))
    return result


def pixels_only(images: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> Images:
    """Resize images and do nothing else, for a network into which scaling and normalisation were built.

    Args:
        images: `(B, S, S, 3) uint8` RGB.
        preprocessing: only its `input_size` and `interpolation` are used.

    Returns:
        `(B, input_size, input_size, 3) uint8` RGB.
    """
    return np.ascontiguousarray(_resized(images, preprocessing).permute(0, 2, 3, 1).numpy())


def _resized(images: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> torch.Tensor:
    """Resize on 8-bit pixels, antialiased when it shrinks: `(B, 3, size, size) uint8`, channels last."""
    if not images.flags.writeable:
        images = images.copy()  # a memory-mapped block; torch shares memory only with arrays that it may write to
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    size = preprocessing.input_size
    if len(pixels) == 0:
        return pixels.new_empty((0, 3, size, size))
    if tuple(pixels.shape[2:]) == (size, size):
        return pixels
    resized: torch.Tensor = functional.resize(
        pixels, [size, size], interpolation=_INTERPOLATIONS[preprocessing.interpolation], antialias=True
    )
    return resized
