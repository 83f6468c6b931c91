"""Options that several commands share, and the printing of results."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_LIST_SHOWN = 12


class _Address(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A path, or an address such as s3://bucket/folder."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """Return it as `basics.paths.AnyPath`."""
        from basics.paths import as_path

        return as_path(value)


class _MicroBatch(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A number of images, or `auto`."""

    name = "micro-batch"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return the number, or `auto`."""
        if value == "auto":
            return "auto"
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is no number of images; give one such as 4, or auto.", param, ctx)


class _LocalPath(click.ParamType):  # type: ignore[type-arg]  # generic in new versions only
    """A path on this machine."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """Return it as a `Path`; an address such as s3://bucket/folder is refused, and would be a folder `s3:`."""
        from basics.paths import as_local_path

        return as_local_path(value, param.opts[0] if isinstance(param, click.Option) else "The path")


ADDRESS = _Address()
MICRO_BATCH = _MicroBatch()
FILE = FOLDER = _LocalPath()


def combined_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return one decorator that adds several options, shown in the order given."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Remove an earlier run's files there and start anew.")
encoder_option = click.option(
    "--encoder",
    required=True,
    metavar="NAME",
    help="Encoder: vgg (VGG-19 to relu4_1), resnet (ResNet-50 to conv2_3), SPEC@MODULE, a network's front up to a "
    "module, such as packaged:efficientnet-lite0@blocks.1, or the name of one in an installed package.",
)
compute_options = combined_options(
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option("--precision", default="auto", show_default=True, help="auto, fp32, tf32, bf16 or fp64."),
)
workers_options = combined_options(
    click.option(
        "--workers",
        type=int,
        default=0,
        show_default=True,
        help="Processes that make shards at the same time; 0: this one.",
    ),
    click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler to work on."),
)
training_options = combined_options(
    click.option("--epochs", type=int, help="Passes over the images."),
    click.option("--batch-size", type=int, help="Images a step."),
    click.option("--lr", type=float, help="Learning rate."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seed of fresh weights, order and crops."),
    click.option("--limit", type=int, help="Only so many images, evenly spread."),
    click.option("--width", type=float, help="Scale of the channels, for small machines."),
    compute_options,
    click.option("--devices", type=int, default=1, show_default=True, help="Number of devices that share a batch."),
)


loaders_option = click.option(
    "--loaders",
    type=int,
    help="Decoding processes a device; 0: none, which suits a CPU, where they would take the network's cores. "
    "[default: half the cores on a GPU, else 0]",
)


clip_data_options = combined_options(
    click.option("--split-lists", metavar="DIR", help="UCF-101's split lists. [default: those in or beside the data]"),
    click.option("--split-number", type=int, help="Which of the published splits: 1, 2 or 3. [default: 1]"),
    click.option("--cache", type=FILE, help="File in which decoded clips are kept. [default: none, decode each time]"),
)
checkpoint_activations_option = click.option(
    "--checkpoint-activations",
    is_flag=True,
    help="Compute activations again in the backward pass: less memory, one more forward pass. Clips only.",
)
clip_training_options = combined_options(
    click.option("--frames", type=int, help="Frames of a clip. [default: 40]"),
    clip_data_options,
    checkpoint_activations_option,
)
micro_batch_option = click.option(
    "--micro-batch", type=int, help="Samples that are attacked at a time, to save memory. [default: the whole batch]"
)


model_option = click.option(
    "--model",
    metavar="SPEC...",
    multiple=True,
    required=True,
    help="Models: NAME (torchvision), timm:NAME, packaged:NAME, NAME=FILE, a run folder, or a file of "
    "`import-classifier`.",
)


class AliasedOption(click.Option):
    """An option that also goes by an earlier name, which `--help` does not show.

    Args:
        alias: the earlier name, such as `--again`.
    """

    def __init__(self, *args: Any, alias: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alias = alias

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser accept both names."""
        shown = self.opts
        self.opts = [*shown, self.alias]
        super().add_to_parser(parser, ctx)
        self.opts = shown


restrict_option = click.option(
    "--restrict-classes",
    is_flag=True,
    help="Let models decide only among the classes that occur in a data set.",
)
scoring_options = combined_options(
    click.option("--batch-size", type=int, default=64, show_default=True, help="Images a step."),
    loaders_option,
    click.option(
        "--overwrite", cls=AliasedOption, alias="--again", is_flag=True, help="Replace results of the same names."
    ),
)


def fraction(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the value of an option that may be written as a fraction, such as 4/255 (a callback for click)."""
    if value is None:
        return None
    above, _, below = value.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError) as error:
        raise click.BadParameter(f"{value!r} is no number; give one such as 4/255 or 0.0157.", ctx, param) from error


class ManyValues(click.Command):
    """A command without arguments whose repeatable options also take several values at once: `--model A B`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write such an option's name before each of its values."""
        repeatable = {
            name for param in self.params if isinstance(param, click.Option) and param.multiple for name in param.opts
        }
        spread: list[str] = []
        current = ""
        for position, argument in enumerate(args):
            if argument.startswith("-"):
                current = argument if argument in repeatable else ""
            elif current and args[position - 1] != current:
                spread.append(current)
            spread.append(argument)
        return super().parse_args(ctx, spread)


def print_result(result: Mapping[str, Any], lines: list[str], *, as_json: bool) -> None:
    """Print a result on stdout: as one JSON object, or as lines for people."""
    click.echo(json.dumps(result) if as_json else "\n".join(lines))


def given(**values: Any) -> dict[str, Any]:
    """Return the options that were given, so that defaults stay in the config alone."""
    return {name: value for name, value in values.items() if value is not None}


def indented(values: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Return nested values as lines, one a leaf; lists of more than a few values are cut short."""
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{'  ' * depth}{name}:", *indented(value, depth + 1)]
        elif isinstance(value, list) and len(value) > _LIST_SHOWN:
            shown = ", ".join(map(str, value[:_LIST_SHOWN]))
            lines.append(f"{'  ' * depth}{name}: {shown}, ... ({len(value)} in all)")
        else:
            lines.append(f"{'  ' * depth}{name}: {value}")
    return lines


def absolute(path: Path | None) -> str | None:
    """Return a path that still holds when the command is repeated from another folder."""
    return None if path is None else str(path.expanduser().absolute())


def absolute_address(source: str | None) -> str | None:
    """Return a source's address that still holds from another folder; addresses with a scheme are left as they are."""
    return source if source is None or "://" in source else absolute(Path(source))
