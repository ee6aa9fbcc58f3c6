"""Write what each mistake costs, as benchmarks/diagnosis/run.py measured it, into docs/why-transfer-fails.md and its Spanish page.

    python benchmarks/diagnosis/costs.py

run.py ends with that, too. Reads benchmarks/results/diagnosis_{tune,report}.json, both halves: nothing is chosen by these
numbers. For every fault with a cost of its own: the points that a linear probe loses when it alone is made in a correct pipeline,
in how many pipelines (data set and network) that was measured, the median, the least and the most with where it was. Between
`<!-- costs -->` and `<!-- end -->`.
"""

import statistics
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from faults import FAULTS
from pages import put
from rows import DOCS, Files, Row, files_of, measured_files, rows_of


@dataclass(frozen=True)
class Words:
    """One language: the page, the table's head, and the names of faults and data sets."""

    page: str
    head: str
    faults: dict[str, str]
    data: dict[str, str]
    decimal: str


class Cost(NamedTuple):
    """Points that a mistake costs in one pipeline, and the ends of their 95% interval where it was measured."""

    points: float
    low: float | None
    high: float | None


Costs = dict[str, dict[tuple[str, str], Cost]]
"""By fault, then by pipeline: data set and backbone."""


ENGLISH = Words(
    "why-transfer-fails.md",
    "| # | mistake, made alone | pipelines | points lost: median | least | most |",
    {
        "without-resize": "images not enlarged, 8 to 64 px",
        "shrunk": "images at half the size that suits them",
        "framed-black": "a black frame instead of enlarging",
        "framed-zero": "a frame of zeros after normalising",
        "not-normalized": "0..1, never normalised",
        "raw": "0..255, never divided",
        "imagenet-numbers": "ImageNet's mean and deviation for a network that expects -1..1",
        "only-centred": "the mean subtracted, the deviation forgotten",
        "divided-twice": "divided by 255 twice",
        "normalized-twice": "normalised twice",
        "standardised-alone": "each image standardised by itself",
        "reversed-channels": "BGR for RGB",
        "nearest": "nearest neighbour instead of the network's interpolation",
        "left-training": "batch norm in training mode",
        "statistics-of-noise": "batch norm's statistics overwritten by a dry run on noise",
        "statistics-as-published": "fog, with the statistics of clear photographs",
        "never-loaded": "weights never loaded",
        "half-loaded": "half of the weights never loaded",
        "one-step": "a head after a single step of training",
    },
    {
        "cifar": "CIFAR-10",
        "gray": "CIFAR-10 in gray",
        "imbalanced": "CIFAR-10, imbalanced",
        "tiny": "CIFAR-10 at 16 px",
        "upscaled": "CIFAR-10 at 64 px",
        "fog": "CIFAR-10 in fog",
        "digits": "digits",
        "tiny-imagenet": "Tiny ImageNet",
    },
    ".",
)
SPANISH = Words(
    "why-transfer-fails.es.md",
    "| n.º | error, cometido a solas | casos | puntos perdidos: mediana | lo menos | lo más |",
    {
        "without-resize": "imágenes sin ampliar, de 8 a 64 px",
        "shrunk": "imágenes a la mitad del tamaño que les conviene",
        "framed-black": "un marco negro en vez de ampliar",
        "framed-zero": "un marco de ceros después de normalizar",
        "not-normalized": "0..1, sin normalizar",
        "raw": "0..255, sin dividir",
        "imagenet-numbers": "la media y la desviación de ImageNet para una red que espera -1..1",
        "only-centred": "la media restada y la desviación olvidada",
        "divided-twice": "dividido dos veces entre 255",
        "normalized-twice": "normalizado dos veces",
        "standardised-alone": "cada imagen estandarizada por su cuenta",
        "reversed-channels": "BGR por RGB",
        "nearest": "el vecino más próximo en vez de la interpolación de la red",
        "left-training": "la normalización por lotes en modo de entrenamiento",
        "statistics-of-noise": "sus estadísticas sobrescritas por una pasada de prueba con ruido",
        "statistics-as-published": "niebla, con las estadísticas de fotografías nítidas",
        "never-loaded": "pesos que nunca se cargaron",
        "half-loaded": "la mitad de los pesos sin cargar",
        "one-step": "una capa final tras un solo paso de entrenamiento",
    },
    {
        "cifar": "CIFAR-10",
        "gray": "CIFAR-10 en gris",
        "imbalanced": "CIFAR-10, desequilibrado",
        "tiny": "CIFAR-10 a 16 px",
        "upscaled": "CIFAR-10 a 64 px",
        "fog": "CIFAR-10 con niebla",
        "digits": "dígitos",
        "tiny-imagenet": "Tiny ImageNet",
    },
    ",",
)
NETWORKS = {
    "mobilenetv2_100": "MobileNetV2 1.0",
    "mobilenetv2_035": "MobileNetV2 0.35",
    "small32_m": "`small32_m`",
    "small32_s": "`small32_s`",
}


def main() -> None:
    """Print the table in both languages, and write both pages."""
    files = files_of(measured_files())
    for words in (ENGLISH, SPANISH):
        print(table(costs_of(rows_of(files)), words))
    write_costs(files)


def write_costs(files: Files, docs: Path = DOCS) -> None:
    """Put the table into both pages."""
    costs = costs_of(rows_of(files))
    for words in (ENGLISH, SPANISH):
        put(docs / words.page, "costs", table(costs, words))


def costs_of(rows: list[Row]) -> Costs:
    """For each fault and pipeline (data set, backbone) the points that it costs alone, on networks as published."""
    causes = {fault.name: str(fault.cause) for fault in FAULTS}
    costs: Costs = defaultdict(dict)
    for row in rows:
        for fault in row["faults"].split("+"):
            measured = row.get("measured", {}).get(causes.get(fault, ""))
            alone = (
                None if measured is None else measured["points"] if row["kind"] == "single" else measured.get("alone")
            )
            if alone is not None and row["network"] == "as-published":
                ends = measured.get("alone_low"), measured.get("alone_high")
                costs[fault][row["data"], row["backbone"]] = Cost(alone, *ends)
    return costs


def table(costs: Costs, words: Words) -> str:
    """One line for each fault, in the order of the catalogue."""
    lines = [words.head, "|---" * 6 + "|"]
    for fault in FAULTS:
        found = {where: cost.points for where, cost in costs.get(fault.name, {}).items()}
        if not found:
            continue
        least, most = min(found, key=found.__getitem__), max(found, key=found.__getitem__)

        def said(where: tuple[str, str], found: dict[tuple[str, str], float] = found) -> str:
            return f"{_points(found[where], words)} ({words.data[where[0]]}, {NETWORKS[where[1]]})"

        median = _points(statistics.median(found.values()), words)
        ends = f"{said(least)} | {said(most)}" if len(found) > 1 else f"| {said(most)}"
        lines.append(f"| {fault.cause} | {words.faults[fault.name]} | {len(found)} | {median} | {ends} |")
    return "\n".join(lines)


def _points(value: float, words: Words) -> str:
    return f"{value:.1f}".replace(".", words.decimal)


if __name__ == "__main__":
    main()
