"""The benchmarks are scripts, no part of the package: their folder is found here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
