"""At which input size images of 64 px are told apart best by the backbones that come with headstart.

    python benchmarks/small_images_sizes.py --tiny-imagenet DIR

DIR has the class folders of Tiny ImageNet's training part, which the backbones were pretrained on. Judged are the 2,000 images that
watched that training and that no weight has learned from, by ridge regression on standardised features, in five turns: fitted on four
fifths (the penalty by leaving one out), judged on the fifth. Results go into the part `sizes` of
`benchmarks/results/small_images.json`; `benchmarks/small_images_figures.py` writes the table of docs/small-images.md from it.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import RidgeClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.analysis.statistics import bootstrap_accuracy, paired_difference
from headstart.data.preprocessing import apply_preprocessing
from headstart.data.sources import load_images
from headstart.files import read_json, write_json
from headstart.models.backbones import build_backbone, find_backbone
from headstart.records import Booleans, ImageSet, Indices, Preprocessing
from headstart.study.pretraining_request import train_and_val
from headstart.study.resolving import backbone_preprocessing
from headstart.training.frozen import Forward, choose_forward
from small_images import CPU, RESULTS, SMALL, measured_part

SIDES = (32, 48, 64)
PENALTIES = tuple(np.logspace(1, 5, 9))
_SEED, _TURNS, _BATCH = 0, 5, 32


def main() -> None:
    """Judge every backbone at every size and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny-imagenet", type=Path, required=True)
    arguments = parser.parse_args()
    started = time.perf_counter()
    images = load_images(str(arguments.tiny_imagenet.resolve()))
    held_out = train_and_val(images, _SEED)[0].val
    rows = [row for name in SMALL for row in judged(name, images, held_out)]
    write_json(RESULTS, read_json(RESULTS) | {"sizes": measured_part(rows, started)})


def judged(name: str, images: ImageSet, held_out: Indices) -> list[dict[str, Any]]:
    """A row for each size: accuracy, and how much better 48 px are than it."""
    backbone = find_backbone(name)
    if backbone.pretrained_on != images.fingerprint:
        raise SystemExit(
            f"{name} was pretrained on other images than these: which of them it has not seen cannot be said."
        )
    module, correct = build_backbone(backbone), dict[int, Booleans]()
    for side in SIDES:
        preprocessing = backbone_preprocessing(backbone, images.canvas, side)
        forward, _ = choose_forward(module, apply_preprocessing(images.images[held_out[:4]], preprocessing), CPU)
        features = _features(forward, images, held_out, preprocessing)
        classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
        turns = StratifiedKFold(_TURNS, shuffle=True, random_state=_SEED)
        found = cross_val_predict(classifier, features, images.labels[held_out], cv=turns)
        correct[side] = found == images.labels[held_out]
        print(f"{name} @ {side}: {correct[side].mean():.1%}", flush=True)
    return [
        {
            "name": name,
            "input_size": side,
            "images": len(held_out),
            "accuracy": vars(bootstrap_accuracy(correct[side][None])),
            "better_at_48": vars(paired_difference(correct[48][None], correct[side][None])),
        }
        for side in SIDES
    ]


def _features(
    forward: Forward, images: ImageSet, part: Indices, preprocessing: Preprocessing
) -> npt.NDArray[np.float32]:
    batches = (part[first : first + _BATCH] for first in range(0, len(part), _BATCH))
    return np.concatenate([forward(apply_preprocessing(images.images[batch], preprocessing)) for batch in batches])


if __name__ == "__main__":
    main()
