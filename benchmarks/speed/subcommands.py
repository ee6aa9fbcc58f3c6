"""The command line of the scripts that are measured: one subcommand, its facts written to a file."""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.files import write_json

Command = Callable[[argparse.Namespace], dict[str, Any]]


def run_subcommand(
    description: str | None,
    commands: Mapping[str, Command],
    more: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> None:
    """Parse the arguments that all scripts share, and `more` of this one's; run the command; write what it returns to `--out`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=commands)
    parser.add_argument("--arrays", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--images", type=int)
    parser.add_argument("--forward-images", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    more(parser)
    arguments = parser.parse_args()
    write_json(arguments.out, commands[arguments.command](arguments))
