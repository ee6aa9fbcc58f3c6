"""Figures with one row or cell per class: counts, F1, confusions. From two to a hundred classes and more."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.report.figures.canvas import (
    FAINT,
    GRID,
    HEAT,
    INK,
    SERIES,
    Canvas,
    columns,
    series_style,
    shortened,
    width_of,
)
from headstart.report.figures.marks import Key, draw_legend, legend_lines, nice_ticks, row_axes, share_axis
from headstart.report.language import Texts

ANNOTATED_CLASSES = 20
"""Up to so many classes a confusion matrix has its counts and class names written in."""

_WIDTH = 720.0
_COUNTED_CLASSES = 30  # chosen: more rows than this are a profile, not a list of names
_CLASS_COLUMNS = 18


def class_counts(classes: Sequence[dict[str, Any]], texts: Texts) -> str:
    """Draw how many images each class has in train, val and test; beyond thirty classes their profile without names."""
    parts = ("train", "val", "test")
    colors = (SERIES[0], SERIES[4], SERIES[3])
    keys = [Key(texts.get(f"figures.{part}"), color, marker="s") for part, color in zip(parts, colors, strict=True)]
    counts = {part: np.array([entry[part] for entry in classes], dtype=float) for part in parts}
    total = sum(counts.values())
    named = len(classes) <= _COUNTED_CLASSES
    height = 76 + (20.0 * len(classes) if named else 200)
    canvas = Canvas("class-counts", _WIDTH, height)
    draw_legend(canvas, legend_lines(keys, _WIDTH), 10, height - 4)
    ticks = [tick for tick in nice_ticks(0, float(np.max(total)) or 1.0) if tick.is_integer()]
    labels = [texts.count(int(tick)) for tick in ticks]
    if named:
        axes = row_axes(canvas, [entry["name"] for entry in classes], right=24, bottom=40, row_height=20)
        start = np.zeros(len(classes))
        for part, color in zip(parts, colors, strict=True):
            axes.barh(-np.arange(len(classes)), counts[part], left=start, height=0.66, color=color, linewidth=0)
            start += counts[part]
        axes.set_xlim(0, (float(np.max(total)) or 1.0) * 1.02)
        canvas.label_x(axes, ticks, labels, fontsize=9)
        axes.grid(visible=True, axis="x", color=GRID, linewidth=0.6)
        canvas.title_x(axes, texts.get("figures.images"))
    else:
        axes = canvas.axes(64, 40, _WIDTH - 84, 200)
        order = np.argsort(-np.asarray(total), kind="stable")
        start = np.zeros(len(classes))
        for part, color in zip(parts, colors, strict=True):
            axes.bar(np.arange(len(classes)), counts[part][order], bottom=start, width=0.8, color=color, linewidth=0)
            start += counts[part][order]
        axes.set_xlim(-0.7, len(classes) - 0.3)
        canvas.label_x(axes, [], [])
        canvas.label_y(axes, ticks, labels, fontsize=9)
        axes.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
        canvas.title_x(axes, texts.get("figures.classes_sorted"))
    axes.set_axisbelow(True)
    return canvas.finish()


def f1_by_class(recipes: Sequence[dict[str, Any]], shown: Sequence[int], texts: Texts) -> str:
    """Draw the F1 of some classes side by side for all recipes.

    Args:
        recipes: entries of `results.json`.
        shown: indices of the classes, in the order of the rows.
        texts: of the report's language.
    """
    keys = [
        Key(shortened(recipe["name"], 30), series_style(index)[0], marker=series_style(index)[1])
        for index, recipe in enumerate(recipes)
    ]
    lines = legend_lines(keys, _WIDTH - 10)
    row = max(20.0, 8.0 + 6.0 * len(recipes))
    canvas = Canvas("f1-by-class", _WIDTH, 60 + 16 * len(lines) + row * len(shown))
    names = [recipes[0]["per_class"][index]["name"] for index in shown]
    axes = row_axes(canvas, names, right=24, bottom=40, row_height=row)
    share_axis(canvas, axes, texts, 0.0, 1.0, vertical=False)
    labels = nice_ticks(0, 1)
    canvas.label_x(axes, labels, [texts.decimal(tick, 1) for tick in labels], fontsize=9)
    canvas.title_x(axes, texts.get("figures.f1"))
    for place, index in enumerate(shown):
        axes.axhline(-place - 0.5, color=GRID, linewidth=0.5)
        for number, recipe in enumerate(recipes):
            offset = (number - (len(recipes) - 1) / 2) * 6.0 / row  # marks of one row never hide each other
            color, marker = series_style(number)
            axes.plot(
                [recipe["per_class"][index]["f1"]], [-place - offset], marker, color=color, markersize=6, clip_on=False
            )
    draw_legend(canvas, lines, 10, canvas.height - 4)
    return canvas.finish()


def confusion_matrix(recipe: dict[str, Any], number: int, texts: Texts) -> str:
    """Draw a recipe's confusion matrix, each cell as dark as its share of the true class.

    Args:
        recipe: entry of `results.json`.
        number: its place in the study, for the figure's name.
        texts: of the report's language.
    """
    counts = np.array(recipe["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [entry["name"] for entry in recipe["per_class"]]
    if len(names) > ANNOTATED_CLASSES:
        return _confusion_raster(shares, number, texts)
    shown = [shortened(name, _CLASS_COLUMNS) for name in names]
    longest = max(width_of(name, 9.5) for name in shown)
    widest = max(columns(texts.count(int(count))) for count in counts.ravel())
    cell = min(60.0, max(26.0, 6.2 * widest + 6, 300 / len(names)))
    side = cell * len(names)
    left, bottom = longest + 32, 18.0
    canvas = Canvas(f"confusion-{number}", left + side + longest * 0.6 + 20, bottom + side + longest * 0.85 + 34)
    axes = canvas.axes(left, bottom, side, side, frame=False)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_axis_off()
    for row in range(len(names)):
        for column in range(len(names)):
            if counts[row, column]:
                _draw_cell(axes, row, column, shares[row, column])
                text = texts.count(int(counts[row, column]))
                weight = "bold" if row == column else "normal"
                canvas.write(
                    axes, column, row, text, ha="center", va="center_baseline", fontsize=9.5, fontweight=weight
                )
        axes.axhline(row - 0.5, color=GRID, linewidth=0.6)
        axes.axvline(row - 0.5, color=GRID, linewidth=0.6)
        canvas.write(axes, -0.5 - 6 / cell, row, shown[row], ha="right", va="center_baseline", fontsize=9.5)
        canvas.write(axes, row, -0.5 - 7 / cell, shown[row], ha="left", va="baseline", fontsize=9.5, rotation=55)
    axes.axhline(len(names) - 0.5, color=GRID, linewidth=0.6)
    axes.axvline(len(names) - 0.5, color=GRID, linewidth=0.6)
    page = canvas.page()
    canvas.write(page, 12, bottom + side / 2, texts.get("figures.true_class"), rotation=90, ha="center", color=FAINT)
    canvas.write(page, left + side / 2, 4, texts.get("figures.predicted_class"), ha="center", color=FAINT)
    return canvas.finish()


def _draw_cell(axes: Any, row: int, column: int, share: float) -> None:
    # Darker than 0.72 the count on it would be hard to read, in a light page and in a dark one.
    axes.fill_between(
        [column - 0.5, column + 0.5],
        row - 0.5,
        row + 0.5,
        color=HEAT,
        alpha=0.06 + 0.66 * float(share),
        linewidth=0,
    )


def _confusion_raster(shares: Any, number: int, texts: Texts) -> str:
    side, left, bottom = 420.0, 30.0, 26.0
    canvas = Canvas(f"confusion-{number}", left + side + 12, bottom + side + 8)
    axes = canvas.axes(left, bottom, side, side, frame=False)
    pixels = np.zeros((*shares.shape, 4))
    pixels[..., :3] = np.array([0x3B, 0x82, 0xC4]) / 255
    pixels[..., 3] = np.sqrt(shares)  # the square root lets rare confusions be seen beside the diagonal
    axes.imshow(pixels, interpolation="none", aspect="auto")
    axes.set_axis_off()
    axes.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0], transform=axes.transAxes, color=GRID, linewidth=1, clip_on=False)
    page = canvas.page()
    canvas.write(page, 14, bottom + side / 2, texts.get("figures.true_class"), rotation=90, ha="center", color=INK)
    canvas.write(page, left + side / 2, 8, texts.get("figures.predicted_class"), ha="center", color=INK)
    return canvas.finish()
