"""Draw the figures of docs/why-transfer-fails.md and its Spanish page, and put them there with caption and description.

    python benchmarks/diagnosis/figures.py [--diagnosis FILE] [--results FILE ...]

run.py ends with that, too. `--diagnosis` is the `diagnosis.json` of the classroom case (benchmarks/results/diagnosis_classroom.json
unless another is named): its waterfall, as the report draws it. `--results` are the rows that benchmarks/diagnosis/costs.py writes
its table from: what each mistake costs, every pipeline with its interval. Into docs/figures/, and between
`<!-- classroom-figure -->` or `<!-- costs-figure -->` and `<!-- end -->` of both pages. The same numbers give the same files, byte
for byte.
"""

import argparse
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

import costs
from faults import FAULTS
from pages import put
from rows import DOCS, RESULTS, Files, files_of, measured_files, rows_of

from headstart.files import read_json, write_text
from headstart.report.document import Figure
from headstart.report.figures.canvas import FAINT, GRID, INK, SERIES, Canvas, width_of
from headstart.report.figures.marks import Key, draw_legend, legend_lines, names_width, nice_ticks, row_axes, row_note
from headstart.report.language import Texts
from headstart.report.sections.diagnosis import waterfall_section

CLASSROOM = RESULTS / "diagnosis_classroom.json"
_ROW, _SPREAD = 34.0, 0.66  # points; share of a row that its pipelines lie in
_BARS = 330.0  # points for the marks, beside the names
_COLUMNS = 70  # no name is cut
_FAMILIES = {"large": (SERIES[1], "s"), "small": (SERIES[2], "D")}  # as in the reports


@dataclass(frozen=True)
class Words:
    """One language: its code, the words of the table, and those of the figure of costs."""

    language: str
    costs: costs.Words
    suffix: str
    large: str
    small: str
    interval: str
    median: str
    axis: str
    alt: str
    caption: str


LANGUAGES = (
    Words(
        "en",
        costs.ENGLISH,
        "",
        "an ImageNet network on one data set",
        "a network made for small images",
        "95% interval",
        "median",
        "points of accuracy lost",
        "One row for each mistake: the points that it costs in each pipeline with their intervals, and their median. The table below has "
        "the numbers.",
        "Points of accuracy that each mistake costs when it is made alone. A mark is one pipeline (a network on a data set), the thin line "
        "its 95% interval; the bar, and the number at the right, is the median. The head after one step was measured without intervals.",
    ),
    Words(
        "es",
        costs.SPANISH,
        ".es",
        "una red de ImageNet con un conjunto de datos",
        "una red hecha para imágenes pequeñas",
        "intervalo del 95 %",
        "mediana",
        "puntos de exactitud perdidos",
        "Una fila por error: los puntos que cuesta en cada caso, con sus intervalos, y su mediana. Los números están en la tabla de abajo.",
        "Puntos de exactitud que cuesta cada error cuando se comete a solas. Cada marca es un caso (una red con un conjunto de datos), y "
        "la línea fina, su intervalo del 95 %; la barra, y el número de la derecha, es la mediana. La capa final tras un paso "
        "se midió sin intervalos.",
    ),
)


def main() -> None:
    """Draw both figures in both languages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diagnosis", type=Path, default=CLASSROOM)
    parser.add_argument("--results", type=Path, nargs="+", default=measured_files())
    arguments = parser.parse_args()
    write_figures(files_of(arguments.results), diagnosis=arguments.diagnosis)


def write_figures(files: Files, docs: Path = DOCS, diagnosis: Path = CLASSROOM) -> None:
    """Draw both figures in both languages, and put them into both pages."""
    record = read_json(diagnosis)
    found = costs.costs_of(rows_of(files))
    if not found:
        raise SystemExit(f"No case with a mistake in {', '.join(map(str, files)) or RESULTS}: nothing to draw.")
    for words in LANGUAGES:
        texts = Texts(words.language)
        classroom = next((block for block in waterfall_section(record, texts) if isinstance(block, Figure)), None)
        if classroom is None:
            raise SystemExit(f"{diagnosis} has no waterfall: nothing was repaired in it.")
        costly = Figure("costs", costs_figure(found, words, texts), words.caption, words.alt)
        for name, figure in (("classroom", classroom), ("costs", costly)):
            path = docs / "figures" / f"diagnosis-{name}{words.suffix}.svg"
            write_text(path, _alone(figure.svg) + "\n")
            shown = f"![{figure.alt}](figures/{path.name})\n\n*{figure.caption}*"
            put(docs / words.costs.page, f"{name}-figure", shown)


def costs_figure(found: costs.Costs, words: Words, texts: Texts) -> str:
    """Draw one row for each mistake: its pipelines with their intervals, ordered by what it costs there, and the median.

    Args:
        found: from `costs.costs_of`.
        words, texts: of one language.
    """
    rows = {fault.name: sorted(found[fault.name].items(), key=_by_points) for fault in FAULTS if found.get(fault.name)}
    medians = {name: statistics.median(cost.points for _, cost in pipelines) for name, pipelines in rows.items()}
    names = [words.costs.faults[name] for name in rows]
    notes = [texts.decimal(median, 1) for median in medians.values()]
    right = 20 + max(width_of(note, 9.5) for note in notes)
    wide = names_width(names, _COLUMNS) + _BARS + right
    keys = [
        *(Key(getattr(words, family), color, marker=marker) for family, (color, marker) in _FAMILIES.items()),
        Key(words.interval, FAINT, line="-"),
        Key(words.median, INK, marker="|"),
    ]
    legend = legend_lines(keys, wide)
    canvas = Canvas("costs", wide, 52 + 16.0 * len(legend) + _ROW * len(names))
    axes = row_axes(canvas, names, right=right, bottom=40, row_height=_ROW, limit=_COLUMNS)
    ends = [end for pipelines in rows.values() for _, cost in pipelines for end in cost if end is not None]
    low, high = min(ends) - 1, max(ends) + 1
    axes.set_xlim(low, high)
    ticks = nice_ticks(low, high, 8)
    canvas.label_x(axes, ticks, [texts.decimal(tick, 0) for tick in ticks], fontsize=9)
    axes.grid(visible=True, axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.axvline(0, color=FAINT, linewidth=1)
    canvas.title_x(axes, words.axis)
    for row, (name, pipelines) in enumerate(rows.items()):
        for place, ((_, backbone), cost) in enumerate(pipelines):
            height = -row + _SPREAD * ((place + 0.5) / len(pipelines) - 0.5)
            color, marker = _FAMILIES["small" if backbone.startswith("small32") else "large"]
            if cost.low is not None and cost.high is not None:
                axes.plot([cost.low, cost.high], [height, height], "-", color=FAINT, linewidth=0.7, zorder=2)
            axes.plot([cost.points], [height], marker, color=color, markersize=3.6, zorder=3)
        axes.plot([medians[name]] * 2, [-row - 0.42, -row + 0.42], "-", color=INK, linewidth=2.2, zorder=1.8)
        row_note(canvas, axes, row, notes[row])
    draw_legend(canvas, legend, 10, canvas.height - 4)
    return canvas.finish()


def _by_points(pipeline: tuple[tuple[str, str], costs.Cost]) -> tuple[float, tuple[str, str]]:
    return pipeline[1].points, pipeline[0]


def _alone(svg: str) -> str:
    """An SVG that needs no page around it: a white ground, and colours instead of the page's variables."""
    fixed = re.sub(r"var\(--[\w-]+, (#[0-9a-f]{6})\)", r"\1", svg)
    return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="#ffffff"/>', fixed, count=1)


if __name__ == "__main__":
    main()
