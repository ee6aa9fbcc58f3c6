"""Assert what must be true of every run of the main job on the digits."""

import json
import sys
from pathlib import Path

folder, with_weights = Path(sys.argv[1]), "with-weights" in sys.argv[2:]
results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
recipes = {entry["name"]: entry for entry in results["recipes"]}

assert results["schema_version"] == 1, results["schema_version"]
# The backbone that comes with the package takes part without a network.
expected = {"fast", "cnn", "small32_m-probe", "small32_m-finetune", "random-features-small32_m", "majority"}
assert expected <= recipes.keys(), recipes.keys()
assert recipes["small32_m-probe"]["weights"]["source"] == "file", recipes["small32_m-probe"]["weights"]
assert recipes["small32_m-finetune"]["test_accuracy"]["mean"] > 0.95, recipes["small32_m-finetune"]["test_accuracy"]
assert results["verdict"]["statement"], results["verdict"]
assert recipes["cnn"]["test_accuracy"]["mean"] > 0.95, recipes["cnn"]["test_accuracy"]
assert recipes["majority"]["test_accuracy"]["mean"] < 0.15, recipes["majority"]["test_accuracy"]
for entry in recipes.values():
    estimate = entry["test_accuracy"]
    assert estimate["low"] <= estimate["mean"] <= estimate["high"], (entry["name"], estimate)
    assert entry["fit_verdict"] in ("overfits", "underfits", "sound"), entry["fit_verdict"]
    assert sum(map(sum, entry["confusion"])) == results["data"]["split"]["test"] * len(entry["seeds"]), entry["name"]
if with_weights:
    assert {"mobilenetv2_100-probe", "mobilenetv2_100-finetune"} <= recipes.keys(), recipes.keys()
for name in ("report.html", "report.md"):
    assert (folder / name).stat().st_size > 10_000, name
print(f"main job: {results['verdict']['statement']}")
