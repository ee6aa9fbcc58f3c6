"""scikit-learn's `LogisticRegression`, fitted once for each L2 on standardised features.

python -m benchmarks.speed.sklearn_peer --features FILE --labels FILE --l2 1,0.3,... --out FILE
"""

import argparse
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from headstart.files import write_json

from .log_loss import penalised

_MAX_ITERATIONS = 10_000  # chosen: the default of 100 ends before convergence, with a warning


def main() -> None:
    """Fit, then judge every fit; the seconds are those of standardising and fitting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--l2", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    features, labels = np.load(arguments.features), np.load(arguments.labels)
    path = [float(one) for one in arguments.l2.split(",")]
    started = time.perf_counter()
    standardised = StandardScaler().fit_transform(features)
    # LogisticRegression minimises C times the summed loss plus half the squared weights: C = 1 / (n l2) is the mean's l2.
    models = [
        LogisticRegression(C=1 / (len(labels) * l2), max_iter=_MAX_ITERATIONS).fit(standardised, labels) for l2 in path
    ]
    seconds = time.perf_counter() - started
    reached = [
        penalised(standardised, labels, model.coef_, model.intercept_, l2)
        for model, l2 in zip(models, path, strict=True)
    ]
    iterations = [int(model.n_iter_[0]) for model in models]
    write_json(arguments.out, {"seconds": seconds, "l2": path, "reached": reached, "iterations": iterations})


if __name__ == "__main__":
    main()
