"""Reports of diagnoses: every code in both languages, the waterfall's arithmetic, what is empty, hostile names."""

import itertools
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from headstart.analysis.diagnosis import CATALOGUE as CAUSES
from headstart.errors import RunError, UsageError
from headstart.report.diagnosis import (
    build_diagnosis_document,
    diagnosis_statement,
    render_diagnosis_summary,
    write_diagnosis_report,
)
from headstart.report.diagnosis_terminal import diagnosis_table, diagnosis_text
from headstart.report.diagnosis_words import coded, evidence, number
from headstart.report.document import Claim, CodeBlock, Details, Document, Heading, Paragraph, Table, plain_text
from headstart.report.figures.canvas import columns
from headstart.report.figures.diagnosis import _LABEL_COLUMNS, waterfall_steps
from headstart.report.language import LANGUAGES, Texts, _load
from headstart.report.render import render_html, render_markdown
from headstart.report.sections.diagnosis_runs import compare_command
from tests.report.diagnosis_example import (
    CATALOGUE,
    CONTROL_SAYS,
    CONTROLS,
    EVIDENCE,
    REPAIRS,
    changed,
    classroom_diagnosis,
    healthy_diagnosis,
    many_causes_diagnosis,
    module_diagnosis,
    predictions_diagnosis,
    with_verdict,
)
from tests.report.test_report import ENGLISH, HOSTILE, SPANISH, _parsed, _prose

EXAMPLES = {
    "classroom": classroom_diagnosis,
    "healthy": healthy_diagnosis,
    "many": many_causes_diagnosis,
    "module": module_diagnosis,
    "predictions": predictions_diagnosis,
}
VERDICTS = ("proved", "healthy", "domain-gap", "unexplained", "suspected-only", "nothing-seen")


def _section(document: Document, anchor: str) -> list[Any]:
    """The blocks of one section, without its heading; empty if the document has no such section."""
    blocks: list[Any] = []
    inside = False
    for block in document.blocks:
        if isinstance(block, Heading):
            inside = block.anchor == anchor
        elif inside:
            blocks.append(block)
    return blocks


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
        "28.6% → 86.5%: 52.0 points were lost to the input size [50.1, 53.9], 4.1 to the pixel range [3.0, 5.2], "
        "1.3 to the head that was not trained far enough [0.4, 2.2]. The repaired recipe reaches 86.5%."
    )
    assert diagnosis_statement(classroom_diagnosis(), Texts("es")).replace("\u00a0", " ") == (
        "28,6 % → 86,5 %: 52,0 puntos se perdieron por el tamaño de entrada [50,1; 53,9]; 4,1 por el rango de los "
        "píxeles [3,0; 5,2]; 1,3 por el poco entrenamiento de la cabeza [0,4; 2,2]. La receta reparada alcanza el 86,5 %."
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
    assert "Outside these two accuracies, 21.4 points were lost to the preprocessing that differs" in said
    assert said.count("the preprocessing that differs") == 1
    assert "Fuera de estas dos exactitudes, 21,4 puntos se perdieron" in diagnosis_statement(record, Texts("es"))


def test_points_of_serving_are_not_charged_to_an_accuracy_that_never_lost_them() -> None:
    record = module_diagnosis()
    record["accuracy"].update(failing=0.95)
    record["causes"] = [cause for cause in many_causes_diagnosis()["causes"] if cause["id"] == 6]
    record["causes"][0]["apart"] = True
    said = diagnosis_statement(record, Texts("en")).replace("\u00a0", " ")
    assert said.startswith("MyNet reaches 95.0%. Outside this accuracy, 21.4 points were lost to the preprocessing")
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
    assert "The pretrained features help too little with these images: classroom-mobilenetv2_100 reaches 28.6%" in (
        diagnosis_statement(with_verdict("domain-gap"), texts)
    )
    assert "was not measured" in diagnosis_statement(module_diagnosis(), texts)
    without_points = with_verdict("suspected-only")
    without_points["verdict"]["code"] = "proved"
    for cause in without_points["causes"][:3]:
        cause["status"] = "proved"
    assert "the cause is proved (the input size" in diagnosis_statement(without_points, texts)


def test_a_domain_gap_names_what_is_still_suspected() -> None:
    record = with_verdict("domain-gap")
    alone = diagnosis_statement(record, Texts("en"))
    by_number = {cause["id"]: cause for cause in record["causes"]}
    by_number[20].update(status="suspected")
    assert diagnosis_statement(record, Texts("en")) == alone, "the verdict is about it"
    by_number[15].update(status="suspected")
    by_number[22].update(status="suspected")
    assert diagnosis_statement(record, Texts("en")) == (
        f"{alone} Still suspected, not proved: the mixed-up class names, overfitting."
    )
    assert diagnosis_statement(record, Texts("es")).endswith(
        " Se sospecha además, sin prueba: la confusión de nombres de clase; el sobreajuste."
    )
    for cause in (7, 8, 9):
        by_number[cause].update(status="suspected")
    assert diagnosis_statement(record, Texts("en")).endswith("and 1 cause besides, in the table.")


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
    for verdict in ("suspected-only", "healthy", "unexplained"):
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


def test_the_waterfall_goes_from_the_failing_to_the_repaired_accuracy() -> None:
    for record in (classroom_diagnosis(), many_causes_diagnosis()):
        steps = waterfall_steps(record)
        assert steps[0].start == record["accuracy"]["failing"]
        assert steps[-1].end == pytest.approx(record["accuracy"]["repaired"])
        assert all(before.end == after.start for before, after in itertools.pairwise(steps))
        for entry, step in zip(record["waterfall"], steps, strict=True):
            assert 100 * (step.end - step.start) == pytest.approx(entry["points"])
            assert (step.low is None) == (entry["cause"] is None)
    first = waterfall_steps(classroom_diagnosis())[0]
    assert first.low == pytest.approx(0.286 + 0.501)
    assert first.high == pytest.approx(0.286 + 0.539)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("count", range(7))
def test_the_waterfall_holds_any_number_of_bars(count: int, language: str) -> None:
    record = many_causes_diagnosis()
    record["waterfall"] = record["waterfall"][:count]
    figures = [block for block in build_diagnosis_document(record, language).blocks if hasattr(block, "svg")]
    assert len(figures) == (1 if count else 0)
    for figure in figures:
        ElementTree.fromstring(figure.svg)
        labels = re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg)
        assert not any("…" in label for label in labels)
        assert sum("[" in label for label in labels) == count
        assert Texts(language).percent(0.865) in labels


def test_the_causes_are_ranked_with_points_evidence_and_advice() -> None:
    (table,) = _section(build_diagnosis_document(classroom_diagnosis(), "en"), "causes")
    assert isinstance(table, Table)
    rows = [[plain_text(cell) for cell in row] for row in table.rows]
    assert [row[0] for row in rows] == ["Input too small", "Wrong pixel range", "Head not trained far enough"]
    assert rows[0][2] == "52.0 [50.1,\u00a053.9]"
    assert "fed 32 px" in rows[0][3]
    assert "Enlarge the images" in rows[0][4]


def test_causes_that_cannot_be_told_apart_name_each_other() -> None:
    (table,) = _section(build_diagnosis_document(many_causes_diagnosis(), "en"), "causes")
    by_name = {plain_text(row[0]): row for row in table.rows}
    assert "cannot tell it from: Pretrained weights not loaded." in plain_text(
        by_name["Batch-norm statistics unlike these images"][3]
    )


def test_the_verdict_says_both_where_nobody_can_tell() -> None:
    record = classroom_diagnosis()
    record["causes"][1]["indistinguishable_from"] = [4]
    said = diagnosis_statement(record, Texts("en"))
    assert said.endswith("These images cannot tell whether the cause is the pixel range or the double scaling.")
    assert "el rango de los píxeles o el doble escalado" in diagnosis_statement(record, Texts("es"))
    assert "cannot tell it from: Pixels scaled twice" in " ".join(_shown(record, "en").split())
    record["causes"][3]["indistinguishable_from"] = [3]
    assert diagnosis_statement(record, Texts("en")).count("cannot tell") == 1


def test_interactions_are_a_table_and_a_sentence() -> None:
    blocks = _section(build_diagnosis_document(classroom_diagnosis(), "en"), "interactions")
    table = next(block for block in blocks if isinstance(block, Table))
    assert [plain_text(cell) for cell in table.rows[0]] == ["Wrong pixel range", "Input too small", "0.4", "11.2"]
    assert plain_text(blocks[-1].text) == (
        "The first row in words: without repairing the input size, 0.4 points are lost to the pixel range; "
        "after that repair, 11.2 points."
    )


def test_what_was_cleared_and_what_could_not_be_looked_at_are_complete() -> None:
    for build in EXAMPLES.values():
        record = build()
        document = build_diagnosis_document(record, "en")
        listed = [
            len(block.rows)
            for anchor in ("causes", "cleared", "not-looked-at")
            for block in _section(document, anchor)
            if isinstance(block, Table)
        ]
        assert sum(listed) == len(record["causes"]) == len({cause["id"] for cause in record["causes"]}) == 23


def test_a_suspicion_that_was_tried_and_cleared_says_what_its_repair_brought() -> None:
    cause = healthy_diagnosis()["causes"][-1]
    said = plain_text(evidence(cause, Texts("en"))).replace("\u00a0", " ")
    assert said.endswith("on average it brought +0.2 points [−0.3, +0.7]: no gain that counts.")


def test_points_measured_outside_the_runs_are_named() -> None:
    record = classroom_diagnosis()
    record["experiment"]["factors"] = [1, 3]
    said = [
        plain_text(b.text)
        for b in _section(build_diagnosis_document(record, "en"), "experiment")
        if isinstance(b, Paragraph)
    ]
    assert any("one by one" in text and "Head not trained far enough" in text for text in said)
    assert not any("Input too small" in text for text in said)


def test_every_run_is_listed_and_folded_away() -> None:
    record = classroom_diagnosis()
    (details,) = [b for b in _section(build_diagnosis_document(record, "en"), "experiment") if isinstance(b, Details)]
    (table,) = details.blocks
    assert isinstance(table, Table)
    assert len(table.rows) == len(record["experiment"]["cells"])
    assert plain_text(table.rows[0][0]) == "Input too small, Wrong pixel range, Head not trained far enough"
    assert plain_text(table.rows[-1][0]) == "none (all repaired)"


def test_the_repair_has_changes_recipe_command_and_code() -> None:
    record = classroom_diagnosis()
    record["data"]["source"] = "my images/photos"
    blocks = _section(build_diagnosis_document(record, "en"), "repair")
    commands = [block.text for block in blocks if isinstance(block, CodeBlock)]
    assert commands[0] == "headstart compare 'my images/photos' --recipe repaired.toml"
    assert commands[1] == record["repair"]["code"].rstrip("\n")
    assert commands[2] == record["repair"]["keras"]
    assert any(isinstance(block, Details) for block in blocks)


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("headstart diagnose cifar10 --lang es", ""),
        ("headstart diagnose d --weights-dir 'my weights' --limit 500", " --weights-dir 'my weights' --limit 500"),
        ("headstart diagnose d --limit=500 --split-seed 3 --runs elsewhere", " --limit=500 --split-seed 3"),
        ("headstart diagnose d --keep-duplicates --name x", " --keep-duplicates"),
        ("headstart.diagnose(...)", ""),
        ("headstart diagnose it's", ""),
    ],
)
def test_the_repaired_recipe_is_trained_on_the_images_that_were_diagnosed(command: str, options: str) -> None:
    record = {**classroom_diagnosis(), "command": command}
    assert compare_command(record, "repaired.toml") == f"headstart compare cifar10 --recipe repaired.toml{options}"


def test_data_without_a_name_have_no_command_to_train_on() -> None:
    record = classroom_diagnosis()
    record["data"]["source"] = "arrays"
    assert compare_command(record, "repaired.toml") == ""
    blocks = _section(build_diagnosis_document(record, "en"), "repair")
    lines = [record["repair"]["code"].rstrip("\n"), record["repair"]["keras"]]
    assert [block.text for block in blocks if isinstance(block, CodeBlock)] == lines
    said = " ".join(plain_text(block.text) for block in blocks if isinstance(block, Paragraph))
    assert "The repaired recipe is in repaired.toml" in said
    assert "To train it" not in said


def test_a_users_network_has_code_and_no_recipe() -> None:
    document = build_diagnosis_document(module_diagnosis(), "en")
    said = " ".join(plain_text(b.text) for b in _section(document, "repair") if isinstance(b, Paragraph))
    assert "your own code" in said
    assert "repaired.toml" not in said
    claim = next(block for block in document.blocks if isinstance(block, Claim))
    assert "1 held-out image" in plain_text(claim.evidence)
    assert not _section(document, "waterfall")


def test_predictions_without_their_network_say_what_only_the_network_can_show() -> None:
    record = predictions_diagnosis()
    document = build_diagnosis_document(record, "en")
    said = " ".join(plain_text(b.text) for b in document.blocks if isinstance(b, Paragraph))
    assert "the predictions outputs.csv for the test images" in said
    statement = diagnosis_statement(record, Texts("en"))
    assert "11.0% → 85.9%: 74.9 points were lost to the mixed-up class names" in statement.replace("\u00a0", " ")
    assert "Still suspected, not proved: choices made on the test images." in statement
    unseen = next(block for block in _section(document, "not-looked-at") if isinstance(block, Table))
    assert len(unseen.rows) == 19


def test_nothing_to_repair_is_said_only_where_nothing_is_suspected() -> None:
    for record, said in (
        (healthy_diagnosis(), "nothing to repair"),
        (with_verdict("suspected-only"), "No change was proved"),
    ):
        record.update(repair={"toml": None, "changes": [], "code": ""}, repaired_recipe=None)
        (paragraph,) = _section(build_diagnosis_document(record, "en"), "repair")
        assert said in plain_text(paragraph.text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_may_be_empty(language: str, tmp_path: Path) -> None:
    record = module_diagnosis()
    record.update(causes=[], interactions=[], controls=[], waterfall=[])
    record.update(repair={"toml": None, "changes": [], "code": ""})
    record["experiment"].update(design="none", factors=[], cells=[])
    record["accuracy"].update(failing_interval=None)
    record["verdict"]["code"] = "unexplained"
    document = build_diagnosis_document(record, language)
    _parsed(render_html(document))
    render_markdown(document, tmp_path / "figures")
    _shown(record, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", EXAMPLES)
def test_pages_are_well_formed_and_in_one_language(name: str, language: str, tmp_path: Path) -> None:
    document = build_diagnosis_document(EXAMPLES[name](), language)
    page = _parsed(render_html(document))
    assert len(page.ids) == len(set(page.ids))
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    foreign = ENGLISH if language == "es" else SPANISH - {"de", "con", "se", "es"}
    for text in _prose(document):
        assert not _words(text) & foreign, text
    assert "A sentence that reports must not copy" not in render_html(document)
    markdown = render_markdown(document, tmp_path / "figures")
    for figure in (tmp_path / "figures").glob("*.svg"):
        ElementTree.parse(figure)
    assert markdown.count("\n## ") == sum(isinstance(b, Heading) and b.level == 2 for b in document.blocks)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    record = changed(classroom_diagnosis(), "classroom-mobilenetv2_100", HOSTILE)
    record = changed(record, "cifar10", HOSTILE)
    record["repair"]["code"] = HOSTILE
    record["causes"][0]["evidence"]["values"]["size"] = HOSTILE
    record["controls"][0]["says"] = HOSTILE
    record["verdict"]["code"] = "unexplained"  # its sentence has the name in it
    document = build_diagnosis_document(record, "en")
    page = render_html(document)
    assert "<script" not in page
    assert "script" not in _parsed(page).tags
    assert "&lt;script&gt;" in page
    outside = re.sub(r"```+text\n.*?\n```+", "", render_markdown(document, tmp_path / "figures"), flags=re.DOTALL)
    assert not re.search(r"(?<!`)<script(?!.*`)", outside)
    assert "<script" not in render_diagnosis_summary(record, "es")


def test_a_terminal_obeys_no_name() -> None:
    record = changed(with_verdict("unexplained"), "classroom-mobilenetv2_100", "[red]net[/red]\x1b[2J")
    record["causes"][0].update(status="suspected")
    record["causes"][0]["evidence"]["values"]["size"] = "\x1b[31m"
    shown = _shown(record, "es")
    assert "[red]net[/red]" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_terminal_of_eighty_columns_shows_the_ranking_whole(language: str) -> None:
    record = many_causes_diagnosis()
    shown = _shown(record, language)
    assert max(columns(line) for line in shown.splitlines()) <= 80
    flat = " ".join(shown.split())
    assert flat.index("21") < flat.index("14") < flat.index("262")
    assert all(
        Texts(language).get(f"diagnosis_cause.{cause['name']}").split()[0] in shown
        for cause in record["causes"]
        if cause["status"] in ("proved", "suspected")
    )
    caption = Texts(language).get("diagnosis.terminal_caption", cleared="11", unseen="3")
    assert " ".join(caption.split()) in flat


def test_the_same_record_gives_the_same_document() -> None:
    assert build_diagnosis_document(many_causes_diagnosis(), "es") == build_diagnosis_document(
        many_causes_diagnosis(), "es"
    )


def test_reports_are_written_beside_the_record_and_twice_the_same(tmp_path: Path) -> None:
    (tmp_path / "diagnosis.json").write_text(json.dumps(classroom_diagnosis()), encoding="utf-8")
    first = write_diagnosis_report(tmp_path, "es")
    contents = [first.html.read_bytes(), first.markdown.read_bytes()]
    again = write_diagnosis_report(tmp_path, "es")
    assert contents == [again.html.read_bytes(), again.markdown.read_bytes()]
    assert (tmp_path / "figures" / "waterfall.svg").is_file()
    assert "(figures/waterfall.svg)" in first.markdown.read_text(encoding="utf-8")


def test_records_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        write_diagnosis_report(tmp_path, "en")
    path = tmp_path / "diagnosis.json"
    path.write_text('{"schema_version": 2, "headstart_version": "9.0"}')
    with pytest.raises(RunError, match=r"schema version 2, written by headstart 9\.0.*Upgrade"):
        write_diagnosis_report(tmp_path, "en")
    path.write_text("{}")
    with pytest.raises(RunError, match=r"no schema_version\. Run the diagnosis again\."):
        write_diagnosis_report(tmp_path, "en")
    path.write_text(json.dumps(classroom_diagnosis()))
    with pytest.raises(UsageError, match="klingon"):
        write_diagnosis_report(tmp_path, "klingon")


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
