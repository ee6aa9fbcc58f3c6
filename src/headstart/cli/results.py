"""The commands that train nothing: report, runs, predict, backbones, env.

Heavy modules are imported inside the commands, so that `headstart --help` answers at once.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.app import Language, Runs, app, quick_imports
from headstart.errors import HeadstartError

_SHORT_LICENCE = 10  # characters of apache-2.0, which most of them have
_SHORT_NAME = 21  # characters of mobilenetv3_large_100, the longest of the names that are suggested


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    lang: Language = None,
) -> None:
    """Rebuild a run's reports from its results.json, in English or Spanish."""
    with quick_imports():
        from headstart import api

    paths = api.rebuild_report(run, lang)
    typer.echo(paths.html)
    typer.echo(paths.markdown)


@app.command()
def runs(folder: Runs = Path("runs"), lang: Language = None) -> None:
    """List the runs: what is done and what each found."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from headstart.report.language import Texts, resolve_language
    from headstart.study.ledger import list_runs

    texts = Texts(resolve_language(lang))
    console = Console()
    found = list_runs(folder)
    if not found:
        console.print(texts.get("cli.no_runs", folder=str(folder)), markup=False)
        return
    table = Table()
    for key in ("name", "trials", "state", "best"):
        table.add_column(texts.get(f"cli.runs_{key}"))
    for run in found:
        state = texts.get("cli.run_finished" if run.finished else "cli.run_unfinished")
        table.add_row(escape(run.name), str(run.trials_done), state, escape(run.best or "–"))
    console.print(table)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run, or of one trial.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    recipe: Annotated[
        str | None, typer.Option(help="Recipe to use. Default: the one that the verdict recommends.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed to use. Default: the first.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per image, with every probability.")
    ] = False,
) -> None:
    """Classify image files with a trained model, preprocessed exactly as in training."""
    from dataclasses import asdict

    with quick_imports():
        from headstart import api

    bundle = api.load(run, recipe=recipe, seed=seed)
    failed = False
    for path in _image_files(images):
        try:
            answer = bundle.predict([path])[0]
        except HeadstartError as error:  # one bad file must not cost the others their answer
            typer.echo(f"{path}\t{error}", err=True)
            failed = True
            continue
        if as_json:
            typer.echo(json.dumps(asdict(answer), ensure_ascii=False))
        else:
            typer.echo(f"{path}\t{answer.predicted}\t{answer.probability:.3f}")
    if failed:
        raise typer.Exit(3)


@app.command()
def backbones(
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of weight files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of the table.")] = False,
    lang: Language = None,
) -> None:
    """List the backbones that can be used: from where, made for which size, how big, which licence, what is here already.

    Weight files that cannot be used are named below, each with the reason.
    """
    from dataclasses import asdict

    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from headstart.models.catalog import list_backbones
    from headstart.report.language import Texts, resolve_language

    texts = Texts(resolve_language(lang))
    found = list_backbones(weights_dir)
    unusable = [texts.get("cli.backbones_unusable", reason=file.reason) for file in found.unusable]
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in found.entries], ensure_ascii=False, indent=2, default=str))
        typer.echo("".join(f"{line}\n" for line in unusable), err=True, nl=False)
        return
    console = Console()
    table = Table(box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    # A file's path may be longer than the terminal: it is folded before the columns beside it are cut.
    table.add_column(texts.get("cli.backbones_name"), overflow="fold", min_width=_SHORT_NAME)
    # Eighty columns hold them all where the words of these two are folded.
    table.add_column(texts.get("cli.backbones_origin"), max_width=12)
    table.add_column(texts.get("cli.backbones_size"), justify="right", max_width=8)
    for key in ("parameters", "file"):
        table.add_column(texts.get(f"cli.backbones_{key}"), justify="right")
    table.add_column(texts.get("cli.backbones_licence"), min_width=_SHORT_LICENCE)
    # A licence in a sentence stands below the table, under its number: beside the other columns there is no room for one.
    sentences = list(
        dict.fromkeys(entry.licence for entry in found.entries if len(entry.licence or "") > _SHORT_LICENCE)
    )
    for entry in found.entries:
        table.add_row(
            escape(entry.name),
            texts.get(f"cli.backbones_{entry.origin}_here" if entry.here else "cli.backbones_download"),
            f"{entry.native_size} px",
            texts.short_count(entry.parameters),
            texts.bytes(entry.file_bytes) if entry.file_bytes is not None else "–",
            f"({sentences.index(entry.licence) + 1})" if entry.licence in sentences else escape(entry.licence or "–"),
        )
    console.print(table)
    for number, sentence in enumerate(sentences, start=1):
        console.print(f"({number}) {sentence}", markup=False)
    for line in unusable:
        console.print(line, style="red", markup=False, soft_wrap=True)
    console.print(texts.get("cli.backbones_note"), markup=False)


@app.command()
def env(
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of weight files.")] = None, lang: Language = None
) -> None:
    """Print versions, device, threads and folders, what is missing, and the command that repairs it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from headstart.environment import available_devices, choose_device, describe_environment, find_problems, folders
    from headstart.report.language import Texts, resolve_language

    texts = Texts(resolve_language(lang))
    console = Console()
    problems = find_problems()
    table = Table(show_header=False, box=None)
    rows: dict[str, Any] = {}
    if not any(problem.what.startswith("torch ") for problem in problems):
        rows = describe_environment(choose_device()) | {"devices": ", ".join(available_devices())}
    rows |= folders()
    if not problems:
        rows |= _weight_files(weights_dir)
    for key, value in rows.items():
        table.add_row(texts.get(f"cli.env_{key.replace('-', '_').replace(' ', '_')}"), escape(str(value)))
    console.print(table)
    for problem in problems:
        console.print(texts.get("cli.problem", what=problem.what), style="red", markup=False)
        console.print(texts.get("cli.repair", command=problem.repair), markup=False)
    if problems:
        raise typer.Exit(5)
    console.print(texts.get("cli.all_well"), style="green")


def _weight_files(weights_dir: Path | None) -> dict[str, str]:
    """What `env` says of the weight folders: the files that are backbones, and those that are not."""
    from headstart.models.weights import UnusableFile, inspect_weight_files

    files = inspect_weight_files(weights_dir)
    unusable = [str(file.path) for file in files if isinstance(file, UnusableFile)]
    usable = [f"{file.architecture} ({file.path})" for file in files if not isinstance(file, UnusableFile)]
    rows = {"weight files": ", ".join(usable)}
    return rows | ({"unusable files": ", ".join(unusable)} if unusable else {})


def _image_files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        else:
            files.append(path)
    return files
