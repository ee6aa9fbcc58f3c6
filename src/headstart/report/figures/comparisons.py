"""Figures that set recipes side by side: gaps, accuracy against time, differences."""

import math
from collections.abc import Sequence
from typing import Any

from headstart.report.figures.canvas import (
    BAD,
    FAINT,
    GRID,
    HEAT,
    INK,
    SERIES,
    Canvas,
    columns,
    shortened,
    width_of,
)
from headstart.report.figures.marks import (
    NAME_COLUMNS,
    Key,
    decimals_of,
    draw_legend,
    legend_lines,
    names_width,
    nice_ticks,
    row_axes,
    row_note,
    share_axis,
)
from headstart.report.language import Texts

_WIDTH = 720.0
_PAIR_COLUMNS = 31  # "random-features-mobilenetv2_100", the longest name of a default recipe, fits
_MOST_TIMES = 8  # labels that fit beside one another
_ROUND_SECONDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800),
    *(3600 * hours for hours in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)),
)


_FAMILIES = {
    "scratch": (SERIES[0], "o"),
    "small": (SERIES[2], "D"),
    "large": (SERIES[1], "s"),
    "control": (FAINT, "x"),
}
"""Colour and marker of each family of recipes where families are what the figure compares."""
_LARGEST_SMALL = 64  # px; backbones pretrained at more are made for photographs


def gap_figure(recipes: Sequence[dict[str, Any]], texts: Texts) -> str:
    """Draw each recipe's train and val accuracy as the two ends of a bar, with the gap's interval beside it."""
    notes = [texts.difference_interval(recipe["train_val_gap"]) for recipe in recipes]
    canvas = Canvas("gaps", _WIDTH, 76 + 30.0 * len(recipes))
    axes = row_axes(
        canvas,
        [recipe["name"] for recipe in recipes],
        right=14 + max(width_of(note, 9.5) for note in notes),
        bottom=40,
        row_height=30,
    )
    ends = [recipe[part]["mean"] for recipe in recipes for part in ("train_accuracy", "val_accuracy")]
    share_axis(canvas, axes, texts, max(0.0, min(ends) - 0.04), min(1.0, max(ends) + 0.04), vertical=False)
    canvas.title_x(axes, texts.get("figures.accuracy"))
    for row, recipe in enumerate(recipes):
        train, val = recipe["train_accuracy"]["mean"], recipe["val_accuracy"]["mean"]
        color = BAD if recipe["fit_verdict"] == "overfits" else FAINT
        axes.plot([train, val], [-row, -row], "-", color=color, linewidth=3, alpha=0.55, zorder=2)
        axes.plot([train], [-row], "s", color=SERIES[1], markersize=7, markerfacecolor="none", clip_on=False, zorder=3)
        axes.plot([val], [-row], "o", color=SERIES[0], markersize=7, clip_on=False, zorder=3)
        row_note(canvas, axes, row, notes[row])
    keys = [
        Key(texts.get("figures.train"), SERIES[1], marker="s", hollow=True),
        Key(texts.get("figures.val"), SERIES[0], marker="o"),
    ]
    draw_legend(canvas, legend_lines(keys, _WIDTH), 10, canvas.height - 4)
    return canvas.finish()


def accuracy_against_seconds(recipes: Sequence[dict[str, Any]], texts: Texts) -> str:
    """Draw test accuracy against training time (logarithmic) with intervals, one labelled mark per recipe."""
    families = [_family(recipe) for recipe in recipes]
    keys = [
        Key(texts.get(f"figures.family_{family}"), color, marker=marker)
        for family, (color, marker) in _FAMILIES.items()
        if family in families
    ]
    legend = legend_lines(keys, _WIDTH)
    canvas = Canvas("accuracy-against-time", _WIDTH, 406 + 16 * len(legend))
    left, bottom, width, height = 60.0, 46.0, 640.0, 330.0
    axes = canvas.axes(left, bottom, width, height)
    seconds = [recipe["cost"]["train_seconds"] for recipe in recipes]
    positive = [value for value in seconds if value > 0] or [1.0]
    floor = min(positive) if min(seconds) > 0 else min(positive) / 3  # zero has no logarithm: it stands at the left end
    low, high = math.log10(floor) - 0.25, math.log10(max(positive)) + 0.25
    if high - low < 1:
        low, high = (low + high) / 2 - 0.5, (low + high) / 2 + 0.5
    axes.set_xlim(low, high)
    _time_axis(canvas, axes, low, high, texts)
    ends = [recipe["test_accuracy"][end] for recipe in recipes for end in ("low", "high", "mean")]
    bottom_share, top_share = max(0.0, min(ends) - 0.06), min(1.0, max(ends) + 0.06)
    share_axis(canvas, axes, texts, bottom_share, top_share, vertical=True)
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.6)
    canvas.title_x(axes, texts.get("figures.train_seconds"))
    canvas.heading(axes, texts.get("figures.test_accuracy"))

    spots: list[tuple[float, float, int]] = []
    for index, recipe in enumerate(recipes):
        x, accuracy = math.log10(max(seconds[index], floor)), recipe["test_accuracy"]
        color, marker = _FAMILIES[families[index]]
        axes.plot([x, x], [accuracy["low"], accuracy["high"]], "-", color=color, linewidth=1.6)
        axes.plot([x], [accuracy["mean"]], marker, color=color, markersize=8, markeredgewidth=1.8, clip_on=False)
        spots.append(
            (
                (x - low) / (high - low) * width,
                (accuracy["mean"] - bottom_share) / (top_share - bottom_share) * height,
                index,
            )
        )
    page = canvas.page()
    taken = [(x - 7, x + 7, y) for x, y, _ in spots]
    for x, y, index in sorted(spots, key=lambda spot: -spot[1]):
        text = shortened(recipes[index]["name"], NAME_COLUMNS)
        if not seconds[index]:
            text += " (0\u00a0s)"  # it has no place on a logarithmic axis, so its label says where it belongs
        wide = width_of(text)
        start = x + 11 if x + 11 + wide <= width else x - 11 - wide
        label_y = _free_height(start, start + wide, y, taken, height)
        taken.append((start, start + wide, label_y))
        if abs(label_y - y) > 3:
            near = start - 2 if start > x else start + wide + 2
            page.plot([left + x, left + near], [bottom + y, bottom + label_y], "-", color=FAINT, linewidth=0.7)
        canvas.write(page, left + start, bottom + label_y, text, va="center", ha="left", fontsize=9.5)
    draw_legend(canvas, legend, 10, canvas.height - 4)
    return canvas.finish()


def forest(comparisons: Sequence[dict[str, Any]], margin: float, texts: Texts) -> str:
    """Draw the differences between recipes with their intervals, over the band of differences that do not matter."""
    notes = [texts.difference_interval(pair["difference"]) for pair in comparisons]
    shown = ({side: shortened(pair[side], _PAIR_COLUMNS) for side in "ab"} for pair in comparisons)
    names = [texts.get("figures.pair", **sides) for sides in shown]
    limit = 2 * _PAIR_COLUMNS + columns(texts.get("figures.pair", a="", b=""))
    right = 14 + max(width_of(note, 9.5) for note in notes)
    wide = max(_WIDTH, names_width(names, limit) + right + 220)
    canvas = Canvas("differences", wide, 76 + 26.0 * len(comparisons))
    axes = row_axes(canvas, names, right=right, bottom=40, row_height=26, limit=limit)
    ends = [pair["difference"][end] for pair in comparisons for end in ("low", "high")]
    low, high = min(*ends, -margin, 0.0), max(*ends, margin, 0.0)
    room = 0.06 * (high - low) or 0.01
    axes.set_xlim(low - room, high + room)
    ticks = nice_ticks(low - room, high + room)
    digits = decimals_of([100 * tick for tick in ticks])
    canvas.label_x(axes, ticks, [texts.decimal(100 * tick, digits) for tick in ticks], fontsize=9)
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvspan(-margin, margin, color=HEAT, alpha=0.18, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=1)
    canvas.title_x(axes, texts.get("figures.difference"))
    for row, pair in enumerate(comparisons):
        difference = pair["difference"]
        axes.plot([difference["low"], difference["high"]], [-row, -row], "-", color=INK, linewidth=1.6)
        axes.plot([difference["mean"]], [-row], "s", color=INK, markersize=5.5)
        row_note(canvas, axes, row, notes[row])
    keys = [Key(texts.get("figures.margin_band", margin=texts.gap(margin)), HEAT, line="-")]
    draw_legend(canvas, legend_lines(keys, canvas.width), 10, canvas.height - 4)
    return canvas.finish()


def _family(recipe: dict[str, Any]) -> str:
    """From scratch, a backbone made for small images, one made for large images, or a control."""
    if recipe["control"]:
        return "control"
    weights = recipe["weights"]
    if weights is None:
        return "scratch"
    # Runs of the first version do not say; their backbones were made for large images.
    return "small" if weights.get("native_size", _LARGEST_SMALL + 1) <= _LARGEST_SMALL else "large"


def _time_axis(canvas: Canvas, axes: Any, low: float, high: float, texts: Texts) -> None:
    """Label a logarithmic axis of seconds with durations that are round in seconds, minutes or hours."""
    ticks = [seconds for seconds in _ROUND_SECONDS if low <= math.log10(seconds) <= high]
    ticks = ticks[:: -(-len(ticks) // _MOST_TIMES)] if ticks else []
    labels = [texts.duration(seconds).replace(f"{texts.decimal(0, 1)[1:]}\u00a0s", "\u00a0s") for seconds in ticks]
    canvas.label_x(axes, [math.log10(seconds) for seconds in ticks], labels, fontsize=9)


def _free_height(
    left: float, right: float, wished: float, taken: list[tuple[float, float, float]], top: float
) -> float:
    """Find the height nearest to the wished one at which a label overlaps nothing that is there already."""
    for step in range(40):
        for direction in (1, -1):
            height = wished + direction * 3 * step
            if 6 <= height <= top and all(
                right < other_left or left > other_right or abs(height - other) >= 13
                for other_left, other_right, other in taken
            ):
                return height
    return wished
