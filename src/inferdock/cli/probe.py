"""``inferdock probe``: whether an address answers, for health checks in images that have no curl."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import click

from inferdock.domain.errors import CheckFailedError, ConfigError


@click.command()
@click.argument("url")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="Longest wait in seconds."
)
def probe(url: str, timeout: float) -> None:
    """Ask URL; exit with 0 if it answers with a status below 400, else with 8. For images that have no curl.

    \b
    Example:
      inferdock probe http://127.0.0.1:8080/health/ready
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"{url[:200]!r} is no web address.", cure="Begin it with http://.")
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            response.read(1)
    except urllib.error.HTTPError as exc:
        exc.close()
        raise CheckFailedError(f"{url} answers with status {exc.code}.") from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        raise CheckFailedError(f"{url} does not answer: {getattr(exc, 'reason', exc)}.") from exc
