"""Keras on TensorFlow, as its tutorials use it. Each subcommand is one measured process and writes its facts to `--out`.

python -m benchmarks.speed.keras_peer features|transfer|scratch ... --out FILE
"""

import argparse
import time
from collections.abc import Callable
from itertools import cycle, pairwise
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from .keras_weights import features_model, weights_file
from .subcommands import run_subcommand

_FORWARD_SECONDS, _RACE_SECONDS = 3.0, 0.5  # chosen: of the measurement, and of each batch size's trial before it
_FORWARD_BATCHES = (16, 32, 64, 128)


def features(arguments: argparse.Namespace) -> dict[str, Any]:
    """`predict` from decoded images, resizing in the model; then the backbone alone, at its best."""
    with np.load(arguments.arrays) as arrays:
        images = arrays["train_images"][: arguments.images]
    size = arguments.size
    backbone = features_model(size, weights_file(arguments.weights))
    inputs = keras.Input(images.shape[1:], dtype="uint8")
    resized = keras.layers.Resizing(size, size)(inputs)
    model = keras.Model(inputs, backbone(keras.applications.mobilenet_v2.preprocess_input(resized)))
    started = time.perf_counter()
    model.predict(images, verbose=0)
    seconds = time.perf_counter() - started

    prepared = keras.applications.mobilenet_v2.preprocess_input(
        np.asarray(keras.ops.image.resize(images[: arguments.forward_images], (size, size)), np.float32)
    )
    rate, batch = _forward_rate(backbone, prepared)
    return {"seconds": seconds, "forward_images_per_second": rate, "way": f"compiled call, batch {batch}"}


def _forward_rate(backbone: keras.Model, prepared: npt.NDArray[np.float32]) -> tuple[float, int]:
    """Images per second of a compiled call on tensors that lie ready, at the best batch size, and that size.

    `predict` would be slower: it cuts its batches out of the array and joins what comes back.
    """
    call = tf.function(lambda inputs: backbone(inputs, training=False))
    rates = {}
    for batch in (size for size in _FORWARD_BATCHES if size <= len(prepared)):
        ready = _ready(prepared, batch)
        call(ready[0]).numpy()  # the first call traces
        rates[batch] = _images_per_second(call, ready, _RACE_SECONDS)
    best = max(rates, key=lambda batch: rates[batch])
    return _images_per_second(call, _ready(prepared, best), _FORWARD_SECONDS), best


def _ready(prepared: npt.NDArray[np.float32], batch: int) -> list[tf.Tensor]:
    return [tf.constant(prepared[first : first + batch]) for first in range(0, len(prepared) - batch + 1, batch)]


def _images_per_second(call: Callable[[tf.Tensor], tf.Tensor], ready: list[tf.Tensor], least_seconds: float) -> float:
    """Over all batches in turn, again and again, each result awaited."""
    started, done = time.perf_counter(), 0
    for inputs in cycle(ready):
        call(inputs).numpy()
        done += len(inputs)
        if time.perf_counter() - started >= least_seconds:
            break
    return done / (time.perf_counter() - started)


def transfer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Files, `Resizing`, `preprocess_input`, frozen MobileNetV2, pooling, `Dense`; `fit`, `evaluate`."""
    keras.utils.set_random_seed(arguments.seed)
    train, test = (
        keras.utils.image_dataset_from_directory(
            arguments.data / part, image_size=(32, 32), batch_size=64, shuffle=part == "train", seed=arguments.seed
        ).prefetch(tf.data.AUTOTUNE)
        for part in ("train", "test")
    )
    backbone = features_model(arguments.size, weights_file(arguments.weights))
    backbone.trainable = False
    inputs = keras.Input((32, 32, 3))
    resized = keras.layers.Resizing(arguments.size, arguments.size)(inputs)
    pooled = backbone(keras.applications.mobilenet_v2.preprocess_input(resized), training=False)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(pooled))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(train, epochs=arguments.epochs, verbose=2)
    _, accuracy = model.evaluate(test, verbose=2)
    return {"test_accuracy": float(accuracy), "train_accuracy": [float(one) for one in history.history["accuracy"]]}


def scratch(arguments: argparse.Namespace) -> dict[str, Any]:
    """The CNN of TensorFlow's tutorial on CIFAR-10, ended after the epoch in which test reaches the accuracy."""
    keras.utils.set_random_seed(arguments.seed)
    with np.load(arguments.arrays) as arrays:
        train = arrays["train_images"] / 255.0, arrays["train_labels"]
        test = arrays["test_images"] / 255.0, arrays["test_labels"]
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    reached = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda _, logs: setattr(model, "stop_training", logs["val_accuracy"] >= arguments.accuracy)
    )
    ends = [time.perf_counter()]
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))
    history = model.fit(
        *train, epochs=arguments.epochs, validation_data=test, callbacks=[reached, clock], verbose=2, shuffle=True
    )
    accuracies = [float(one) for one in history.history["val_accuracy"]]
    return {
        "by_epoch": accuracies,
        "epoch_seconds": [end - begin for begin, end in pairwise(ends)],
        "reached": accuracies[-1] >= arguments.accuracy,
    }


COMMANDS = {"features": features, "transfer": transfer, "scratch": scratch}


def _own_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accuracy", type=float)


if __name__ == "__main__":
    run_subcommand(__doc__, COMMANDS, _own_arguments)
