"""What README and docs/ say can be followed: examples load, links lead somewhere, commands exist."""

import re
from pathlib import Path

import click
import pytest

from inferdock.cli.main import COMMANDS, cli
from inferdock.config.load import load
from tests.docs.pages import ROOT, name_of, pages

EXAMPLE = re.compile(r"```yaml inferdock\.yaml\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\))?)(?:\s+\"[^\"]*\")?\)|<(?:img|a)\b[^>]*\b(?:src|href)=\"([^\"]+)\"")
COMMAND = re.compile(r"(?:^|[`\s(])inferdock ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?((?: [^`\n#|;&)]*)?)", re.MULTILINE)
TARGET = re.compile(r"`make ([a-z-]+)|^(?:\$ )?make ([a-z-]+)", re.MULTILINE)


def each_page() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages(), ids=name_of)


def code_of(text: str) -> str:
    """Only what stands in code: blocks, without the generated help, and words in back-ticks."""
    blocks = re.findall(r"```(?:bash|sh|console|shell)\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *(f"`{word}`" for word in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))])


def test_there_is_an_example_of_a_configuration():
    assert any(EXAMPLE.search(page.read_text(encoding="utf-8")) for page in pages())


@each_page()
def test_every_example_of_a_configuration_loads(page: Path, tmp_path):
    for number, example in enumerate(EXAMPLE.findall(page.read_text(encoding="utf-8"))):
        file = tmp_path / f"{number}.yaml"
        file.write_text(example, encoding="utf-8")
        assert set(load(file=file, env={}, flags={}).origins.values()) != {"default"}, example


def anchors(page: Path) -> set[str]:
    """Anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page()
def test_every_relative_link_leads_to_a_file(page: Path):
    for match in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)):
        target = match[1] or match[2]
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), f"{name_of(page)} links to {target}"
        assert ROOT in path.resolve().parents, f"{name_of(page)} links out of the repository: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{name_of(page)} links to {target}, which has no such heading"


@each_page()
def test_every_command_that_a_page_names_exists(page: Path):
    for name, sub, rest in COMMAND.findall(code_of(page.read_text(encoding="utf-8"))):
        assert name in COMMANDS, f"{name_of(page)} names `inferdock {name}`"
        command: click.Command | None = cli.get_command(click.Context(cli), name)
        if isinstance(command, click.Group) and sub:
            command = command.get_command(click.Context(command), sub)
        assert command is not None, f"{name_of(page)} names `inferdock {name} {sub}`"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        unknown = set(re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", rest)) - known
        assert not unknown, f"{name_of(page)} gives `inferdock {name}` the unknown {unknown}"


@each_page()
def test_every_make_target_that_a_page_names_exists(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for quoted, typed in TARGET.findall(code_of(page.read_text(encoding="utf-8"))):
        assert (quoted or typed) in targets, f"{name_of(page)} names `make {quoted or typed}`"
