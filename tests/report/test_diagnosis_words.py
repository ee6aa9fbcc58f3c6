"""A diagnosis in words: every code, cause and verdict in both languages, what a sentence names and what it leaves out."""

import re
from typing import Any

import pytest
from rich.console import Console

from headstart.analysis.diagnosis import CATALOGUE as CAUSES
from headstart.report.diagnosis import (
    build_diagnosis_document,
    diagnosis_statement,
    render_diagnosis_summary,
)
from headstart.report.diagnosis_terminal import diagnosis_table, diagnosis_text
from headstart.report.diagnosis_words import coded, number
from headstart.report.document import plain_text
from headstart.report.figures.canvas import columns
from headstart.report.figures.diagnosis import _LABEL_COLUMNS
from headstart.report.language import LANGUAGES, Texts, _load
from headstart.report.render import render_html
from tests.report.diagnosis_example import (
    CATALOGUE,
    CONTROL_SAYS,
    CONTROLS,
    EVIDENCE,
    REPAIRS,
    classroom_diagnosis,
    healthy_diagnosis,
    many_causes_diagnosis,
    module_diagnosis,
    with_verdict,
)
from tests.report.test_report import ENGLISH, SPANISH

VERDICTS = ("proved", "healthy", "domain-gap", "unexplained", "suspected-only", "nothing-seen")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def _shown(record: dict[str, Any], language: str) -> str:
    console = Console(width=80, record=True, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(diagnosis_table(record, Texts(language)))
    console.print(diagnosis_text(record, Texts(language)))
    console.file.close()
    return console.export_text()


def test_the_example_knows_every_cause() -> None:
    assert dict(enumerate(CATALOGUE, start=1)) == CAUSES


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_cause_has_its_texts(language: str) -> None:
    texts = Texts(language)
    for name in CATALOGUE:
        for section in ("diagnosis_cause", "diagnosis_lost_to", "diagnosis_todo"):
            assert texts.has(f"{section}.{name}"), (section, name)
        title = texts.get(f"diagnosis_cause.{name}")
        assert columns(title) <= _LABEL_COLUMNS, "the figure would cut it"
        assert texts.get(f"diagnosis_todo.{name}").endswith(".")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("section", "codes"), [("diagnosis_evidence", EVIDENCE), ("diagnosis_repair", REPAIRS)])
def test_every_code_is_said_with_all_its_values(section: str, codes: dict[str, Any], language: str) -> None:
    texts = Texts(language)
    for code, values in codes.items():
        assert texts.has(f"{section}.{code}"), code
        assert texts.placeholders(f"{section}.{code}") == values.keys(), code
        said = plain_text(coded(section, {"code": code, "values": values}, texts))
        assert "{" not in said
        assert texts.get("diagnosis.unknown") not in said
    known = {key.split(".", 1)[1] for key in _load(language) if key.startswith(f"{section}.")}
    assert known == codes.keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_other_code_has_a_text(language: str) -> None:
    texts = Texts(language)
    for section, codes in (("control", CONTROLS), ("control_against", CONTROLS), ("control_says", CONTROL_SAYS)):
        known = {key.split(".", 1)[1] for key in _load(language) if key.startswith(f"diagnosis_{section}.")}
        assert known == set(codes), section
    assert all(
        texts.has(f"diagnosis_status.{status}") for status in ("proved", "suspected", "cleared", "could-not-look")
    )
    assert all(texts.has(f"diagnosis.experiment_{design}") for design in ("full-factorial", "sampled-orders"))
    assert all(texts.has(f"diagnosis_verdict.{code}") for code in VERDICTS)


def test_texts_are_in_their_language() -> None:
    for language, foreign in (
        ("en", SPANISH - {"de", "con", "se", "es"}),
        # `loss` and `accuracy` are names of lists in Python, too.
        ("es", ENGLISH | {"layer"}),
    ):
        for key, text in _load(language).items():
            if key.startswith(("diagnosis", "figures.waterfall")):
                assert not _words(re.sub(r"\{\w+\}", " ", text)) & foreign, key


def test_the_sentence_of_the_class_exercise() -> None:
    assert diagnosis_statement(classroom_diagnosis(), Texts("en")).replace("\u00a0", " ") == (
        "28.6% → 86.5% with the repaired recipe: 52.0 points were lost to the input size [50.1, 53.9], 4.1 to the pixel range "
        "[3.0, 5.2], 1.3 to the head that was not trained far enough [0.4, 2.2]."
    )
    assert diagnosis_statement(classroom_diagnosis(), Texts("es")).replace("\u00a0", " ") == (
        "28,6 % → 86,5 % con la receta reparada: 52,0 puntos se perdieron por el tamaño de entrada [50,1; 53,9]; 4,1 por el rango de los "
        "píxeles [3,0; 5,2]; 1,3 por el poco entrenamiento de la cabeza [0,4; 2,2]."
    )


def test_a_users_network_is_not_called_a_recipe() -> None:
    record = classroom_diagnosis()
    record["subject"]["kind"] = "module"
    assert diagnosis_statement(record, Texts("en")).endswith(
        "Repaired, and with a newly fitted linear head, your network reaches 86.5%."
    )
    assert "con una cabeza lineal ajustada de nuevo, tu red alcanza el" in diagnosis_statement(record, Texts("es"))


def test_a_network_whose_classes_are_relabelled_gets_no_new_head() -> None:
    record = classroom_diagnosis()
    record["subject"]["kind"] = "module"
    for cause in record["causes"]:
        if cause["status"] == "proved":
            cause["status"] = "cleared"
    record["causes"].append({**record["causes"][0], "id": 15, "name": "label-order", "status": "proved"})
    record["waterfall"] = [{"cause": 15, "points": 52.0}]
    assert diagnosis_statement(record, Texts("en")).endswith("Repaired, your network reaches 86.5%.")


def test_a_sentence_names_four_causes_and_counts_the_rest() -> None:
    said = diagnosis_statement(many_causes_diagnosis(), Texts("en"))
    assert len(re.findall(r"\[", said)) == 4
    assert "and 2 causes besides, in the table" in said
    assert "Also proved, though not measured in points: the mismatch of loss and outputs" in said


def test_points_outside_the_two_accuracies_are_said_apart() -> None:
    record = many_causes_diagnosis()
    record["waterfall"] = [step for step in record["waterfall"] if step["cause"] != 6]
    said = diagnosis_statement(record, Texts("en")).replace("\u00a0", " ")
    assert (
        "Measured apart, no part of the way from 28.6% to 86.5%: 21.4 points were lost to the preprocessing that differs"
        in said
    )
    assert said.count("the preprocessing that differs") == 1
    spanish = diagnosis_statement(record, Texts("es")).replace("\u00a0", " ")
    assert "Medido aparte, no forma parte del paso del 28,6 % al 86,5 %: 21,4 puntos se perdieron" in spanish


def test_points_of_serving_are_not_charged_to_an_accuracy_that_never_lost_them() -> None:
    record = module_diagnosis()
    record["accuracy"].update(failing=0.95)
    record["causes"] = [cause for cause in many_causes_diagnosis()["causes"] if cause["id"] == 6]
    record["causes"][0]["apart"] = True
    said = diagnosis_statement(record, Texts("en")).replace("\u00a0", " ")
    assert said.startswith(
        "MyNet reaches 95.0%. Measured apart, no part of this accuracy: 21.4 points were lost to the preprocessing"
    )
    assert "was not measured" not in said


def test_a_fault_that_flattered_the_score_is_said_to_have_done_so() -> None:
    record = many_causes_diagnosis()
    record["causes"] = [cause for cause in record["causes"] if cause["id"] in (6, 16)]
    said = diagnosis_statement(record, Texts("en")).replace("\u00a0", " ")
    assert "6.3 points of the score are owed to test images that are also in training [5.6, 7.0]" in said


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", VERDICTS)
def test_every_verdict_is_said(code: str, language: str) -> None:
    for record in (with_verdict(code), {**with_verdict(code), "accuracy": module_diagnosis()["accuracy"]}):
        said = diagnosis_statement(record, Texts(language))
        assert said.endswith(".")
        assert "\n" not in said
        assert "{" not in said


def test_verdicts_say_what_they_are_about() -> None:
    texts = Texts("en")
    assert "19 of 23 possible causes cleared, 4 could not be looked at" in diagnosis_statement(
        healthy_diagnosis(), texts
    )
    assert "28.6%. Nothing is proved; suspected: the input size, the pixel range" in diagnosis_statement(
        with_verdict("suspected-only"), texts
    )
    gap = diagnosis_statement(with_verdict("domain-gap"), texts).replace("\u00a0", " ")
    assert "The pretrained features help too little with these images: classroom-mobilenetv2_100 reaches 28.6%" in gap
    assert "reaches 41.0%, on those of the same network with random weights 40.5% (+0.5 points [−1.2, +2.2])" in gap
    assert "was not measured" in diagnosis_statement(module_diagnosis(), texts)
    without_points = with_verdict("suspected-only")
    without_points["verdict"]["code"] = "proved"
    for cause in without_points["causes"][:3]:
        cause["status"] = "proved"
    assert "with the repaired recipe. Proved: the input size, the pixel range, " in diagnosis_statement(
        without_points, texts
    )


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(
    ("code", "said"),
    [("scratch-better", ("61", "72")), ("features-at-chance", ("10", "9"))],
)
def test_a_domain_gap_is_said_with_the_proof_that_it_has(language: str, code: str, said: tuple[str, ...]) -> None:
    record = with_verdict("domain-gap")
    gap = next(cause for cause in record["causes"] if cause["id"] == 20)
    gap["evidence"] = {"code": code, "values": EVIDENCE[code]}
    statement = diagnosis_statement(record, Texts(language))
    assert all(number in statement for number in said)
    assert statement != diagnosis_statement(with_verdict("domain-gap"), Texts(language))


def test_no_more_suspicions_are_named_than_a_sentence_can_bear() -> None:
    record = many_causes_diagnosis()
    for cause in record["causes"]:
        if cause["status"] == "cleared":
            cause.update(status="suspected", indistinguishable_from=[])
    assert "besides, in the table." in diagnosis_statement(record, Texts("en"))


def test_what_is_proved_is_followed_by_what_is_only_suspected() -> None:
    record = many_causes_diagnosis()
    assert diagnosis_statement(record, Texts("en")).endswith(
        "Still suspected, not proved: the batch-norm statistics of other images, pretrained weights that were not loaded."
    )
    record["causes"][0]["indistinguishable_from"] = [10, 13]  # named as what the cause could be instead
    assert "Still suspected" not in diagnosis_statement(record, Texts("en"))
    record["causes"][0]["indistinguishable_from"] = []
    for cause in record["causes"]:
        if cause["id"] in (10, 13):  # they look like one that is proved
            cause["indistinguishable_from"] = [record["causes"][0]["id"]]
    assert "Still suspected" not in diagnosis_statement(record, Texts("en"))
    for verdict in ("suspected-only", "domain-gap", "healthy", "unexplained"):
        assert "Still suspected" not in diagnosis_statement(with_verdict(verdict), Texts("en"))


DRAWN = {
    "en": "it has seen them, and its accuracy is too high.",
    "es": "ya las ha visto, y su exactitud sale demasiado alta.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_users_network_may_have_seen_test_images_that_were_drawn(language: str) -> None:
    record = module_diagnosis()
    assert DRAWN[language] in " ".join(_shown(record, language).split())
    assert DRAWN[language] in render_html(build_diagnosis_document(record, language))
    assert DRAWN[language] in render_diagnosis_summary(record, language)
    official, older = module_diagnosis(), module_diagnosis()
    official["data"]["test_drawn"] = False
    del older["data"]["test_drawn"]
    ours = classroom_diagnosis()
    ours["data"]["test_drawn"] = True
    for other in (official, older, ours):
        assert DRAWN[language] not in " ".join(_shown(other, language).split())
        assert DRAWN[language] not in render_html(build_diagnosis_document(other, language))


@pytest.mark.parametrize(
    ("language", "value", "words"),
    [
        ("en", "bilinear-aliased", "the interpolation is bilinear without antialiasing, which leaves blocks"),
        ("en", "nearest", "the interpolation is nearest-neighbour, which leaves blocks"),
        ("es", "bilinear-aliased", "la interpolación es bilineal sin suavizado previo, que deja bloques"),
        ("es", "nearest", "la interpolación es de vecino más próximo, que deja bloques"),
        ("en", "brand-new", "the interpolation is brand-new, which leaves blocks"),
    ],
)
def test_interpolations_have_names(language: str, value: str, words: str) -> None:
    entry = {"code": "other-interpolation", "values": {"found": value, "expected": "bilinear"}}
    assert words in plain_text(coded("diagnosis_evidence", entry, Texts(language)))


def test_a_code_newer_than_the_texts_is_shown_as_it_is() -> None:
    texts = Texts("es")
    assert plain_text(coded("diagnosis_evidence", {"code": "brand-new", "values": {"a": 1}}, texts)) == "brand-new"
    said = plain_text(coded("diagnosis_evidence", {"code": "enough-input", "values": {"size": None}}, texts))
    assert said.count("desconocido") == 3


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (255.0, "255"),
        (-2.1179, "−2.12"),
        (0.99999, "1"),
        (1.7, "1.7"),
        (12.34, "12.3"),
        (3e-5, "<\u00a00.0001"),
    ],
)
def test_measured_numbers_have_three_digits(value: float, written: str) -> None:
    assert number(value, Texts("en")) == written
