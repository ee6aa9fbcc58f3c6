"""The program: what every command shares, and how errors reach the reader."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from headstart.environment import share_cores
from headstart.errors import HeadstartError
from headstart.version import __version__

_INTERRUPTED = 130  # the shell's code for Ctrl-C

app = typer.Typer(
    name="headstart",
    help="Train from scratch, or reuse a pretrained network? headstart answers for your images, and says how sure it is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Language = Annotated[
    str | None, typer.Option("--lang", help="Language of messages and report: en or es. Default: your locale's.")
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of runs.")]
WeightsDir = Annotated[
    Path | None,
    typer.Option("--weights-dir", help="Folder of weight files, searched before HEADSTART_WEIGHTS and the cache."),
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        help="Use a stratified subset of this many images for train and val together, and at most as many for test; of all "
        "images where the data has no test part of its own.",
    ),
]
KeepDuplicates = Annotated[
    bool, typer.Option("--keep-duplicates", help="Leave images in train whose exact pixels are in test.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]


def main() -> None:
    """Run the command line; every error that headstart raises on purpose becomes one readable message and an exit code."""
    from rich.console import Console
    from rich.text import Text

    share_cores()
    atexit.register(gc.freeze)  # or the last collection walks through all that is in memory, which ends then anyway
    try:
        app()
    except HeadstartError as error:
        console = Console(stderr=True)
        console.print(Text("Error: ", style="bold red") + Text(str(error), style="default"))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        from headstart.report.language import Texts, resolve_language

        Console(stderr=True).print(Texts(resolve_language(_language_of(sys.argv))).get("cli.interrupted"))
        sys.exit(_INTERRUPTED)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries within it: no garbage is looked for while they make hundreds of thousands of objects.

    These stay as long as the program, so that later collections leave them out, too. Together with the end of the program that
    was two and a half seconds of a short comparison (docs/log.md).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _language_of(arguments: list[str]) -> str | None:
    """The value of `--lang`, for messages after the parser has gone."""
    for place, argument in enumerate(arguments):
        if argument == "--lang" and place + 1 < len(arguments):
            return arguments[place + 1]
        if argument.startswith("--lang="):
            return argument.partition("=")[2]
    return None


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headstart {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass
