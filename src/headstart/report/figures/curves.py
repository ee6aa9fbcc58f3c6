"""Learning curves: every recipe that trains by epochs, every seed, train against val."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from headstart.report.figures.canvas import GRID, SERIES, Canvas, shortened
from headstart.report.figures.marks import Key, decimals_of, draw_legend, legend_lines, nice_ticks, share_axis
from headstart.report.language import Texts

_WIDTH = 720.0
_PANEL_WIDTH, _PANEL_HEIGHT = 290.0, 130.0
_ROW = 190.0
_TRAIN, _VAL = SERIES[1], SERIES[0]


def learning_curves(recipes: Sequence[dict[str, Any]], texts: Texts) -> str:
    """Draw accuracy and loss of each recipe against the epoch, small multiples, one thin line per seed.

    Args:
        recipes: entries of `results.json` whose `history` has epochs.
        texts: of the report's language.

    Returns:
        An `<svg>` element.
    """
    canvas = Canvas("learning-curves", _WIDTH, 30 + _ROW * len(recipes))
    keys = [
        Key(texts.get("figures.train"), _TRAIN, line="--"),
        Key(texts.get("figures.val"), _VAL, line="-"),
        Key(texts.get("figures.best_epoch"), _VAL, marker="o", line="-"),
    ]
    draw_legend(canvas, legend_lines(keys, _WIDTH - 50), 50, canvas.height - 4)
    for row, recipe in enumerate(recipes):
        bottom = canvas.height - 30 - _ROW * (row + 1) + 38
        for column, what in enumerate(("accuracy", "loss")):
            axes = canvas.axes(52 + 360 * column, bottom, _PANEL_WIDTH, _PANEL_HEIGHT)
            name = shortened(recipe["name"], 30)
            canvas.heading(axes, f"{name}: {texts.get('figures.' + what)}")
            _draw_panel(canvas, axes, recipe, what, texts)
    return canvas.finish()


def _draw_panel(canvas: Canvas, axes: Axes, recipe: dict[str, Any], what: str, texts: Texts) -> None:
    runs = [run for run in recipe["history"] if run["epochs"]]
    for run in runs:
        epochs = [epoch["epoch"] for epoch in run["epochs"]]
        single = "o" if len(epochs) == 1 else None
        for part, color, style in (("train", _TRAIN, "--"), ("val", _VAL, "-")):
            values = [epoch[f"{part}_{what}"] for epoch in run["epochs"]]
            axes.plot(epochs, values, style, color=color, linewidth=1.2, marker=single, markersize=3)
        best = [epoch for epoch in run["epochs"] if epoch["epoch"] == run["best_epoch"]]
        axes.plot(
            [epoch["epoch"] for epoch in best],
            [epoch[f"val_{what}"] for epoch in best],
            "o",
            color=_VAL,
            markersize=5,
        )
    last = max(epoch["epoch"] for run in runs for epoch in run["epochs"])
    first = min(epoch["epoch"] for run in runs for epoch in run["epochs"])
    ticks = sorted({round(tick) for tick in nice_ticks(first, last, 6)} | {first}) if last > first else [first]
    axes.set_xlim(first - 0.02 * (last - first) - 0.2, last + 0.02 * (last - first) + 0.2)
    canvas.label_x(axes, [float(tick) for tick in ticks], [texts.count(tick) for tick in ticks], fontsize=9)
    canvas.title_x(axes, texts.get("figures.epoch"))
    values = [epoch[f"{part}_{what}"] for run in runs for epoch in run["epochs"] for part in ("train", "val")]
    if what == "accuracy":
        low, high = min(values), max(values)
        room = max(0.02, 0.06 * (high - low))
        share_axis(canvas, axes, texts, max(0.0, low - room), min(1.0, high + room), vertical=True)
        return
    high = 1.05 * max(values) or 1.0
    losses = nice_ticks(0, high)
    axes.set_ylim(0, high)
    digits = decimals_of(losses)
    canvas.label_y(axes, losses, [texts.decimal(tick, digits) for tick in losses], fontsize=9)
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.6)
