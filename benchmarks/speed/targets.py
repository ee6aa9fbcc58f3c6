"""What each row is measured against: the bar that headstart has to reach, and the stretch beyond it."""

from dataclasses import dataclass
from typing import Literal

Measure = Literal["ratio", "seconds", "bytes", "share", "growth"]


@dataclass(frozen=True)
class Target:
    """One claim.

    Attributes:
        part: the part of the benchmark that measures it.
        what: what is measured.
        peer: what it is measured against.
        measure: the key of the row that is judged. `ratio` is the peer's seconds divided by ours, `share` a share of what the
            machine could do: more is better. `seconds`, `bytes` and `growth` (of seconds or bytes with the number of
            images, 1 is in proportion): less is better.
        bar, stretch: `None` where there is none.
    """

    part: str
    what: str
    peer: str
    measure: Measure
    bar: float | None
    stretch: float | None

    @property
    def more_is_better(self) -> bool:
        """Whether a larger value is a better one."""
        return self.measure in ("ratio", "share")


_PREDICT = "Keras `predict`"
_COMPILED = "Keras, compiled call"
TARGETS = {
    "features-96": Target("features", "frozen features at 96 px, from decoded images", _PREDICT, "ratio", 3.0, 4.0),
    "features-160": Target("features", "the same at 160 px", _PREDICT, "ratio", 3.0, 4.0),
    "features-224": Target("features", "the same at 224 px", _PREDICT, "ratio", 4.2, 4.6),
    "forward-96": Target("features", "the forward pass alone at 96 px", _COMPILED, "ratio", 3.0, 4.0),
    "forward-160": Target("features", "the same at 160 px", _COMPILED, "ratio", 3.0, 4.0),
    "forward-224": Target("features", "the same at 224 px", _COMPILED, "ratio", 4.2, 4.6),
    "matrix-96": Target(
        "features",
        "the forward pass at 96 px as a share of the matrix-product rate",
        "float32, the quickest library",
        "share",
        None,
        0.85,
    ),
    "transfer-keras": Target(
        "transfer", "CIFAR-10 at 96 px, files to test accuracy", "Keras, 5 epochs", "ratio", 12.0, 20.0
    ),
    "transfer-torch": Target("transfer", "the same", "plain PyTorch, 5 epochs", "ratio", 8.0, 15.0),
    "rerun": Target("transfer", "a second run with another head", "the first run", "ratio", 20.0, 50.0),
    "probe": Target("probe", "probe, 50,000 x 1,280, 10 classes, 12 values of L2", "scikit-learn", "ratio", 10.0, 30.0),
    "scratch-71": Target(
        "scratch", "from scratch, to 71% of CIFAR-10's test images", "Keras' tutorial CNN", "ratio", 6.0, 12.0
    ),
    "scratch-90": Target(
        "scratch90", "from scratch, to 90%", "ResNet-18, plain PyTorch (extrapolated)", "seconds", 12 * 60, 8 * 60
    ),
    "scratch-94": Target(
        "scratch94", "from scratch, to 94%", "ResNet-18, plain PyTorch (extrapolated)", "seconds", 50 * 60, 35 * 60
    ),
    "finetune": Target(
        "finetune", "an epoch of partial fine-tuning from cached activations", "without the cache", "ratio", 1.8, 3.0
    ),
    "memory": Target("memory", "peak memory of the whole comparison on CIFAR-10", "", "bytes", 2.0e9, 1.2e9),
    "folder": Target("folder", "a folder of images of 256 px, cold", "plain PyTorch, 1 epoch", "ratio", None, 1.5),
    "folder-time": Target("folder", "its seconds, as the number of images grows", "", "growth", 1.1, None),
    "folder-memory": Target("folder", "its peak memory, as the number of images grows", "", "growth", 1.1, None),
}
"""By the name that a row's `target` has. That growth counts as linear (flat) up to 1.1 is chosen."""
