"""The probe of a proof against scikit-learn's logistic regression, and what it must not depend on."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from headstart.diagnosis.probing import _logits, _minimise, _principal_coordinates, cross_fitted, held_out

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


def clouds(count: int = 240, dimensions: int = 30, classes: int = 4, apart: float = 1.0) -> tuple[Array, Labels]:
    """Gaussian clouds around the classes' centres."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, count)
    features = rng.normal(size=(count, dimensions)) + apart * rng.normal(size=(classes, dimensions))[labels]
    return features.astype(np.float32), labels


@pytest.mark.parametrize("dimensions", [30, 400])
def test_heads_fitted_side_by_side_are_scikit_learn_s(dimensions: int) -> None:
    features, labels = clouds(dimensions=dimensions, apart=0.3)
    axes, variances = _principal_coordinates(features)
    training = torch.ones(2, len(labels))
    training[0, :80], training[1, 160:] = 0, 0
    fitted = _minimise(axes, torch.from_numpy(labels), training, 4, 0.01, variances, tolerance=1e-6)
    standardised = (features - features.mean(0)) / features.std(0)
    for problem, rows in enumerate((slice(80, None), slice(None, 160))):
        theirs = LogisticRegression(C=1 / (0.01 * 160), tol=1e-8, max_iter=5000).fit(standardised[rows], labels[rows])
        ours = torch.softmax(_logits(axes, fitted)[:, problem], dim=1).numpy()
        assert ours == pytest.approx(theirs.predict_proba(standardised), abs=2e-3)


def test_images_are_judged_by_heads_that_did_not_see_them() -> None:
    features, labels = clouds()
    correct = cross_fitted(features, labels, 4)
    assert correct.shape == (3, 200)
    assert correct.mean() > 0.95
    assert np.array_equal(correct, cross_fitted(features, labels, 4))
    by_chance = cross_fitted(np.random.default_rng(1).normal(size=features.shape).astype(np.float32), labels, 4)
    assert by_chance.mean() < 0.4
    assert held_out(features[:120], labels[:120], features[120:], labels[120:], 4).mean() > 0.9


def test_scale_of_the_features_does_not_matter() -> None:
    features, labels = clouds(apart=0.5)
    scaled = features * np.float32(1000) + np.float32(7)
    difference = cross_fitted(features, labels, 4) != cross_fitted(scaled, labels, 4)
    assert difference.mean() < 0.01
    constant = np.concatenate([features, np.ones((len(features), 3), np.float32)], axis=1)
    assert cross_fitted(constant, labels, 4).mean() == pytest.approx(cross_fitted(features, labels, 4).mean(), abs=0.01)
