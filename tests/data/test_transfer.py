"""Arrays on their way to a device: the same numbers, and nobody else's memory."""

import numpy as np
import pytest
import torch

from headstart.data.transfer import to_device

CPU = torch.device("cpu")


def test_on_the_cpu_memory_is_shared() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = to_device(array, CPU)
    array[0, 0] = 7
    assert tensor.tolist() == [[7, 1, 2], [3, 4, 5]]


def test_what_must_not_be_written_to_is_copied() -> None:
    array = np.arange(6)
    array.flags.writeable = False
    to_device(array, CPU).zero_()
    assert array.tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32])
def test_order_in_memory_does_not_matter(dtype: type) -> None:
    array: np.ndarray = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for given in (array, array[::-1], array.transpose(2, 0, 1), np.asfortranarray(array)):
        assert np.array_equal(to_device(given, CPU).numpy(), given)
