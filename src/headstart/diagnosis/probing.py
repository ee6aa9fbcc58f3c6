"""The probe of a proof: what features are worth, by heads that never saw the images they are judged on.

The head is training.probe's: multinomial logistic regression with an L2 penalty on standardised features. A proof needs it
nine times for each set of features (three partitions into three folds). The nine problems share their features, so they are
solved side by side, in one L-BFGS whose every step is one matrix product: a quarter of the time that one by one takes
(measured: 2400 images, 1280 features, 10 classes).
"""

import numpy as np
import numpy.typing as npt
import scipy.optimize
import torch
from torch.nn.functional import cross_entropy, one_hot

from headstart.randomness import generator
from headstart.records import Booleans, Labels
from headstart.training.probe import L2_PATH, fit_probe

Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

SEEDS, FOLDS = 3, 3

VAL_SHARE = 1 / 6
"""Of a sample's images: kept for the choice of L2, neither fitted nor judged."""

_VAL_SHARE_HELD_OUT = 1 / 6  # of the images that a probe is fitted on, for its L2
_MOST_UNKNOWNS = 400_000  # of one L-BFGS: its memory of ten steps then stays below 64 MB
_MAX_ITERATIONS = 200
_GRADIENT_TOLERANCE = 1e-4  # measured, CIFAR-10 at 128 px: 3 images in 10,000 are judged otherwise than with 1e-5
_CHOICE_TOLERANCE = 3e-4  # of the fits that only choose the L2
_SMALLEST_DEVIATION = 1e-6
_APART = 1e-9  # of the mean variance: keeps directions without any variance apart for LAPACK


def cross_fitted(features: Array, labels: Labels, classes: int) -> Booleans:
    """Which images a probe gets right that was fitted without them, a row for each of three partitions.

    A sixth of the images decides the L2, once for all folds, and takes no further part. Features are standardised and rotated
    with all images; that looks at no label.

    Args:
        features: `(n, D) float32`.
        labels: `(n,) int64`.
        classes: number of classes.

    Returns:
        `(S, n - n / 6) bool`; columns are the same images for the same number of them.
    """
    count = len(labels)
    drawn = generator(0, "diagnosis", "val").permutation(count)
    val_count = max(round(count * VAL_SHARE), 1)
    val, kept = np.sort(drawn[:val_count]), np.sort(drawn[val_count:])
    axes, variances = _principal_coordinates(features)
    judged, targets = axes[torch.from_numpy(kept)], torch.from_numpy(labels[kept])
    training = torch.ones(SEEDS * FOLDS, len(kept))
    folds = []
    for seed in range(SEEDS):
        places = generator(seed, "diagnosis", "folds").permutation(len(kept))
        folds += list(np.array_split(places, FOLDS))
    for row, fold in zip(training, folds, strict=True):
        row[torch.from_numpy(fold)] = 0
    l2 = _choose_l2(
        judged, targets, training[:1], axes[torch.from_numpy(val)], torch.from_numpy(labels[val]), variances, classes
    )
    together = max(_MOST_UNKNOWNS // ((judged.shape[1] + 1) * classes), 1)
    correct = np.zeros((SEEDS, len(kept)), bool)
    for first in range(0, len(folds), together):
        weights = _minimise(judged, targets, training[first : first + together], classes, l2, variances)
        answers = _logits(judged, weights).argmax(2)
        for offset, fold in enumerate(folds[first : first + together]):
            given = answers[torch.from_numpy(fold), offset].numpy()
            correct[(first + offset) // FOLDS, fold] = given == labels[kept][fold]
    return correct


def held_out(features: Array, labels: Labels, judged: Array, judged_labels: Labels, classes: int) -> Booleans:
    """Fit a probe on some images, a sixth of them to choose its L2 on, and say which of the judged ones it gets right.

    Args:
        features, judged: `(n, D) float32` and `(m, D) float32`.
        labels, judged_labels: theirs.
        classes: number of classes.

    Returns:
        `(m,) bool`.
    """
    drawn = generator(0, "diagnosis", "val").permutation(len(labels))
    val_count = max(round(len(labels) * _VAL_SHARE_HELD_OUT), 1)
    val, train = drawn[:val_count], drawn[val_count:]
    head = fit_probe(features, labels, train, val, classes)
    right: Booleans = head.logits(judged).argmax(1) == judged_labels
    return right


def _principal_coordinates(features: Array) -> tuple[torch.Tensor, torch.Tensor]:
    """Standardised features in their principal axes, `(n, min(n, D))`, and the axes' variances.

    A rotation leaves the penalty as it is, and what lies outside the images' own span has no part in the minimum.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt(np.square(features - mean).mean(axis=0, dtype=np.float64)).astype(np.float32)
    centred = torch.from_numpy((features - mean) / np.where(deviation > _SMALLEST_DEVIATION, deviation, 1.0))
    centred = centred.float()
    count, dimensions = centred.shape
    wide = dimensions > count
    gram = ((centred @ centred.T if wide else centred.T @ centred) / count).double()
    gram.diagonal().add_(_APART * max(float(gram.diagonal().mean()), _SMALLEST_DEVIATION))
    variances, axes = torch.linalg.eigh(gram)
    variances = variances.clamp(min=0).float()
    coordinates = axes.float() * (variances * count).sqrt() if wide else centred @ axes.float()
    return coordinates, variances


def _choose_l2(
    features: torch.Tensor,
    labels: torch.Tensor,
    training: torch.Tensor,
    val: torch.Tensor,
    val_labels: torch.Tensor,
    variances: torch.Tensor,
    classes: int,
) -> float:
    """The L2 of the path with the least val loss, from the strongest on until val becomes worse."""
    best, best_loss, start = L2_PATH[0], np.inf, None
    for l2 in L2_PATH:
        start = _minimise(features, labels, training, classes, l2, variances, start, _CHOICE_TOLERANCE)
        loss = float(cross_entropy(_logits(val, start)[:, 0], val_labels))
        if loss >= best_loss:
            break
        best, best_loss = l2, loss
    return best


def _minimise(
    features: torch.Tensor,
    labels: torch.Tensor,
    training: torch.Tensor,
    classes: int,
    l2: float,
    variances: torch.Tensor,
    start: torch.Tensor | None = None,
    tolerance: float = _GRADIENT_TOLERANCE,
) -> torch.Tensor:
    """Minimise the loss of several heads at once, each over its own training images.

    Coordinates are scaled by the curvature where all classes are equally likely (training.softmax_regression), so that the loss
    curves about equally in every direction.

    Args:
        features: `(n, D) float32`, in principal axes.
        labels: `(n,) int64`.
        training: `(P, n) float32`, 1 where a problem's head is fitted on an image, else 0.
        classes: number of classes.
        l2: of all.
        variances: `(D,)`, of the axes.
        start: from here; `None` starts at zero.
        tolerance: largest entry of the gradient at the end.

    Returns:
        `(D + 1, P, C) float32`, the biases last.
    """
    count, dimensions = features.shape
    problems = len(training)
    shares = (training / training.sum(1, keepdim=True)).T[:, :, None]  # (n, P, 1)
    wanted = one_hot(labels, classes).float()[:, None, :]
    curvature = (1 - 1 / classes) / classes
    scale = torch.cat([(curvature * variances + l2).sqrt(), torch.tensor([curvature**0.5])])[:, None, None]
    shape = (dimensions + 1, problems, classes)

    def value_and_gradient(flat: Floats) -> tuple[float, Floats]:
        weights = torch.from_numpy(flat.astype(np.float32)).view(shape) / scale
        log_probabilities = torch.log_softmax(_logits(features, weights), dim=2)
        loss = -(log_probabilities * wanted * shares).sum(dtype=torch.float64)
        errors = (log_probabilities.exp() - wanted) * shares
        inner = (features.T @ errors.view(count, -1)).view(dimensions, problems, classes) + l2 * weights[:-1]
        gradient = torch.cat([inner, errors.sum(0, keepdim=True)]) / scale
        penalty = 0.5 * l2 * float(weights[:-1].square().sum(dtype=torch.float64))
        return float(loss) + penalty, gradient.flatten().double().numpy()

    begin = torch.zeros(shape) if start is None else start * scale
    found = scipy.optimize.minimize(
        value_and_gradient,
        begin.flatten().double().numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _MAX_ITERATIONS, "gtol": tolerance, "ftol": 1e-8, "maxcor": 10},
    )
    return torch.from_numpy(found.x.astype(np.float32)).view(shape) / scale


def _logits(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """`(n, P, C)` of `(n, D)` features and `(D + 1, P, C)` weights."""
    _, problems, classes = weights.shape
    inner = features @ weights[:-1].reshape(features.shape[1], -1)
    return inner.view(len(features), problems, classes) + weights[-1]
