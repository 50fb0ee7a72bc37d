"""The ``inferdock`` command: finds the sub-command, turns errors into sentences and exit codes.

Sub-commands load only when they are asked for (:class:`LazyGroup`), so ``--help`` and light commands stay quick.
"""

from __future__ import annotations

import importlib
import sys

import click

from inferdock import __version__
from inferdock.cli.output import report_error, write_whole
from inferdock.domain.errors import EXIT_CODES, InferdockError

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("inferdock.cli.up:up", "Run the platform here: replicas and gateway."),
    "status": ("inferdock.cli.status.command:status", "Show the running platform."),
    "ask": ("inferdock.cli.ask:ask", "Ask the model one question from the terminal."),
    "doctor": ("inferdock.cli.doctor:doctor", "Say what on this machine would stop us, and the cure."),
    "bench": ("inferdock.cli.bench.command:bench", "Measure latency and throughput of any OpenAI-compatible URL."),
    "plan": ("inferdock.cli.plan:plan", "Find the cheapest fleet that carries a load within its objectives."),
    "simulate": ("inferdock.cli.simulate:simulate", "Play an autoscaling policy through a traffic trace, on paper."),
    "engine": ("inferdock.cli.engine:engine", "Become one engine: the entry of the engine's container."),
    "probe": ("inferdock.cli.probe:probe", "Say whether a web address answers, for health checks."),
    "sim": ("inferdock.cli.sim:sim", "Run one simulated vLLM replica."),
    "keys": ("inferdock.cli.keys:keys", "Make, list and revoke the API keys that the gateway checks."),
    "cache": ("inferdock.cli.cache:cache", "Look into the response cache, and invalidate what is in it."),
    "model": ("inferdock.cli.models.group:model", "Push, verify, pull and compare versions of models."),
    "release": ("inferdock.cli.releases.group:release", "Bring a version into service, gated; go back in seconds."),
    "eval": ("inferdock.cli.eval:evaluation", "Judge whether a candidate is as good as the champion."),
    "verify": ("inferdock.cli.verify:verify_command", "Check a running target against the plan, with evidence."),
    "cost": ("inferdock.cli.cost:cost", "Show what a million tokens cost, by model, revision and tenant."),
    "config": ("inferdock.cli.config:config", "Show the configuration and where each value comes from."),
    "render": ("inferdock.cli.render:render_command", "Print Kubernetes objects from the chart."),
    "install": ("inferdock.cli.install:install", "Install the chart into a cluster, or upgrade it, and wait."),
    "gateway": ("inferdock.cli.gateway:gateway", "Run the gateway alone, in front of given replicas."),
}
"""Command name to (where it lives, one line of help)."""

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in EXIT_CODES.items())


class LazyGroup(click.Group):
    """A group that imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="inferdock")
def cli() -> None:
    """Take open LLM weights to a production OpenAI-compatible service on vLLM.

    \b
    Example:
      inferdock up                     # the demo model, one replica, http://127.0.0.1:8080/v1
      inferdock ask "What is Inferdock?"
    """


def main() -> None:
    """Entry point of the console script; never lets a traceback reach the person for a foreseen error."""
    write_whole()
    try:
        result = cli.main(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except InferdockError as exc:
        report_error(exc)
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
