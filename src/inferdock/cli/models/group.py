"""The group ``inferdock model`` with all its commands."""

from __future__ import annotations

import click

from inferdock.cli.models.browse import list_, show
from inferdock.cli.models.change import alias, delete
from inferdock.cli.models.check import diff, verify
from inferdock.cli.models.past import history
from inferdock.cli.models.pull import pull
from inferdock.cli.models.push import push
from inferdock.cli.models.quantize import quantize


@click.group()
def model() -> None:
    """Push, verify, pull and compare versions of models, and move the aliases that say which one serves.

    A version never changes: it is complete and verified, or it is not there. The registry is a folder, or a bucket with
    a table (`--registry s3://bucket`, or `registry.url`).
    """


for command in (push, quantize, list_, show, verify, pull, diff, alias, history, delete):
    model.add_command(command)
