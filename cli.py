"""The command line, `advbn-gen COMMAND`. Each command is a module of `commands/`, imported only when it is used."""

import importlib
import importlib.util
import io
import os
import sys
from pathlib import Path

import click

PACKAGES = (
    "basics", "sources", "training", "networks", "encoders", "decoders", "attacks", "pipeline", "downstream", "abnn",
    "experiments", "reports", "commands", "advbn_gen",
)  # fmt: skip
"""Top-level packages of advbn-gen. Their names are so common that another project's may hide them."""
COMMANDS = {
    "demo": "commands.demo:demo",
    "sample-data": "commands.sample_data:sample_data",
    "train-autoencoder": "commands.autoencoder:train_autoencoder",
    "import-autoencoder": "commands.autoencoder:import_autoencoder",
    "imagenet-advbn": "commands.imagenet_advbn:imagenet_advbn",
    "render": "commands.render:render",
    "verify": "commands.dataset:verify",
    "info": "commands.dataset:info",
    "export": "commands.dataset:export",
    "score": "commands.score:score",
    "report": "commands.report:report",
    "train-classifier": "commands.classifier:train_classifier",
    "finetune": "commands.finetune:finetune",
    "import-finetuned": "commands.finetune:import_finetuned",
    "import-classifier": "commands.classifier:import_classifier",
    "evaluate": "commands.evaluate:evaluate",
    "abnn": "commands.abnn:abnn",
}

EXIT_WORK_FAILED = 1
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used.

    torch takes seconds to import; `advbn-gen --help` and a mistyped option must respond at once.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the commands in the order of a first visit, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command


def _print_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:  # noqa: ARG001 (click's signature)
    """Print the version, and those of the data format and of the arithmetic, which data sets record."""
    if not wanted or ctx.resilient_parsing:
        return
    from basics.software import FORMAT_VERSION, REVISION, versions_of

    version = versions_of(["advbn-gen"])["advbn-gen"]
    click.echo(f"advbn-gen {version} (data format {FORMAT_VERSION}, revision {REVISION} of the arithmetic)")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show it.")
def advbn_gen() -> None:
    """Make and check ImageNet-AdvBN: images whose style was turned against a classifier.

    \b
    First visit:    advbn-gen demo
    The main job:   advbn-gen imagenet-advbn --encoder vgg --source ILSVRC2012_val
    """


def foreign_package() -> str | None:
    """Return a sentence on the first of `PACKAGES` that does not lie beside this file; None if all do.

    Nothing is imported.
    """
    folder = Path(__file__).absolute().parent
    if str(folder) not in sys.path:
        # An editable install is searched after all of sys.path, so that a mere folder `sources/` in the current one
        # would hide our package. On sys.path a package with an `__init__.py` wins against folders without one.
        sys.path.append(str(folder))
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            return f"The package {name} is missing beside {__file__}; install advbn-gen again."
        if os.path.realpath(spec.origin) != os.path.realpath(folder / name / "__init__.py"):
            return (
                f"The package {name} of advbn-gen is hidden by another of this name, {spec.origin}; install advbn-gen "
                "into an environment of its own (python -m venv, or pipx), and take that folder out of PYTHONPATH."
            )
    return None


def _require_readable_arguments() -> None:
    """Refuse a command line that this locale cannot read, and let any name be printed.

    Raises:
        UserError: see above.
    """
    from basics.text import require_text

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        # Names of classes and files are of any alphabet, and what a terminal lacks must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    for text in (*sys.argv[1:], str(Path.cwd())):
        require_text(text, "A path of this command")


def main() -> None:
    """Run a command; report errors that a user can mend in one sentence and by the exit code."""
    foreign = foreign_package()
    if foreign:
        print(f"Error: {foreign}", file=sys.stderr, flush=True)  # noqa: T201 (`basics` may be the foreign one)
        sys.exit(EXIT_WRONG_USE)
    from basics.errors import UserError, WorkError
    from basics.progress import say

    # Waiting threads of torch would spin on cores that decoding, encoding and other programs need: beside one busy
    # process two spinning threads run at half the speed of two sleeping ones. Read once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        _require_readable_arguments()
        sys.exit(advbn_gen.main(standalone_mode=False) or 0)
    except (click.exceptions.Abort, KeyboardInterrupt):
        say("Interrupted. What was finished is kept; the same command goes on from there.")
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        say(f"Error: {error}")
        sys.exit(EXIT_WRONG_USE)
    except (WorkError, OSError) as error:
        # Errors of the operating system during work (permissions, a full disk) are no bugs; their messages say where.
        say(f"Failed: {error}")
        sys.exit(EXIT_WORK_FAILED)


if __name__ == "__main__":
    main()
