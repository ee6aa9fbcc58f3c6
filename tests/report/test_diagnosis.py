"""Reports of diagnoses: every code in both languages, the waterfall's arithmetic, what is empty, hostile names."""

import itertools
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from headstart.diagnosis.repair_lines import Own, code_lines, keras_lines
from headstart.errors import RunError, UsageError
from headstart.models.backbones import find_backbone
from headstart.records import Preprocessing
from headstart.report.diagnosis import (
    build_diagnosis_document,
    diagnosis_statement,
    render_diagnosis_summary,
    write_diagnosis_report,
)
from headstart.report.diagnosis_words import evidence
from headstart.report.document import (
    Claim,
    CodeBlock,
    Details,
    Document,
    Figure,
    Heading,
    Paragraph,
    Table,
    plain_text,
)
from headstart.report.figures.canvas import columns
from headstart.report.figures.diagnosis import waterfall_steps
from headstart.report.language import LANGUAGES, Texts
from headstart.report.render import render_html, render_markdown
from headstart.report.sections.diagnosis_runs import compare_command
from tests.report.diagnosis_example import (
    changed,
    classroom_diagnosis,
    healthy_diagnosis,
    many_causes_diagnosis,
    module_diagnosis,
    predictions_diagnosis,
    with_verdict,
)
from tests.report.test_diagnosis_words import _shown, _words
from tests.report.test_report import ENGLISH, HOSTILE, SPANISH, _parsed, _prose

EXAMPLES = {
    "classroom": classroom_diagnosis,
    "healthy": healthy_diagnosis,
    "many": many_causes_diagnosis,
    "module": module_diagnosis,
    "predictions": predictions_diagnosis,
}


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
def test_the_waterfall_says_where_its_points_are_shares_of_more_than_is_repaired(language: str) -> None:
    said = Texts(language).get("diagnosis.waterfall_caption_all")

    def caption(record: dict[str, Any]) -> str:
        (figure,) = (
            one for one in _section(build_diagnosis_document(record, language), "waterfall") if isinstance(one, Figure)
        )
        return figure.caption

    record = many_causes_diagnosis()
    assert said not in caption(record)
    record["experiment"]["factors"].append(10)
    assert said in caption(record)
    record["experiment"]["design"] = "full-factorial"
    assert said not in caption(record)


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


def test_the_file_of_copies_is_named_beside_duplicates_and_only_where_it_is() -> None:
    for made, section in ((many_causes_diagnosis, "causes"), (classroom_diagnosis, "cleared")):
        named = _section(build_diagnosis_document(made(), "en"), section)
        assert [isinstance(block, Paragraph) for block in named] == [False, True]
        assert isinstance(named[1], Paragraph)
        assert plain_text(named[1].text).startswith("copies.csv")
        without = made()
        without["repair"] = without["repair"] | {"copies": None}
        assert len(_section(build_diagnosis_document(without, "en"), section)) == 1


def test_causes_that_cannot_be_told_apart_name_each_other() -> None:
    table, _ = _section(build_diagnosis_document(many_causes_diagnosis(), "en"), "causes")
    assert isinstance(table, Table)
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
    assert [plain_text(cell).replace("\u00a0", " ") for cell in table.rows[0]] == [
        *("Wrong pixel range", "Input too small", "0.4", "11.2", "−10.8 [−12.4, −9.2]")
    ]
    assert "certain" in table.caption
    assert plain_text(blocks[-1].text) == (
        "The first row in words: as long as the input size is not repaired, repairing the pixel range brings 0.4 points; "
        "once it is, 11.2 points."
    )


def test_what_was_cleared_and_what_could_not_be_looked_at_are_complete() -> None:
    for build in EXAMPLES.values():
        record = build()
        document = build_diagnosis_document(record, "en")
        listed = [
            sum(len(plain_text(row[0]).split("; ")) for row in block.rows)
            for anchor in ("causes", "cleared", "not-looked-at")
            for block in _section(document, anchor)
            if isinstance(block, Table)
        ]
        assert sum(listed) == len(record["causes"]) == len({cause["id"] for cause in record["causes"]}) == 23


def test_causes_that_one_sentence_clears_stand_in_one_row() -> None:
    record = classroom_diagnosis()
    cleared = [cause for cause in record["causes"] if cause["status"] == "cleared"]
    for cause in cleared[:3]:
        cause.update(evidence={"code": "by-construction", "values": {}}, points=None)
    tables = [
        block for block in _section(build_diagnosis_document(record, "en"), "cleared") if isinstance(block, Table)
    ]
    assert len(tables[0].rows) == len(cleared) - 2
    together = next(
        row for row in tables[0].rows if plain_text(row[1]).startswith("A recipe of headstart cannot have it")
    )
    names = [Texts("en").named("diagnosis_cause", cause["name"]) for cause in cleared[:3]]
    assert plain_text(together[0]) == "; ".join(names)


def test_a_suspicion_that_was_tried_and_cleared_says_what_its_repair_brought() -> None:
    cause = healthy_diagnosis()["causes"][-1]
    said = plain_text(evidence(cause, Texts("en"))).replace("\u00a0", " ")
    assert said.endswith("on average it brought +0.2 points [−0.3, +0.7]: no gain that counts.")


def test_a_suspicion_with_other_points_alone_than_on_average_names_both() -> None:
    cause = healthy_diagnosis()["causes"][-1]
    cause["status"], cause["points"] = "suspected", {"mean": -6.0, "low": -8.1, "high": -3.9}
    cause["points_alone"] = {"mean": 1.2, "low": -0.5, "high": 3.0}
    said = plain_text(evidence(cause, Texts("en"))).replace("\u00a0", " ")
    assert "it brings −6.0 points [−8.1, −3.9], as the last of them +1.2 points [−0.5, +3.0]" in said
    assert "too uncertain" not in said
    cause["points_alone"] = cause["points"]
    assert "too uncertain" in plain_text(evidence(cause, Texts("en")))


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
    table, *_ = details.blocks
    assert isinstance(table, Table)
    assert len(table.rows) == len(record["experiment"]["cells"])
    assert plain_text(table.rows[0][0]) == "Input too small, Wrong pixel range, Head not trained far enough"
    assert plain_text(table.rows[-1][0]) == "none (all repaired)"


def test_the_repair_has_changes_recipe_command_and_code() -> None:
    record = classroom_diagnosis()
    record["data"]["source"] = "my images/photos"
    blocks = _section(build_diagnosis_document(record, "en"), "repair")
    commands = [block.text for block in blocks if isinstance(block, CodeBlock)]
    assert (
        commands[0]
        == "headstart compare 'my images/photos' --recipe repaired.toml --split-seed 0 --val-fraction 0.1 --test-fraction 0.2"
    )
    assert commands[1] == record["repair"]["code"].rstrip("\n")
    assert commands[2] == record["repair"]["keras"]
    assert any(isinstance(block, Details) for block in blocks)


@pytest.mark.parametrize(
    ("changed", "options"),
    [
        ({}, " --split-seed 0 --val-fraction 0.1 --test-fraction 0.2"),
        (
            {"weights_dir": "my weights", "limit": 500},
            " --weights-dir 'my weights' --limit 500 --split-seed 0 --val-fraction 0.1 --test-fraction 0.2",
        ),
        ({"split_seed": 3, "val_fraction": 0.2}, " --split-seed 3 --val-fraction 0.2 --test-fraction 0.2"),
        ({"keep_duplicates": True}, " --split-seed 0 --val-fraction 0.1 --test-fraction 0.2 --keep-duplicates"),
    ],
)
def test_the_repaired_recipe_is_trained_on_the_images_that_were_diagnosed(
    changed: dict[str, Any], options: str
) -> None:
    record = classroom_diagnosis()
    record["study"] |= changed
    assert compare_command(record, "repaired.toml") == f"headstart compare cifar10 --recipe repaired.toml{options}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_run_of_the_proof_is_described(language: str) -> None:
    record = classroom_diagnosis()
    shown = render_html(build_diagnosis_document(record, language))
    assert record["experiment"]["sample_sha256"] in shown
    assert shown.count("&#34;training_mode&#34;: false") == len(record["experiment"]["cells"])
    for fact in (*record["study"]["trials"], record["study"]["environment"]["torch"]):
        assert fact in shown


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


def test_the_comments_in_lines_of_code_are_in_the_reports_language() -> None:
    """Whatever lines a repair consists of: each of their comments has a text, and code stays code."""
    every = range(1, 24)
    contract, small = Preprocessing(32, channel_order="BGR"), find_backbone("small32_s")
    written = [
        code_lines(every, contract, small, own=Own(kept_order=True), meant=[1, 0]),
        code_lines(every, contract, small, own=Own(), meant=[1, 0]),
        code_lines([11], None, frozen=True),
        code_lines([12], None),
        keras_lines(every, contract),
        keras_lines([8, 11], contract, frozen=True),
    ]
    texts = {name: Texts(name) for name in LANGUAGES}
    known = {name: {texts[name].get(key) for key in texts[name].keys("diagnosis_comment")} for name in LANGUAGES}
    comments: set[str] = set()
    for lines in written:
        record = classroom_diagnosis()
        record["repair"] |= {"code": lines, "keras": ""}
        for name in LANGUAGES:
            blocks = _section(build_diagnosis_document(record, name), "repair")
            shown = [block.text for block in blocks if isinstance(block, CodeBlock)][-1]
            assert _without_comments(shown) == _without_comments(lines)
            assert _comments(shown) <= known[name]
        comments |= _comments(lines)
    assert comments == known["en"]  # no text for a comment that is written nowhere


def _comments(lines: str) -> set[str]:
    return {line.partition("# ")[2] for line in lines.splitlines() if "# " in line}


def _without_comments(lines: str) -> list[str]:
    return [line.partition("# ")[0] for line in lines.splitlines()]


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
    path.write_text('{"schema_version": 3, "headstart_version": "9.0"}')
    with pytest.raises(RunError, match=r"schema version 3, written by headstart 9\.0.*Upgrade"):
        write_diagnosis_report(tmp_path, "en")
    path.write_text("{}")
    with pytest.raises(RunError, match=r"no schema_version\. Run the diagnosis again\."):
        write_diagnosis_report(tmp_path, "en")
    path.write_text(json.dumps(classroom_diagnosis()))
    with pytest.raises(UsageError, match="klingon"):
        write_diagnosis_report(tmp_path, "klingon")
