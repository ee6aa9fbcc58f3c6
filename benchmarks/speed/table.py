"""Write the tables of docs/benchmarks.md, and the contest of the README, from benchmarks/results/speed.json.

    python -m benchmarks.speed.table [--results FILE] [--page FILE]

Each table stands between `<!-- its name -->` and `<!-- end -->`. What has no result is called "not measured yet". With another `--page`
the README stays as it is.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.files import read_json, write_text

from .processes import ROOT
from .run import RESULTS
from .setting import Row
from .targets import TARGETS, Measure, Target

PAGE, README = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
NOT_MEASURED = "not measured yet"
_TWO_MINUTES, _TWO_HOURS = 120, 7200


def main() -> None:
    """Replace what stands between the page's markers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    results: dict[str, Any] = read_json(arguments.results) if arguments.results.exists() else {}
    rows: list[Row] = [row for part in results.values() for row in part["rows"]]
    if any(row["quick"] for row in rows) and arguments.page.resolve() == PAGE.resolve():
        raise SystemExit(
            f"{arguments.results} holds rows of a trial (--quick), which say nothing. Measure them, or name another --page."
        )
    tables = {
        "machine": machine(results, rows),
        "summary": summary(rows),
        "features": features_table(rows),
        "transfer": transfer_table(rows),
        "probe": probe_table(rows),
        "scratch": scratch_table(rows),
        "finetune": finetune_table(rows),
        "memory": memory_table(rows),
        "folder": folder_table(rows),
        "notes": notes(rows),
    }
    _fill(arguments.page, tables)
    if arguments.page.resolve() == PAGE.resolve():
        _fill(README, {"contest": contest_table(rows)})


def _fill(path: Path, tables: dict[str, str]) -> None:
    page = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        before, opened, rest = page.partition(f"<!-- {name} -->\n")
        _, closed, after = rest.partition("<!-- end -->")
        if not opened or not closed:
            raise SystemExit(f"{path} has no place for {name!r}: <!-- {name} --> and <!-- end -->, each on a line.")
        page = f"{before}{opened}{table}\n{closed}{after}"
    write_text(path, page)


def summary(rows: list[Row]) -> str:
    """Every claim with its bar, and whether it is met."""
    lines = ["| what | peer | measured | bar | stretch | |", "|---|---|---|---|---|---|"]
    for name, target in TARGETS.items():
        found = [row for row in rows if row["target"] == name]
        limits = " | ".join(
            "–" if limit is None else _shown(limit, target.measure) for limit in (target.bar, target.stretch)
        )
        measured = "; ".join(_measured(row, target, many=len(found) > 1) for row in found) or NOT_MEASURED
        verdict = "; ".join(dict.fromkeys(_verdict(row, target) for row in found))
        lines.append(f"| {target.what} | {target.peer or '–'} | {measured} | {limits} | {verdict} |")
    return "\n".join(lines)


def _measured(row: Row, target: Target, *, many: bool) -> str:
    value = _shown(row[target.measure], target.measure)
    if row.get("lower_bound"):
        value = f"at least {value}"
    return f"{value} ({row['images']:,} images)" if many else value


def _verdict(row: Row, target: Target) -> str:
    """Met or missed, and by how much; what the row's own conditions say comes first."""
    failed = [words for words, holds in row.get("conditions", {}).items() if not holds]
    if failed:
        reached = f" (it reached {_percent(row['ours_test_accuracy'])})" if "ours_test_accuracy" in row else ""
        return f"does not count, since this does not hold: {', '.join(failed)}{reached}"
    value = row[target.measure]
    addition = "; the peer never got there" if row.get("lower_bound") else ""
    if target.stretch is not None and _reaches(value, target.stretch, target):
        return f"stretch met{addition}"
    if target.bar is not None and _reaches(value, target.bar, target):
        return f"bar met{addition}"
    limit, word = (target.stretch, "stretch") if target.bar is None else (target.bar, "bar")
    if limit is None:
        return ""
    share = abs(value / limit - 1)
    return f"{word} missed by {share:.1%}{addition}" if share < 0.01 else f"{word} missed by {share:.0%}{addition}"


def _reaches(value: float, limit: float, target: Target) -> bool:
    return value >= limit if target.more_is_better else value <= limit


def features_table(rows: list[Row]) -> str:
    """Images per second by input size."""
    lines = [
        "| px | what | images | ours, images/s | peer, images/s | ratio | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    forward_note = []
    for size in (96, 160, 224):
        for kind, words in (("features", "from decoded images"), ("forward", "forward pass alone")):
            row = _row(rows, f"{kind}-{size}")
            if row is None:
                lines.append(f"| {size} | {words} | {NOT_MEASURED} | | | | |")
                continue
            rounds = len(row["ours_seconds" if kind == "features" else "ours_rounds"])
            lines.append(
                f"| {size} | {words} | {row['images']:,} | {row['ours_images_per_second']:,.0f} | "
                f"{row['peer_images_per_second']:,.0f} | {row['ratio']:.2f}x | {rounds} |"
            )
            if kind == "forward":
                forward_note.append(f"{row['share']:.0%} at {size} px ({row['way']})")
    row = _row(rows, "matrix-96")
    if row is None:
        return "\n".join([*lines, "", f"Share of the machine's float32 matrix-product rate: {NOT_MEASURED}."])
    return "\n".join(
        [
            *lines,
            "",
            "Float32 matrix products of 2048 x 2048, GFLOP/s: "
            + ", ".join(f"{library} {rate / 1e9:,.0f}" for library, rate in row["by_library"].items())
            + f". Our forward pass reaches of the quickest {', '.join(forward_note)}.",
        ]
    )


def transfer_table(rows: list[Row]) -> str:
    """Files to test accuracy against both peers, and the second run."""
    names = {"transfer-keras": "Keras", "transfer-torch": "plain PyTorch", "rerun": "second run, against our first"}
    return _seconds_table(rows, names, "peer")


def probe_table(rows: list[Row]) -> str:
    """Seconds of the probe, and what each L2 reaches."""
    table = _seconds_table(rows, {"probe": "scikit-learn"}, "peer")
    row = _row(rows, "probe")
    if row is None:
        return table
    fits = [f"{'; '.join(f'{one:,.1f}' for one in row[f'{side}_fit_seconds'])} s" for side in ("ours", "peer")]
    lines = [
        table,
        "",
        f"Fitting alone, without the start of the process: ours {fits[0]}, scikit-learn {fits[1]}. Values of L2 fitted: "
        f"{row['values_fitted']['ours']} and {row['values_fitted']['peer']}.",
        "",
        "| L2 | train log loss, ours | scikit-learn | with the penalty, ours | scikit-learn | iterations of scikit-learn |",
        "|---|---|---|---|---|---|",
    ]
    for one, iterations in zip(row["by_l2"], row["peer_iterations"], strict=False):
        numbers = [one[f"{side}_{what}"] for what in ("log_loss", "objective") for side in ("ours", "peer")]
        lines.append(f"| {one['l2']:g} | " + " | ".join(f"{number:.5f}" for number in numbers) + f" | {iterations:,} |")
    return "\n".join(lines)


def scratch_table(rows: list[Row]) -> str:
    """From scratch to an accuracy."""
    lines = [_seconds_table(rows, {"scratch-71": "Keras' tutorial CNN, 71%"}, "peer"), "", *_never_reached(rows)]
    lines += [
        "| goal | ours | test accuracy | epochs, width | FLOP | ResNet-18, extrapolated | FLOP | ratio of seconds, of FLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("scratch-90", "scratch-94"):
        row = _row(rows, name)
        if row is None:
            lines.append(f"| {name[-2:]}% | {NOT_MEASURED} | | | | | | |")
            continue
        settings = row["ours_settings"]
        lines.append(
            f"| {name[-2:]}% | {_shown(row['seconds'], 'seconds')} | {_percent(row['ours_test_accuracy'])} | "
            f"{settings['epochs']}, {settings['width']} | {row['ours_flop']:.1e} | "
            f"{_shown(row['peer_seconds_extrapolated'], 'seconds')} ({row['peer_epochs_assumed']} epochs assumed, "
            f"{row['peer_step_seconds']:.2f} s a step) | {row['peer_flop_extrapolated']:.1e} | "
            f"{row['ratio_extrapolated']:,.1f}x, {row['flop_ratio_extrapolated']:,.1f}x |"
        )
    return "\n".join(lines)


def _never_reached(rows: list[Row]) -> list[str]:
    row = _row(rows, "scratch-71")
    if row is None or not row["lower_bound"]:
        return []
    rounds = [one for one in row["peer_by_epoch"] if max(one) < row["goal"]]
    best = ", ".join(f"{_percent(max(one))} after epoch {one.index(max(one)) + 1} of {len(one)}" for one in rounds)
    return [
        f"The peer never reached {row['goal']:.0%} in {len(rounds)} of {len(row['peer_by_epoch'])} rounds: its best was {best}. "
        "Its seconds end with that epoch, so that the ratio is a lower bound.",
        "",
    ]


def finetune_table(rows: list[Row]) -> str:
    """Seconds of an epoch with and without the cache."""
    row = _row(rows, "finetune")
    lines = [
        "| images | px | ours, an epoch | without the cache | ratio | extraction, once | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    if row is None:
        return "\n".join([*lines, f"| {NOT_MEASURED} | | | | | | |"])
    lines.append(
        f"| {row['images']:,} | {row['input_size']} | {_list(row['ours_seconds'])} s | {_list(row['peer_seconds'])} s | "
        f"{row['ratio']:.2f}x | {row['extraction_seconds']:.1f} s | {row['kept_bytes'] / 1e6:,.0f} MB |"
    )
    return "\n".join(lines)


def memory_table(rows: list[Row]) -> str:
    """Peak memory of the whole comparison."""
    row = _row(rows, "memory")
    lines = ["| images, epochs | resident | unshared | without mapped files | took |", "|---|---|---|---|---|"]
    if row is None:
        return "\n".join([*lines, f"| {NOT_MEASURED} | | | | |"])
    epochs = row["epochs"] or (f"as many as fit into {row['budget']}" if row["budget"] else "the default")
    size = f"{'all' if row['limit'] is None else format(row['limit'], ',')}, {epochs}"
    lines.append(f"| {size} | {_three_peaks(row)} | {_shown(row['seconds'], 'seconds')} |")
    return "\n".join(lines)


def contest_table(rows: list[Row]) -> str:
    """The comparison whose memory was measured, as its report has it."""
    row = _row(rows, "memory")
    if row is None:
        return f"The contest: {NOT_MEASURED}."
    competitors = [one for one in row["contest"] if one["name"] != "majority"]
    planned, took = (
        _shown(sum(one[f"{kind}_seconds"] for one in row["contest"]), "seconds") for kind in ("planned", "actual")
    )
    environment, limit = row["environment"], f"a subset of {row['limit']:,}" if row["limit"] else "all 50,000"
    asked = (
        f" --budget {row['budget']} --seeds 1"
        if row["budget"]
        else f" --epochs {row['epochs']}"
        if row["epochs"]
        else ""
    )
    where = f"{environment['cores']} {environment['processor']} cores, no GPU"
    took_in_all, memory = _shown(row["seconds"], "seconds"), _shown(row["rss_bytes"], "bytes")
    lines = [
        f"Measured on {row['date']} with `headstart compare DIR{asked}` (CIFAR-10 as a folder of files, so without mirroring; "
        f"{limit} training images, {where}): {took_in_all} from the files to the report, at most {memory} of "
        f"memory. The plan had said {planned} for the trainings, which took {took}.",
        "",
        "| recipe | input | epochs | test accuracy [95%] | gap | fit | training |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in competitors:
        accuracy, shortened = one["test_accuracy"], one["epochs"] != one["asked_epochs"]
        of_its = f" of its {one['asked_epochs']}" if shortened else ""
        epochs = f"{one['epochs']}{of_its}" if one["epochs"] else "–"
        if one.get("width", 0) < one.get("asked_width", 0):
            epochs += f", {one['width']} of its {one['asked_width']} channels"
        low, high = (f"{100 * accuracy[end]:.1f}" for end in ("low", "high"))
        lines.append(
            f"| `{one['name']}`{' (control)' if one['control'] else ''} | {one['input_size']} px | {epochs} | "
            f"{_percent(accuracy['mean'])} [{low}, {high}] | {100 * one['gap']:+.1f} | {one['fit']} | {_shown(one['seconds'], 'seconds')} |"
        )
    if left_out := row.get("left_out"):
        lines += ["", f"Left out, since the budget did not allow it: {', '.join(f'`{name}`' for name in left_out)}."]
    return "\n".join([*lines, "", f"Its verdict: {row['verdict']}"])


def folder_table(rows: list[Row]) -> str:
    """Seconds and memory by number of images."""
    lines = [
        "| images | size | ours, images/s | peer, images/s | ratio | resident | unshared | without mapped files | ours, accuracy | peer |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    found = sorted((row for row in rows if row["target"] == "folder"), key=lambda row: row["images"])
    lines += [
        f"| {row['images']:,} | {row['file_bytes'] / 1e9:.1f} GB | {row['ours_images_per_second']:,.0f} | "
        f"{row['peer_images_per_second']:,.0f} | {row['ratio']:.2f}x | {_three_peaks(row)} | "
        f"{_percent(row['ours_test_accuracy'])} | {_percent(row['peer_test_accuracy'])} |"
        for row in found
    ]
    return "\n".join(lines if found else [*lines, f"| {NOT_MEASURED} | | | | | | | | | |"])


def machine(results: dict[str, Any], rows: list[Row]) -> str:
    """When, on what, with which versions and for how long it was measured."""
    if not rows:
        return f"Machine and date: {NOT_MEASURED}."
    lines = []
    for facts in _distinct(rows, _machine_of):
        mine = [row for row in rows if _machine_of(row) == facts]
        when: dict[str, dict[str, None]] = {}
        for row in mine:
            when.setdefault(row["date"], {})[row["part"]] = None
        dated = "; ".join(f"on {date} {', '.join(when[date])}" for date in sorted(when))
        busiest = max(row["busy_before_percent"] for row in mine)
        lines.append(
            f"Measured {dated}, each with the code of its day: {facts}. "
            f"Processor busy with other work before a part: at most {busiest:.0f}%."
        )
    minutes = ", ".join(f"{name} {part['seconds'] / 60:,.0f}" for name, part in results.items())
    return "\n".join([*lines, f"Minutes that the parts took: {minutes}."])


def _machine_of(row: Row) -> str:
    environment, peers = row["environment"], row["peer_versions"]
    versions = {
        "headstart": environment["headstart"],
        "Python": environment["python"],
        "torch": environment["torch"],
        "timm": environment["timm"],
        "onnxruntime": environment["onnxruntime"],
        "scikit-learn": environment["scikit-learn"],
        "TensorFlow": peers.get("tensorflow", peers.get("tensorflow_cpu", "missing")),
        "Keras": peers.get("keras", "missing"),
    }
    return (
        f"{environment['processor']}, {environment['cores']} cores, {environment['threads']} threads, "
        f"{row['memory_bytes'] / 2**30:.0f} GiB, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


def notes(rows: list[Row]) -> str:
    """What has to be known of each row."""
    if not rows:
        return f"- {NOT_MEASURED}"
    return "\n".join(f"- `{row['name']}`: {row['note']}." for row in rows)


def _seconds_table(rows: list[Row], names: dict[str, str], peer: str) -> str:
    lines = [
        f"| {peer} | ours, s | peer, s | ratio | rounds | ours, test accuracy | peer |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, words in names.items():
        row = _row(rows, name)
        if row is None:
            lines.append(f"| {words} | {NOT_MEASURED} | | | | | |")
            continue
        accuracies = [row.get(f"{side}_test_accuracy") for side in ("ours", "peer")]
        shown = " | ".join("–" if one is None else _percent(one) for one in accuracies)
        lines.append(
            f"| {words} | {_list(row['ours_seconds'])} | {_list(row['peer_seconds'])} | "
            f"{'at least ' if row.get('lower_bound') else ''}{row['ratio']:.1f}x | "
            f"{len(row['peer_seconds'])} | {shown} |"
        )
    return "\n".join(lines)


def _row(rows: list[Row], name: str) -> Row | None:
    return next((row for row in rows if row["name"] == name), None)


def _distinct(rows: list[Row], key: Callable[[Row], str]) -> list[str]:
    return list(dict.fromkeys(key(row) for row in rows))


def _three_peaks(row: Row) -> str:
    return " | ".join(_shown(row[f"{kind}_bytes"], "bytes") for kind in ("rss", "uss", "anonymous"))


def _list(seconds: list[float]) -> str:
    return "; ".join(f"{one:,.1f}" for one in seconds)


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f}%"


def _shown(value: float, measure: Measure) -> str:
    """A value in the unit that people read it in."""
    if measure == "ratio":
        return f"{value:.1f}x"
    if measure == "share":
        return f"{value:.0%}"
    if measure == "bytes":
        return f"{value / 1e9:.2f} GB"
    if measure == "growth":
        return f"{value:.2f}"
    if value < _TWO_MINUTES:
        return f"{value:,.0f} s"
    return f"{value / 60:,.1f} min" if value < _TWO_HOURS else f"{value / 3600:,.1f} h"


if __name__ == "__main__":
    main()
