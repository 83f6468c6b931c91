"""Write docs/cli.md from the commands' own --help. Run by `make docs`; a test proves that the page is up to date."""

from pathlib import Path

import click
from click.testing import CliRunner

from cli import COMMANDS, advbn_gen

PAGE = Path(__file__).with_name("cli.md")

_HEAD = """# Command line

Generated from `--help` by `make docs`; edit the commands, not this page.

Exit codes: 0 done; 1 the work finished but something in it failed; 2 wrong use or bad input, said before any work
starts; 130 interrupted. Results go to stdout (`--json` for programs), logs and progress to stderr.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD, _section([])]
    for name in COMMANDS:
        parts.append(_section([name]))
        command = advbn_gen.get_command(click.Context(advbn_gen), name)
        if isinstance(command, click.Group):
            parts += [_section([name, inner]) for inner in command.commands]
    return "\n".join(parts)


def _section(words: list[str]) -> str:
    runner = CliRunner(env={"ADVBN_SOURCE": ""})
    shown = runner.invoke(advbn_gen, [*words, "--help"], prog_name="advbn-gen", terminal_width=100)
    if shown.exit_code:
        raise click.ClickException(shown.output)
    title = " ".join(["advbn-gen", *words])
    return f"## {title}\n\n```text\n{shown.output.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
