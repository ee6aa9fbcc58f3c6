"""Write what the mistakes look like that no probe can price, as benchmarks/diagnosis/run.py met them, into docs/why-transfer-fails.md
and its Spanish page.

    python benchmarks/diagnosis/examples.py

run.py ends with that, too. Reads benchmarks/results/diagnosis_{tune,report}.json. For every fault without a row in costs.py's table:
in how many of its cases headstart found it, and of the first that was found, of the half `report` if there is one, what it said there
and the points that it measured. Between `<!-- examples -->` and `<!-- end -->`.
"""

from dataclasses import dataclass
from pathlib import Path

import costs
from faults import FAULTS, ROUGHLY_TUNED, WITHOUT_GRADIENTS, Fault
from pages import put
from rows import DOCS, Files, Row, files_of, measured_files, rows_of

from headstart.report.diagnosis_words import bare_interval, coded
from headstart.report.document import plain_text
from headstart.report.language import Texts


@dataclass(frozen=True)
class Words:
    """One language: its code, the words of the other table, this one's head, and the names of the faults."""

    language: str
    costs: costs.Words
    head: str
    faults: dict[str, str]


LANGUAGES = (
    Words(
        "en",
        costs.ENGLISH,
        "| # | mistake | found | what headstart said of one | points |",
        {
            "serves-another-resize": "the service resizes by nearest neighbour",
            "serves-another-range": "the service forgets to divide by 255",
            "rate-too-high": "the last epochs' rate is a thousand times too high",
            "roughly-tuned": "the whole network is trained at once, from a new head and with Adam's usual rate",
            "optimizer-before-thawing": "the optimizer is made before the backbone is unfrozen",
            "without-gradients": "the backbone's forward is under `no_grad`, though all is to train",
            "softmax-twice": "softmax in the network, and again in the loss",
            "head-in-another-order": "a head trained with another list of classes",
            "predictions-in-another-order": "class numbers from another list of names",
            "predictions-of-other-images": "predictions in the order of a shuffled loader",
            "copied-images": "a tenth of the images is in the data twice",
            "stopped-by-test": "the test images serve as val",
            "seen-in-pretraining": "the backbone was pretrained on most of the test images",
            "cached-augmentation": "the cache stands behind the random transforms",
            "unrelated-labels": "labels that the pictures say nothing of",
            "pictures-of-noise": "noise instead of pictures",
            "overfitted": "trained on 300 images until they are known by heart",
            "against-a-large-stem": "an ImageNet network from scratch as the opponent, at 32 px",
        },
    ),
    Words(
        "es",
        costs.SPANISH,
        "| n.º | error | hallado | lo que dijo headstart de uno | puntos |",
        {
            "serves-another-resize": "el servicio amplía con el vecino más próximo",
            "serves-another-range": "el servicio olvida dividir entre 255",
            "rate-too-high": "la tasa de las últimas épocas, mil veces demasiado alta",
            "roughly-tuned": "la red entera se entrena de una vez, desde una cabeza nueva y con la tasa habitual de Adam",
            "optimizer-before-thawing": "el optimizador se crea antes de descongelar la red",
            "without-gradients": "la red se ejecuta bajo `no_grad`, aunque hay que entrenarla entera",
            "softmax-twice": "softmax en la red y otra vez en la pérdida",
            "head-in-another-order": "una cabeza entrenada con otra lista de clases",
            "predictions-in-another-order": "números de clase de otra lista de nombres",
            "predictions-of-other-images": "predicciones en el orden de un cargador que baraja",
            "copied-images": "una décima parte de las imágenes está dos veces en los datos",
            "stopped-by-test": "las imágenes de prueba sirven de validación",
            "seen-in-pretraining": "la red se preentrenó con la mayoría de las imágenes de prueba",
            "cached-augmentation": "la caché está detrás de las transformaciones aleatorias",
            "unrelated-labels": "etiquetas de las que las imágenes no dicen nada",
            "pictures-of-noise": "ruido en vez de imágenes",
            "overfitted": "entrenada con 300 imágenes hasta sabérselas de memoria",
            "against-a-large-stem": "una red de ImageNet desde cero como rival, a 32 px",
        },
    ),
)


def main() -> None:
    """Print the table in both languages, and write both pages."""
    files = files_of(measured_files())
    for words in LANGUAGES:
        print(table(rows_of(files), words))
    write_examples(files)


def write_examples(files: Files, docs: Path = DOCS) -> None:
    """Put the table into both pages."""
    rows = rows_of(files)
    for words in LANGUAGES:
        put(docs / words.costs.page, "examples", table(rows, words))


def table(rows: list[Row], words: Words) -> str:
    """One line for each fault that was planted alone and has no cost of its own, in the order of the catalogue."""
    texts, priced = Texts(words.language), costs.costs_of(rows)
    lines = [words.head, "|---" * 5 + "|"]
    for fault in sorted((*FAULTS, ROUGHLY_TUNED, WITHOUT_GRADIENTS), key=lambda one: one.cause):
        planted = [row for row in rows if row["kind"] == "single" and row["faults"] == fault.name]
        found = [row for row in planted if fault.cause in row.get("found", ())]
        if fault.name in priced or fault.name not in words.faults or not planted:
            continue
        if not found:
            lines.append(f"| {fault.cause} | {words.faults[fault.name]} | 0 / {len(planted)} | – | – |")
            continue
        # The half whose rates are reported comes first.
        shown = min(found, key=lambda row: row["part"] != "report")
        lines.append(
            f"| {fault.cause} | {words.faults[fault.name]} | {len(found)} / {len(planted)} | {_said(fault, shown, words, texts)} |"
        )
    return "\n".join(lines)


def _said(fault: Fault, row: Row, words: Words, texts: Texts) -> str:
    """Where the case is, the sentence of its evidence, and its points, as two cells."""
    cause = row["causes"][str(fault.cause)]
    where = f"{words.costs.data[row['data']]}, {costs.NETWORKS[row['backbone']]}"
    sentence = plain_text(coded("diagnosis_evidence", cause, texts)).replace("|", "\\|")
    points = cause["points"]
    cell = "–" if points is None else f"{texts.decimal(points['mean'], 1)} {bare_interval(points, texts)}"
    return f"{where}: {sentence} | {cell}"


if __name__ == "__main__":
    main()
