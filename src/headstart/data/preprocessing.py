"""Pixels made ready for a network, in one way only, whether it trains, is tested or predicts."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from headstart.data.transfer import to_device
from headstart.records import Images, Preprocessing

_HOST = torch.device("cpu")

# Nearest is the centre-aligned kind that Pillow and Keras use, not the one that favours the upper left corner.
_INTERPOLATIONS = {
    "nearest": InterpolationMode.NEAREST_EXACT,
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
}


def apply_preprocessing(images: npt.NDArray[np.uint8] | torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize, scale and normalise images; an image's result does not depend on the others in its batch.

    Args:
        images: `(B, S, S, 3) uint8` RGB; an array, or a tensor on any device, where it is then prepared. The numbers are the
            same but for one thing: the CPU resizes in fixed point and other devices in float32, so a few resized pixels
            differ by one or two of 256 levels, as they do between the CPU and Pillow.
        preprocessing: what the network expects. `mean` and `std` are in the order of the channels that the network
            sees.

    Returns:
        `(B, 3, input_size, input_size) float32`, channels last in memory: `(pixel / 255 - mean) / std`. On the images' device.
    """
    return normalise(_resized(images, preprocessing), preprocessing)


def normalise(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Scale and normalise images that have their size already: what `apply_preprocessing` does after it has resized.

    Args:
        pixels: `(B, 3, S, S) uint8` RGB on any device.
        preprocessing: only its `mean`, `std` and `channel_order` are used.

    Returns:
        `(B, 3, S, S) float32`, channels last in memory, on the same device.
    """
    if preprocessing.channel_order == "BGR":
        pixels = pixels.flip(1)
    # By a tensor on the device: by a plain number a GPU would multiply with a rounded 1 / 255.
    scale = torch.full((), 255.0, device=pixels.device)
    result = pixels.to(torch.float32, memory_format=torch.channels_last).div_(scale)
    if any(preprocessing.mean):
        result.sub_(_per_channel(tuple(preprocessing.mean), pixels.device))
    if any(value != 1 for value in preprocessing.std):
        result.div_(_per_channel(tuple(preprocessing.std), pixels.device))
    return result


def pixels_only(images: npt.NDArray[np.uint8], preprocessing: Preprocessing) -> Images:
    """Resize images and do nothing else, for a network into which scaling and normalisation were built.

    Args:
        images: `(B, S, S, 3) uint8` RGB.
        preprocessing: only its `input_size` and `interpolation` are used.

    Returns:
        `(B, input_size, input_size, 3) uint8` RGB.
    """
    return np.ascontiguousarray(resized_pixels(images, preprocessing).numpy())


def resized_pixels(images: npt.NDArray[np.uint8] | torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """`pixels_only` for images on any device: `(B, input_size, input_size, 3) uint8` RGB, where they are."""
    return _resized(images, preprocessing).permute(0, 2, 3, 1)


@lru_cache(maxsize=64)
def _per_channel(values: tuple[float, float, float], device: torch.device) -> torch.Tensor:
    """Made once: a copy to a GPU costs more than the division does."""
    with torch.inference_mode(mode=False):  # whoever asks first must not decide what others may do with it
        return to_device(np.array(values, np.float32), device).view(1, 3, 1, 1)


def _resized(images: npt.NDArray[np.uint8] | torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize on 8-bit pixels, antialiased when it shrinks: `(B, 3, size, size) uint8`, channels last."""
    tensor = images if isinstance(images, torch.Tensor) else to_device(images, _HOST)
    pixels = tensor.permute(0, 3, 1, 2)
    size = preprocessing.input_size
    if len(pixels) == 0:
        return pixels.new_empty((0, 3, size, size))
    if tuple(pixels.shape[2:]) == (size, size):
        return pixels
    if pixels.device.type != "cpu" and preprocessing.interpolation != "nearest":
        return _resized_in_float(pixels, size, preprocessing.interpolation)
    resized: torch.Tensor = functional.resize(
        pixels, [size, size], interpolation=_INTERPOLATIONS[preprocessing.interpolation], antialias=True
    )
    return resized


def _resized_in_float(pixels: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    """Resize as torchvision does on the CPU, for devices that compute with floating point only.

    Along rows, then along columns, each rounded half up and cut off at 0 and 255. By itself torchvision would round once, at
    the end, and a bicubic overshoot would come out different by ten levels.
    """
    for shape in ((pixels.shape[2], size), (size, size)):
        exact = interpolate(pixels.float(), shape, mode=interpolation, antialias=True)
        pixels = exact.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)
    return pixels
