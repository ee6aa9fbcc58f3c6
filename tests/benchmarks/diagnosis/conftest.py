"""The planted-fault benchmark is scripts that import each other by name: their folder is found here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks" / "diagnosis"))
