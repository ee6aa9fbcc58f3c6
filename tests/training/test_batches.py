"""Batches of images: what they show from one epoch to the next."""

import numpy as np

from headstart.records import Preprocessing
from headstart.training.batches import ImageBatches

SEED = 5


def test_directions_alternate_from_epoch_to_epoch() -> None:
    # One row of pixels that rises to the right: the sign of its slope is the direction it is seen in.
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8)[None, None, :, None], (40, 32, 32, 3))
    labels = np.zeros(40, np.int64)
    batches = ImageBatches(np.array(ramp), labels, np.arange(40), Preprocessing(32), "shift-alternate")

    def mirrored(epoch: int, positions: np.ndarray) -> np.ndarray:
        batches.begin_epoch(epoch, SEED)
        shown = batches.inputs(positions, np.random.default_rng(epoch))
        return np.asarray(shown[:, 0, 16, 20] < shown[:, 0, 16, 12])

    everything = np.arange(40)
    first, second, third = (mirrored(epoch, everything) for epoch in (1, 2, 3))
    assert 5 < first.sum() < 35
    assert np.array_equal(second, ~first)
    assert np.array_equal(third, first)
    assert np.array_equal(mirrored(2, everything[::-1].copy()), second[::-1])
    plain = batches.inputs(everything, None)
    assert bool((plain[:, 0, 16, 20] > plain[:, 0, 16, 12]).all())
