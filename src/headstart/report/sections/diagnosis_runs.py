"""What a diagnosis did and how to do it again: the repair, the controls, the counterfactual runs, the command."""

import json
import re
from typing import Any

from headstart.environment import command_line
from headstart.report.diagnosis_words import accuracy_interval, cause_title, coded, of_status
from headstart.report.document import (
    Block,
    CodeBlock,
    Details,
    Heading,
    Inline,
    ListBlock,
    Paragraph,
    Table,
    code,
    plain,
    strong,
)
from headstart.report.language import Texts
from headstart.report.sections.diagnosis import confidence, measured_with

_SIZE = 1  # the number of the cause
_ARRAYS = "arrays"  # the source of data that were handed over in Python: no command can name them
_CARRIED = ("weights_dir", "limit", "split_seed", "val_fraction", "test_fraction")
"""Settings of a diagnosis that the same images and weights need. Not the backbone: a recipe's file names its own."""


def repair_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Say what was changed, where the repaired recipe is, and how the repair reads in Python."""
    repair, recipe = record["repair"], record["repaired_recipe"]
    blocks: list[Block] = [Heading(2, texts.get("diagnosis.repair_heading"), "repair")]
    if not (repair["changes"] or repair["toml"] or repair["code"] or recipe):
        none = "diagnosis.repair_not_proved" if of_status(record, "proved", "suspected") else "diagnosis.repair_none"
        return [*blocks, Paragraph(texts.rich(none))]
    kind = record["subject"]["kind"]
    own_code = kind != "recipe"
    if repair["changes"]:
        intro = "diagnosis.repair_changes_module" if own_code else "diagnosis.repair_changes"
        items = tuple(
            texts.rich(
                "diagnosis.repair_change",
                cause=strong(cause_title(record, change["cause"], texts)),
                change=coded("diagnosis_repair", change, texts),
            )
            for change in repair["changes"]
        )
        blocks += [Paragraph(texts.rich(intro)), ListBlock(items)]
    if repair["toml"]:
        blocks.append(Paragraph(texts.rich("diagnosis.repair_toml", file=code(repair["toml"]))))
        if command := compare_command(record, repair["toml"]):
            blocks += [Paragraph(texts.rich("diagnosis.repair_train")), CodeBlock(command)]
    elif kind == "module" and recipe is None and repair["code"]:
        blocks.append(Paragraph(texts.rich("diagnosis.repair_module")))
    if repair["code"]:
        blocks += [
            Paragraph(texts.rich("diagnosis.repair_code")),
            CodeBlock(_commented(repair["code"].rstrip("\n"), texts)),
        ]
    if repair["keras"]:
        blocks += [Paragraph(texts.rich("diagnosis.repair_keras")), CodeBlock(_commented(repair["keras"], texts))]
    if recipe:
        blocks.append(Details(texts.get("diagnosis.repair_settings"), (_listed(recipe),)))
    return blocks


def _commented(lines: str, texts: Texts) -> str:
    """Lines of code with their comments in the report's language; a comment that these texts do not know stays in English."""
    english = Texts("en")
    ours = {english.get(key): texts.get(key) for key in english.keys("diagnosis_comment")}

    def told(comment: re.Match[str]) -> str:
        return f"# {ours.get(comment[1], comment[1])}"

    return re.sub(r"# (.*)$", told, lines, flags=re.MULTILINE)


def compare_command(record: dict[str, Any], recipe: str) -> str:
    """Write the command that trains the repaired recipe on the data that were diagnosed; empty if no command can name them.

    Args:
        record: the content of `diagnosis.json`.
        recipe: path of the recipe's file.
    """
    source, study = record["data"]["source"], record["study"]
    if source == _ARRAYS:
        return ""
    options: list[str] = []
    for name in _CARRIED:
        if study[name] is not None:
            options += [f"--{name.replace('_', '-')}", str(study[name])]
    if study["keep_duplicates"]:
        options.append("--keep-duplicates")
    return command_line("headstart", "compare", source, "--recipe", recipe, *options)


def controls_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Show each control, what it is compared with, and what that says."""
    if not record["controls"]:
        return []
    columns = ("control", "control_accuracy", "control_against", "control_says")
    return [
        Heading(2, texts.get("diagnosis.controls_heading"), "controls"),
        Paragraph(texts.rich("diagnosis.controls_intro")),
        Table(
            tuple(texts.get(f"diagnosis.{column}") for column in columns),
            tuple(_control_row(control, texts) for control in record["controls"]),
            texts.get("diagnosis.controls_caption"),
            numeric=frozenset({1}),
        ),
    ]


def sizes_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Show what a probe reaches at each input size, where the size was at fault; older records have none."""
    sizes = (record["experiment"] or {}).get("sizes", [])
    if not sizes:
        return []
    notes = {
        cell["settings"]["input_size"]: "sizes_as_it_is" if _SIZE in cell["faults"] else "sizes_repaired"
        for cell in record["experiment"]["cells"]
    }
    rows = tuple(
        (
            plain(texts.get("diagnosis.sizes_px", size=texts.count(one["size"]))),
            plain(texts.share_interval(one["accuracy"])),
            plain(texts.get(f"diagnosis.{notes[one['size']]}") if one["size"] in notes else ""),
        )
        for one in sizes
    )
    return [
        Heading(2, texts.get("diagnosis.sizes_heading"), "sizes"),
        Paragraph(
            texts.rich("diagnosis.sizes_intro", images=texts.many("diagnosis.held_out_images", sizes[0]["images"]))
        ),
        Table(
            (*(texts.get(f"diagnosis.sizes_{column}") for column in ("size", "accuracy")), ""),
            rows,
            texts.get("diagnosis.sizes_caption", confidence=confidence(texts)),
            numeric=frozenset({0, 1}),
        ),
    ]


def experiment_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Say how the points were measured; every run in numbers, folded away."""
    experiment = record["experiment"]
    heading = Heading(2, texts.get("diagnosis.experiment_heading"), "experiment")
    apart = _measured_apart(record, texts)
    if not experiment or not experiment["factors"]:
        return [heading, *(apart or [Paragraph(texts.rich("diagnosis.experiment_none"))])]
    images, labels, seeds = measured_with(record, texts)
    intro = texts.rich(
        "diagnosis.experiment_intro",
        design=texts.named("diagnosis", f"experiment_{experiment['design']}"),
        images=images,
        labels=labels,
        seeds=seeds,
    )
    rows = tuple(
        (
            plain(_faults(cell["faults"], record, texts)),
            plain(texts.share_interval(cell["accuracy"])),
            plain(texts.duration(cell["seconds"])),
        )
        for cell in experiment["cells"]
    )
    cells = Table(
        tuple(texts.get(f"diagnosis.experiment_{column}") for column in ("faults", "accuracy", "seconds")),
        rows,
        texts.get("diagnosis.experiment_caption", confidence=confidence(texts)),
        numeric=frozenset({1, 2}),
    )
    return [
        heading,
        Paragraph(intro),
        Paragraph(texts.rich("diagnosis.experiment_shapley")),
        *apart,
        Paragraph(texts.rich("diagnosis.experiment_not_covered")),
        Details(texts.get("diagnosis.experiment_cells"), (cells, *_settings(experiment, texts))),
    ]


def _settings(experiment: dict[str, Any], texts: Texts) -> list[Block]:
    """Exactly what each run did with pixels and network, and on which images."""
    lines = "\n".join(json.dumps({"faults": cell["faults"], **cell["settings"]}) for cell in experiment["cells"])
    sample = texts.rich("diagnosis.experiment_settings", sha256=code(experiment["sample_sha256"]))
    return [Paragraph(sample), CodeBlock(lines)]


def reproduce_section(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Give the command, the data's fingerprint, the weights' hash, the times, and every setting."""
    data, subject, seconds = record["data"], record["subject"], record["seconds"]
    counts = {part: texts.count(data[part]) if data[part] is not None else "–" for part in ("train", "val", "test")}
    facts = [
        texts.rich(
            "diagnosis.reproduce_data",
            name=strong(data["name"]),
            source=code(data["source"]),
            canvas=texts.count(data["canvas"]),
            **counts,
        ),
        texts.rich("reproduce.fingerprint", fingerprint=code(data["fingerprint"])),
    ]
    if subject["weights"]:
        facts.append(texts.rich("diagnosis.reproduce_weights", sha256=code(subject["weights"])))
    times = {part: texts.duration(seconds[part]) for part in ("look", "prove", "repair", "total")}
    facts.append(texts.rich("diagnosis.reproduce_seconds", **times))
    facts += _drawn(record, texts)
    schema = str(record["schema_version"])
    facts.append(texts.rich("reproduce.schema", file=code("diagnosis.json"), schema=schema))
    blocks: list[Block] = [
        Heading(2, texts.get("diagnosis.reproduce_heading"), "reproduce"),
        Paragraph(texts.rich("diagnosis.reproduce_command")),
        CodeBlock(record["command"]),
        Paragraph(texts.rich("diagnosis.reproduce_again")),
        ListBlock(tuple(facts)),
    ]
    blocks.append(Details(texts.get("reproduce.environment_caption"), (_listed(record["study"]["environment"]),)))
    if subject["preprocessing"]:
        blocks.append(Details(texts.get("diagnosis.reproduce_arrived"), (_listed(subject["preprocessing"]),)))
    if record["recipe"]:
        blocks.append(Details(texts.get("diagnosis.reproduce_recipe"), (_listed(record["recipe"]),)))
    return blocks


def _drawn(record: dict[str, Any], texts: Texts) -> list[Inline]:
    """How the data were divided, and the trials with their identities."""
    study = record["study"]
    shares = {name: texts.percent(study[f"{name}_fraction"], 0) for name in ("val", "test")}
    facts = [texts.rich("diagnosis.reproduce_split", seed=str(study["split_seed"]), **shares)]
    if study["limit"] is not None:
        train = texts.many("units.images", record["data"]["train"])
        facts.append(
            texts.rich("reproduce.limit", option=code("--limit"), limit=texts.count(study["limit"]), train=train)
        )
    if study["trials"]:
        identities = texts.listing(study["trials"])
        facts.append(
            texts.rich("diagnosis.reproduce_trials", seed=str(study["trial_seed"]), identities=code(identities))
        )
    return facts


def _control_row(control: dict[str, Any], texts: Texts) -> tuple[Inline, ...]:
    name, against = control["name"], control["against"]
    compared = texts.named("diagnosis_control_against", name)
    if against is not None:
        compared = f"{compared}: {texts.share_interval(against)}"
    says = f"diagnosis_control_says.{control['says']}"
    return (
        plain(texts.named("diagnosis_control", name)),
        plain("–" if control["accuracy"] is None else accuracy_interval(None, control["accuracy"], texts)),
        plain(compared),
        plain(texts.get(says)) if texts.has(says) else code(control["says"]),
    )


def _measured_apart(record: dict[str, Any], texts: Texts) -> list[Block]:
    """Name the causes whose points do not come from the runs with several faults."""
    together = record["experiment"]["factors"] if record["experiment"] else []
    apart = [
        cause_title(record, cause["id"], texts)
        for cause in of_status(record, "proved", "suspected")
        if cause["points"] is not None and cause["id"] not in together
    ]
    return [Paragraph(texts.rich("diagnosis.experiment_apart", causes=texts.listing(apart)))] if apart else []


def _faults(faults: list[int], record: dict[str, Any], texts: Texts) -> str:
    if not faults:
        return texts.get("diagnosis.experiment_no_faults")
    return texts.listing([cause_title(record, number, texts) for number in faults])


def _listed(settings: dict[str, Any]) -> CodeBlock:
    return CodeBlock(json.dumps(settings, indent=2, ensure_ascii=False))
