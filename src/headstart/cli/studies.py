"""The commands that train: compare, pretrain, diagnose.

Heavy modules are imported inside the commands, so that `headstart --help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.app import Device, KeepDuplicates, Language, Limit, Runs, WeightsDir, app, quick_imports
from headstart.environment import command_line


@app.command()
def compare(
    data: Annotated[
        str,
        typer.Argument(
            help="digits, cifar10, cifar100, a folder (DIR/train/CLASS/ and DIR/test/CLASS/, or DIR/CLASS/), or an .npz file."
        ),
    ] = "digits",
    preset: Annotated[
        str, typer.Option(help="default, or classroom: the class exercise as it was, its mistake included.")
    ] = "default",
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe", help="A recipe's name or the path of a .toml file; may be repeated. Default: the preset's."
        ),
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(
            "--backbone",
            help="A timm model name or a weight file; may be repeated. Default: mobilenetv2_100, and small32_m for images "
            "up to 64 px.",
        ),
    ] = None,
    weights_dir: WeightsDir = None,
    input_size: Annotated[
        int | None, typer.Option(help="Side in pixels that every network sees. Default: from data and backbone.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Repetitions of each recipe. Default: 3 where the time allows.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time to plan for, such as 90s, 10m or 1h30m; what does not fit is shortened, or left out and named. Not together "
            "with --epochs."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every recipe that trains by epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="For recipes that train on images: none, shift, shift-flip, shift-alternate, crop or crop-flip. Default: what "
            "is safe for the data."
        ),
    ] = None,
    limit: Limit = None,
    margin: Annotated[
        float, typer.Option(help="Differences within it do not matter to you, in points of accuracy.")
    ] = 1.0,
    split_seed: Annotated[int, typer.Option(help="Seed of the split, where the data has none of its own.")] = 0,
    val_fraction: Annotated[float, typer.Option(help="Share of the training part that becomes val.")] = 0.1,
    test_fraction: Annotated[
        float, typer.Option(help="Share of all images that becomes test, where the data has none.")
    ] = 0.2,
    keep_duplicates: KeepDuplicates = False,
    device: Device = "auto",
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: the data's name.")] = None,
    runs: Runs = Path("runs"),
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard logs into each trial's folder.")
    ] = False,
    lang: Language = None,
) -> None:
    """Compare training from scratch with reusing a pretrained network, and write a report.

    Running the same command again continues where it ended: nothing that is done is repeated.
    """
    from rich.console import Console

    from headstart.report.language import Texts, resolve_language

    texts = Texts(resolve_language(lang))
    console = Console()
    console.print(texts.get("cli.loading"), style="dim")

    with quick_imports():
        from headstart import api
        from headstart.cli.progress import TerminalObserver, print_summary

    with TerminalObserver(console, texts) as observer:
        comparison = api.compare(
            data,
            recipes=recipe,
            seeds=seeds,
            preset=preset,
            backbones=backbone or (),
            weights_dir=weights_dir,
            input_size=input_size,
            budget=budget,
            epochs=epochs,
            batch_size=batch_size,
            augmentation=augmentation,
            limit=limit,
            margin=margin / 100,
            split_seed=split_seed,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            keep_duplicates=keep_duplicates,
            device=device,
            name=name,
            runs=runs,
            language=texts.language,
            tensorboard=tensorboard,
            observer=observer,
            command=command_line("headstart", *sys.argv[1:]),
        )
    print_summary(console, texts, comparison)


@app.command()
def pretrain(
    data: Annotated[
        str, typer.Argument(help="Images with labels: as for compare. A test part of its own is left alone.")
    ],
    architecture: Annotated[
        str, typer.Option(help="small32_s, small32_m or small32_l: about 0.5, 1.1 and 2.9 million parameters.")
    ] = "small32_m",
    out: Annotated[
        Path | None, typer.Option(help="The weight file to write. Default: <architecture>.safetensors here.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="A pretrained backbone whose features are learnt beside the labels. Default: labels alone."),
    ] = None,
    weights_dir: Annotated[Path | None, typer.Option(help="Folder of weight files, for the teacher.")] = None,
    input_size: Annotated[
        int,
        typer.Option(
            help="Side in pixels that the backbone is made for. Default 32; larger images are shrunk to it.",
            show_default=False,
        ),
    ] = 32,
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the images. Default: 16 of 100,000 images, more of fewer, 100 at most."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time to plan the epochs for, such as 60m. Not together with --epochs.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 128,
    learning_rate: Annotated[
        float, typer.Option(help="Highest rate of the one-cycle schedule, of Muon's kernels.")
    ] = 0.03,
    mixup: Annotated[float, typer.Option(help="Strength of mixing pairs of images; 0 mixes none.")] = 0.0,
    augmentation: Annotated[
        str | None,
        typer.Option(
            help="none, shift, shift-flip, shift-alternate, crop or crop-flip. Default: crop; crop-flip for cifar10 and cifar100. Say "
            "crop-flip for your own images where a mirrored one keeps its class, as photographs do."
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Name of the training images, for the model card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the training images, for the model card.")] = "",
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="Another data set to measure a linear probe on afterwards, and near duplicates; may be repeated."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Use a stratified subset of this many training images, those that watch the training included."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    device: Device = "auto",
    lang: Language = None,
) -> None:
    """Train a backbone for small images; write its weight file and its model card.

    Running the same command again continues where it ended. Use the file with `headstart compare DATA --backbone FILE`.
    """
    from typing import cast

    from rich.console import Console

    from headstart.report.language import Texts, resolve_language

    texts = Texts(resolve_language(lang))
    console = Console()
    console.print(texts.get("cli.loading"), style="dim")

    with quick_imports():
        from headstart import api
        from headstart.cli.progress import TerminalObserver, print_pretrained
        from headstart.records import Augmentation

    with TerminalObserver(console, texts) as observer:
        made = api.pretrain(
            data,
            out,
            architecture=architecture,
            teacher=teacher,
            weights_dir=weights_dir,
            input_size=input_size,
            epochs=epochs,
            budget=budget,
            batch_size=batch_size,
            learning_rate=learning_rate,
            mixup=mixup,
            augmentation=cast(Augmentation | None, augmentation),
            title=title,
            licence=licence,
            judges=judge or (),
            limit=limit,
            seed=seed,
            device=device,
            observer=observer,
            command=command_line("headstart", *sys.argv[1:]),
        )
    print_pretrained(console, texts, made)


@app.command()
def diagnose(
    target: Annotated[
        str,
        typer.Argument(
            help="What disappoints: data (digits, cifar10, a folder) for a recipe of ours or for your --predictions or --history, the "
            "folder of a finished run, or SCRIPT.py:FUNCTION, your function that returns model and preprocess."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            help="Images for your own SCRIPT.py:FUNCTION. Its preprocess gets squares cut out of their middle, of 256 pixels at most, "
            "in RGB."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="classroom: the class exercise as it was.")] = "classroom",
    recipe: Annotated[
        str | None, typer.Option(help="A transfer recipe's name or a .toml file. Default: the preset's.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A timm model name or a weight file. Default: mobilenetv2_100.")
    ] = None,
    weights_dir: WeightsDir = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Outputs of your own network, from any library: .npy, .npz or .csv, a row for each test image, or for each image of "
            "the data. With data instead of a SCRIPT, what they show by themselves."
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help="Your training's curve: .json (lists by name) or .csv (a line per epoch, as Keras' CSVLogger). With data instead of a "
            "SCRIPT, beside --predictions or alone, what it shows by itself."
        ),
    ] = None,
    scratch: Annotated[
        bool,
        typer.Option(
            "--scratch",
            help="Train headstart's own network from scratch on the same labels, too: what transfer has to beat, and the fair opponent "
            "beside a run's own. Minutes.",
        ),
    ] = False,
    limit: Limit = None,
    keep_duplicates: KeepDuplicates = False,
    device: Device = "auto",
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: the data's name and -diagnosis.")] = None,
    runs: Runs = Path("runs"),
    lang: Language = None,
) -> None:
    """Say why transfer learning failed, prove it, and write the repaired recipe.

    Looks at what really arrives at the network, and measures what each suspected fault costs, alone and with the others.
    """
    from rich.console import Console

    from headstart.report.language import Texts, resolve_language

    texts = Texts(resolve_language(lang))
    console = Console()
    console.print(texts.get("cli.loading"), style="dim")

    with quick_imports():
        from headstart import diagnosing
        from headstart.cli.progress import TerminalObserver, print_diagnosis

    with TerminalObserver(console, texts) as observer:
        found = diagnosing.diagnose(
            target,
            data,
            predictions=predictions,
            history=history,
            recipe=recipe,
            preset=preset,
            backbone=backbone,
            weights_dir=weights_dir,
            scratch=scratch,
            limit=limit,
            keep_duplicates=keep_duplicates,
            device=device,
            name=name,
            runs=runs,
            language=texts.language,
            observer=observer,
            command=command_line("headstart", *sys.argv[1:]),
        )
    print_diagnosis(console, texts, found)
