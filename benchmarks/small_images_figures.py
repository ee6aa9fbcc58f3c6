"""Write the tables and figures of docs/small-images.md from benchmarks/results/small_images.json.

python benchmarks/small_images_figures.py
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from headstart.files import read_json
from headstart.models.small32 import FAMILY

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "small-images.md"
FIGURES = ROOT / "docs" / "figures"
ORANGE, GREEN = "#c25e1c", "#3a7d44"
COLOURS = {
    "small32_l-finetune": GREEN,
    "small32_m-finetune": "#9cc7a4",
    "small32_s-finetune": "#d3e8d7",
    "fast": "#2a5d9f",
    "small32_m-scratch": "#777777",
    "cnn": ORANGE,
}


def main() -> None:
    """Replace what stands between the page's markers, and draw the figures."""
    results = read_json(Path(__file__).parent / "results" / "small_images.json")
    mpl.rcParams.update(
        {"svg.hashsalt": "headstart", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    FIGURES.mkdir(exist_ok=True)
    _accuracy_against_speed(results)
    _few_labels(results)
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables(results).items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition("<!-- end -->")
        if not opened or not closed:
            raise SystemExit(f"{PAGE} has no place for {name!r}: <!-- {name} --> and <!-- end -->, each on a line.")
        page = f"{before}{opened}{table}\n{closed}{after}"
    PAGE.write_text(page, encoding="utf-8")


def tables(results: dict[str, Any]) -> dict[str, str]:
    """What stands in each place of the page."""
    return {
        "speed": speed_table(results),
        "probe": probe_table(results),
        "taps": taps_table(results),
        "widths": widths_table(results),
        "architectures": architectures_table(results["architectures"]["rows"]),
        "few": fine_tuning_table(results["few"]),
        "budget": fine_tuning_table(results["budget"]),
        "sizes": sizes_table(results["sizes"]["rows"]),
        "machine": machine(results),
    }


def speed_table(results: dict[str, Any]) -> str:
    """Images per second of each contender, and how many times the peer's at 96 px."""
    rows = results["speed"]["rows"]
    peer = next(row["images_per_second"] for row in rows if row["name"] == "mobilenetv2_100@96")
    lines = [
        "| backbone @ px | parameters | multiply-adds | images/s | against MobileNetV2 @ 96 | G multiply-adds/s |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name'].replace('@', ' @ ')} | {row['parameters'] / 1e6:.2f} M | {row['multiply_adds'] / 1e6:.1f} M | "
        f"{row['images_per_second']:,.0f} ({row['best_way']}) | {row['images_per_second'] / peer:.2f}x | "
        f"{row['multiply_adds'] * row['images_per_second'] / 1e9:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def probe_table(results: dict[str, Any]) -> str:
    """Probe accuracy by number of labels, one column each."""
    rows = results["probe"]["rows"]
    labels = sorted({row["labels"] for row in rows})
    lines = [
        "| backbone @ px | " + " | ".join(f"{count:,} labels" for count in labels) + " |",
        "|---" * (len(labels) + 1) + "|",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        cells = [
            _interval(next(row for row in rows if (row["name"], row["labels"]) == (name, count))) for count in labels
        ]
        lines.append(f"| {name.replace('@', ' @ ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def taps_table(results: dict[str, Any]) -> str:
    """Probe accuracy by what the features are pooled from."""
    lines = ["| features of `small32_m` | width | probe with 5,000 labels |", "|---|---|---|"]
    lines += [f"| {row['name']} | {row['features']} | {_interval(row)} |" for row in results["taps"]["rows"]]
    return "\n".join(lines)


def widths_table(results: dict[str, Any]) -> str:
    """Speed by how the channels are shared out."""
    lines = ["| channels | parameters | multiply-adds | images/s | G multiply-adds/s |", "|---|---|---|---|---|"]
    for row in results["widths"]["rows"]:
        chosen = " (chosen)" if tuple(row["channels"]) in FAMILY.values() else ""
        rate = row["multiply_adds"] * row["images_per_second"] / 1e9
        lines.append(
            f"| {', '.join(map(str, row['channels']))}{chosen} | {row['parameters'] / 1e6:.2f} M | "
            f"{row['multiply_adds'] / 1e6:.1f} M | {row['images_per_second']:,.0f} | {rate:.0f} |"
        )
    return "\n".join(lines)


def architectures_table(rows: list[dict[str, Any]]) -> str:
    """What short pretrainings of other architectures are worth in a probe, and their speed."""
    lines = [
        "| architecture | channels | parameters | multiply-adds | images/s | probe with 5,000 labels |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {', '.join(map(str, row['channels']))} | {row['parameters'] / 1e6:.2f} M | "
        f"{row['multiply_adds'] / 1e6:.1f} M | {row['images_per_second']:,.0f} | {100 * row['probe_accuracy']:.1f}% |"
        for row in rows
    ]
    return "\n".join(lines)


def fine_tuning_table(part: dict[str, Any]) -> str:
    """Fine-tuning and its opponents, with the paired difference."""
    lines = [
        "| labels | recipe | epochs | seeds | training | test accuracy [95%] | fine-tuning is better by |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(part["rows"], key=lambda row: row["labels"]):  # those of one number stay in their order
        gain = "; ".join(
            f"{name.removesuffix('-finetune')} {100 * difference['mean']:+.1f} "
            f"[{100 * difference['low']:.1f}, {100 * difference['high']:.1f}]"
            for name, difference in row.get("fine_tuned_minus_this", {}).items()
        )
        lines.append(
            f"| {row['labels']:,} | {row['name']} | {row['epochs']} | {row['seeds']} | {row['train_seconds']:,.0f} s | "
            f"{_interval(row)} | {gain} |"
        )
    missing = [f"`{one['name']}` with {one['labels']:,} labels" for one in part.get("not_run", [])]
    return "\n".join([*lines, "", f"Not run: {', '.join(missing)}."] if missing else lines)


def sizes_table(rows: list[dict[str, Any]]) -> str:
    """Accuracy on images of 64 px at each input size, and what 48 px bring against 64."""
    lines = ["| backbone | at 32 px | at 48 px | at 64 px | 48 against 64 px [95%] |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(row["name"] for row in rows):
        at = {row["input_size"]: row for row in rows if row["name"] == name}
        gained = {key: 100 * at[64]["better_at_48"][key] for key in ("mean", "low", "high")}
        accuracies = " | ".join(f"{100 * at[side]['accuracy']['mean']:.1f}%" for side in (32, 48, 64))
        lines.append(f"| {name} | {accuracies} | {gained['mean']:+.1f} [{gained['low']:.1f}, {gained['high']:.1f}] |")
    return "\n".join(lines)


def machine(results: dict[str, Any]) -> str:
    """When and on what it was measured."""
    environment = results["speed"]["environment"]
    days: dict[str, list[str]] = {}
    for name, part in results.items():
        days.setdefault(part["date"], []).append(name)
    dates = [f"{day} ({', '.join(names)})" for day, names in sorted(days.items())]
    return (
        f"Measured on {' and '.join(dates)}: {environment['processor']}, {environment['threads']} threads, "
        f"torch {environment['torch']}, onnxruntime {environment['onnxruntime']}, headstart {environment['headstart']}."
    )


def _interval(row: dict[str, Any]) -> str:
    accuracy = row["test_accuracy"]
    return f"{100 * accuracy['mean']:.1f}% [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"


def _accuracy_against_speed(results: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4.0))
    speeds = {row["name"]: row["images_per_second"] for row in results["speed"]["rows"]}
    for row in results["probe"]["rows"]:
        if row["labels"] != 5000:
            continue
        small = row["name"].startswith("small32")
        accuracy = row["test_accuracy"]
        axes.plot([speeds[row["name"]]] * 2, [100 * accuracy["low"], 100 * accuracy["high"]], color="0.5", linewidth=1)
        axes.plot(speeds[row["name"]], 100 * accuracy["mean"], "D" if small else "s", color=GREEN if small else ORANGE)
        axes.annotate(
            row["name"].replace("@", " @ ") + " px",
            (speeds[row["name"]], 100 * accuracy["mean"]),
            textcoords="offset points",
            xytext=(7, 5),
            fontsize=9,
        )
    axes.set_xscale("log")
    axes.set_xlabel("images per second on two cores (logarithmic)")
    axes.set_ylabel("probe accuracy with 5,000 labels, %")
    axes.grid(visible=True, color="0.9")
    axes.margins(x=0.25, y=0.1)
    _save(figure, "small-images-speed.svg")


def _few_labels(results: dict[str, Any]) -> None:
    rows = [row for part in ("few", "budget") for row in results[part]["rows"]]
    labels = sorted({row["labels"] for row in rows})
    names = list(dict.fromkeys(row["name"] for row in sorted(rows, key=lambda row: row["labels"])))
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    apart = 0.8 / len(names)
    for number, name in enumerate(names):
        for place, count in enumerate(labels):
            row = next((row for row in rows if (row["name"], row["labels"]) == (name, count)), None)
            if row is None:
                continue
            accuracy = row["test_accuracy"]
            x = place + (number - (len(names) - 1) / 2) * apart
            seen = name in axes.get_legend_handles_labels()[1]
            axes.bar(x, 100 * accuracy["mean"], 0.9 * apart, color=COLOURS[name], label=None if seen else name)
            axes.plot([x, x], [100 * accuracy["low"], 100 * accuracy["high"]], color="black", linewidth=1)
            axes.text(x, 100 * accuracy["high"] + 1, f"{100 * accuracy['mean']:.1f}", ha="center", fontsize=8)
    axes.set_xticks(range(len(labels)), [f"{count:,} labels" for count in labels])
    axes.set_ylabel("test accuracy, %")
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=9)
    _save(figure, "small-images-labels.svg")


def _save(figure: Any, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FIGURES / name, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
