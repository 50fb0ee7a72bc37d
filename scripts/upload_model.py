#!/usr/bin/env python3
"""Push a model into the registry on S3: a door into `inferdock model push`, with the migration plan's arguments.

Usage:
    python scripts/upload_model.py --model-path ./models/demo --model-name demo --version 1.0.0

Goes to the registry that is configured, else to the plan's bucket. Further arguments go to
`inferdock model push` as they are (`--alias candidate`, `--registry s3://other-bucket`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

BUCKET = "s3://llm-model-registry-prod"
"""The plan's bucket, as terraform/model-registry makes it for the environment `prod`."""


def push_arguments(arguments: list[str], *, configured: bool) -> list[str]:
    """Arguments of `inferdock`, for those of this script.

    Args:
        arguments: of the command line.
        configured: the configuration names a registry.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="folder of the model")
    parser.add_argument("--version", required=True, help="for instance 1.0.0")
    parser.add_argument("--model-name", required=True, help="for instance mistral-7b-instruct")
    options, others = parser.parse_known_args(arguments)
    command = ["model", "push", options.model_path, "--name", options.model_name, "--version", options.version]
    if not configured and not any(other.partition("=")[0] == "--registry" for other in others):
        command += ["--registry", BUCKET]
    return command + others


def main() -> None:
    """Entry point."""
    inferdock = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "inferdock"
    if not inferdock.is_file():
        sys.exit("error: inferdock is not set up here. Run `make setup` first.")
    command = push_arguments(sys.argv[1:], configured=_configured(inferdock))
    sys.stdout.flush()
    os.execv(inferdock, [str(inferdock), *command])


def _configured(inferdock: Path) -> bool:
    """Whether `inferdock.yaml` or the environment names a registry; what is wrong with them, the push says."""
    command = [inferdock, "config", "show", "-o", "json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.returncode == 0 and json.loads(shown.stdout)["registry"]["url"] is not None


if __name__ == "__main__":
    main()
