"""Programs for tests are installed where that is allowed, and otherwise named."""

from scripts.setup_system import SystemPackages
from scripts.test_programs import PACKAGE_OF_PROGRAM, add_programs

from tests.unit.setup.machine import FakeRunner


def system(runner: FakeRunner, *present: str, is_root: bool = True) -> SystemPackages:
    return SystemPackages(runner, is_root, which=lambda name: f"/usr/bin/{name}" if name in present else None)


def test_nothing_is_done_where_all_are_there():
    runner = FakeRunner()
    assert add_programs(system(runner, *PACKAGE_OF_PROGRAM)) == ""
    assert runner.commands == []


def all_but(*missing: str) -> list[str]:
    return ["apt-get", *(name for name in PACKAGE_OF_PROGRAM if name not in missing)]


def test_what_is_missing_is_installed():
    runner = FakeRunner({"apt-get install": (0, "")})
    sentence = add_programs(system(runner, *all_but("h2load", "wrk")))
    assert sentence == "Installed nghttp2-client, wrk for the tests."
    assert runner.ran("apt-get install")[0].endswith("nghttp2-client wrk")


def test_a_package_that_is_not_there_keeps_no_other_away():
    runner = FakeRunner({"nghttp2-client": (0, ""), "wrk": (100, "E: no wrk")})
    sentence = add_programs(system(runner, *all_but("h2load", "wrk")))
    assert "Without wrk" in sentence
    assert any(command.endswith(" nghttp2-client") for command in runner.ran("apt-get install"))


def test_where_it_may_not_be_installed_the_command_is_named_and_nothing_fails():
    sentence = add_programs(system(FakeRunner(), "curl", "npm", "wrk", is_root=False))
    assert "nghttp2-client" in sentence
    assert "skipped" in sentence
