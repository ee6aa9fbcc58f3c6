"""headstart's speed against its peers, as ratios measured on one machine.

    python -m benchmarks.speed.run --cifar10 DIR --weights DIR [--parts features,probe] [--rounds N] [--out FILE] [--quick]

To be run from the repository's root, with the extra `bench` installed (`make bench` does both). CIFAR-10 is a folder with
train/<class>/ and test/<class>/, or an archive of one; the folder of weights has mobilenetv2_100.safetensors.

What is measured runs in a process of its own, ours and the peer's in turns, on as many threads as each takes by itself. Rows
are written to `benchmarks/results/speed.json` as soon as they are measured; rows of other parts keep their place. A part whose process
fails does not end the others.
`python -m benchmarks.speed.table` writes docs/benchmarks.md from them.

features    images/s of frozen MobileNetV2 at 96, 160 and 224 px against Keras' `predict`; both networks alone
transfer    CIFAR-10 at 96 px from files to test accuracy against Keras and plain PyTorch; a second run on cached features
probe       the linear probe for twelve values of L2 against scikit-learn
scratch     seconds to 71% test accuracy against the CNN of Keras' tutorial
scratch90   seconds to 90% beside ResNet-18 in plain PyTorch, which is extrapolated from a few steps
scratch94   seconds to 94%, likewise
finetune    an epoch of partial fine-tuning with and without kept activations
memory      peak memory of the whole default comparison on CIFAR-10 (`--budget`: in so much time; `--limit`, `--epochs`: less of it)
folder      folders of JPEG files of 256 px, made here, against plain PyTorch (`--folder-images`)

Nothing else should run on the machine meanwhile. `--quick` tries the benchmark itself on a few images, in about a minute a
part; its numbers mean nothing and go to a file of their own.
"""

import argparse
import datetime
import importlib.metadata
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from headstart.environment import describe_environment
from headstart.files import read_json, write_json

from .data import arrays_of, part_of, png_folder
from .keras_weights import weights_file
from .parts import PARTS
from .processes import ROOT, FailedProcessError
from .setting import Row, Setting
from .targets import TARGETS

RESULTS = ROOT / "benchmarks" / "results" / "speed.json"
_PEERS = ("tensorflow", "tensorflow_cpu", "keras", "psutil")
_IDLE_PERCENT = 10.0  # chosen: above it something else is at work
_QUICK_PER_CLASS = 60


def main() -> None:
    """Measure the parts that were asked for and keep each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--parts", default="all", help="all, or such as features,probe")
    parser.add_argument("--rounds", type=int, help="of everything; default: 3, and 1 of what takes long")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/speed.json")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "bench", help="for what is made on the way")
    parser.add_argument("--quick", action="store_true", help="few images: a trial of the benchmark, no measurement")
    parser.add_argument("--limit", type=int, help="training images of the part memory")
    parser.add_argument("--epochs", type=int, help="of the part memory")
    parser.add_argument("--budget", help="of the part memory, such as 15m")
    parser.add_argument("--folder-images", default="20000,100000", help="of the part folder: two numbers at least")
    arguments = parser.parse_args()
    names = list(PARTS) if arguments.parts == "all" else arguments.parts.split(",")
    if unknown := sorted(set(names) - set(PARTS)):
        raise SystemExit(f"There is no part {', '.join(unknown)}. There are {', '.join(PARTS)}.")
    if len(set(arguments.folder_images.split(","))) < 2:
        raise SystemExit(
            "--folder-images takes two numbers at least: growth is measured from the smallest to the largest."
        )
    setting = _setting(arguments)
    out = (arguments.out or (setting.work / "quick.json" if setting.quick else RESULTS)).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = read_json(out) if out.exists() else {}
    failed = [name for name in names if not _measured(name, setting, results, out)]
    if failed:
        raise SystemExit(
            f"Not measured to their end: {', '.join(failed)}. Their messages are above; what was measured is in {out}."
        )


def _measured(name: str, setting: Setting, results: dict[str, Any], out: Path) -> bool:
    """Measure a part and keep each row; `False` where one of its processes failed: those of the other parts are not to blame."""
    busy = psutil.cpu_percent(interval=2.0)
    warning = ": something else is at work, the numbers will suffer" if busy > _IDLE_PERCENT else ""
    print(f"== {name} (processor {busy:.0f}% busy before{warning})", flush=True)
    facts = _circumstances(setting, busy)
    started = time.perf_counter()
    part, now = results.setdefault(name, {"rows": []}), set[str]()
    try:
        for row in PARTS[name](setting):
            now.add(row["name"])
            goal = TARGETS[row["target"]]
            judged = {"part": name, **row, "measure": goal.measure, "bar": goal.bar, "stretch": goal.stretch}
            part["rows"] = [one for one in part["rows"] if one["name"] != row["name"]] + [judged | facts]
            part["seconds"] = round(time.perf_counter() - started, 1)
            write_json(out, results)  # after each row: what is measured is not lost with what is interrupted
            print(f"{row['name']}: {_said(row)}", flush=True)
    except FailedProcessError as error:
        print(f"{name}: {error}", flush=True)
        return False
    part["rows"] = [
        row for row in part["rows"] if row["name"] in now
    ]  # such as folders of other sizes, of an earlier time
    write_json(out, results)
    return True


def _setting(arguments: argparse.Namespace) -> Setting:
    """Make what every part needs: PNG files and arrays, and for a trial a small part of them."""
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not weights_file(arguments.weights).exists():
        raise SystemExit(f"{weights_file(arguments.weights)} does not exist; docs/weights.md shows the format.")
    cifar10 = png_folder(arguments.cifar10.resolve(), work)
    if arguments.quick:
        cifar10 = part_of(cifar10, work, _QUICK_PER_CLASS)
    return Setting(
        cifar10=cifar10,
        arrays=arrays_of(cifar10, work),
        weights=arguments.weights.resolve(),
        work=work,
        rounds=arguments.rounds,
        quick=arguments.quick,
        limit=arguments.limit,
        epochs=arguments.epochs,
        budget=arguments.budget,
        folder_images=tuple(int(one) for one in arguments.folder_images.split(",")),
    )


def _circumstances(setting: Setting, busy: float) -> Row:
    """When, on what and with which versions a row is measured."""
    versions = {}
    for package in _PEERS:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "quick": setting.quick,
        "busy_before_percent": busy,
        "memory_bytes": psutil.virtual_memory().total,
        "environment": describe_environment(torch.device("cpu")),
        "peer_versions": versions,
    }


def _said(row: Row) -> str:
    """A row in a line: its numbers, without lists and words."""
    kept = {key: value for key, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    failed = [words for words, holds in row.get("conditions", {}).items() if not holds]
    return ", ".join(f"{key} {value:g}" for key, value in kept.items()) + (f"; not met: {failed}" if failed else "")


if __name__ == "__main__":
    main()
