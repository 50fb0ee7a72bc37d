"""Writes docs/cli.md from the commands' own help: `make docs`. `tests/docs` compares the page with `render()`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from inferdock.cli.main import cli
from inferdock.domain.errors import EXIT_CODES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
WIDTH = 100

HEAD = """\
<!-- Written by scripts/render_cli_docs.py from the commands themselves; do not edit: run `make docs`. -->

# The `inferdock` command

Results go to standard output, progress and errors to standard error. `-o json` gives the result as one JSON document.
Settings that a command takes from [`inferdock.yaml` or the environment](configuration.md) yield to its flags.
"""


def commands(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context for the command and, below it, for each of its sub-commands, in the order of their help."""
    context = click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        **command.context_settings,
    )
    yield context
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None and not found.hidden:
                yield from commands(found, child, context)


def render() -> str:
    """The whole page."""
    parts = [HEAD, "## Exit codes\n", "| Code | Meaning |\n| --- | --- |"]
    parts += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    for context in commands(cli, "inferdock"):
        text = "\n".join(line.rstrip() for line in context.command.get_help(context).splitlines())
        parts.append(f"\n## `{context.command_path}`\n\n```text\n{text.strip()}\n```")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
