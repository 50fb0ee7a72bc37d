"""The group ``inferdock release`` with all its commands."""

from __future__ import annotations

import click

from inferdock.cli.releases.commands import abort, pause, promote, resume, rollback
from inferdock.cli.releases.show import history, status
from inferdock.cli.releases.start import start


@click.group()
def release() -> None:
    """Bring a version of the registry into service: gates, canary, promotion, bake; and go back in seconds.

    Works on the platform that `inferdock up` runs here, or with --target kubernetes on a model in a cluster. Each step
    is in a journal before it is done, so a release goes on after its command was interrupted: `inferdock release
    resume`.
    """


for command in (start, status, pause, resume, promote, abort, rollback, history):
    release.add_command(command)
