"""A child behind its keeper: its log, its end, and the sentence on why it died."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from inferdock.supervisor.child import Child, why_it_died
from inferdock.supervisor.engine import Launch


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried", "not enough memory"),
        ("(APIServer pid=5) ValueError: bad thing\n", "ValueError: bad thing"),
        ("OSError: [Errno 98] Address already in use", "port was taken"),
        ("error: unrecognized arguments: --x", "does not know an argument"),
        ("ValueError: Model architectures ['X'] are not supported for now.", "does not support this architecture"),
        ("ModuleNotFoundError: No module named 'vllm'", "vLLM is not installed"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ValueError: the cause\nRuntimeError: Engine core initialization failed. See root cause above.", "the cause"),
        ("all quiet\nlast line\n", "Its last words were: last line"),
        ("Fatal Python error: Illegal instruction\n\nThread 0x1:\n  File", "instruction that this processor"),
        ("Fatal Python error: Segmentation fault\n", "crashed in native code"),
        (
            "(APIServer pid=4) ERROR 11-29 14:25:24 [async_llm.py:906] vllm.x.EngineDeadError: gone",
            "EngineDeadError: gone",
        ),
        (
            "the last words\n/x/resource_tracker.py:254: UserWarning: resource_tracker: 1 leaked\n"
            "  warnings.warn('resource_tracker: There appear to be %d '\n",
            "the last words",
        ),
        ("\x1b[31mRuntimeError: coloured\x1b[0m", "RuntimeError: coloured"),
        ("", "said nothing"),
    ],
)
def test_the_reason_of_a_death_is_found_in_its_log(tmp_path, text, words):
    log = tmp_path / "log"
    log.write_text(text)
    assert words in why_it_died(log)


def test_a_missing_log_is_no_crash(tmp_path):
    assert "no log" in why_it_died(tmp_path / "none")


def test_a_log_of_noise_is_no_crash(tmp_path):
    (tmp_path / "log").write_bytes(bytes(range(256)) * 1000)
    assert why_it_died(tmp_path / "log")


@pytest.fixture
def start(tmp_path):
    """Start Python code as a child; whatever is left at the end is killed."""
    read, write = os.pipe()
    children: list[Child] = []

    async def starter(code: str, *arguments: str) -> Child:
        launch = Launch((sys.executable, "-c", code, *arguments), dict(os.environ))
        children.append(await Child.start(launch, log=tmp_path / "logs" / "child.log", lifeline_fd=read))
        return children[-1]

    yield starter
    for child in children:
        child.kill()
    os.close(write)
    os.close(read)


async def test_output_goes_to_the_log_and_the_log_before_is_kept(start):
    assert await (await start("print('first')")).wait() == 0
    child = await start("print('second')")
    assert await child.wait() == 0
    logs = [child.log.with_name("child.log.1"), child.log]
    assert [log.read_text() for log in logs] == ["first\n", "second\n"]


async def test_a_child_that_stops_when_asked_is_not_killed(start):
    child = await start(
        "import signal,time; signal.signal(15, lambda *_: exit(9)); print(1, flush=True); time.sleep(99)"
    )
    await written(child.log)
    await child.stop(20)
    assert await child.wait() == 9


async def test_a_child_that_ignores_sigterm_is_killed_after_its_time(start):
    child = await start("import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)")
    await written(child.log)
    await child.stop(0.2)
    assert not child.alive


async def test_killing_reaches_descendants_in_other_sessions(start):
    code = """
import subprocess, sys, time
far = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=True)
print(far.pid, flush=True)
time.sleep(99)
"""
    child = await start(code)
    far = int(await written(child.log))
    child.kill()
    await child.wait()
    async with asyncio.timeout(20):
        while runs(far):
            await asyncio.sleep(0.02)


async def test_a_child_can_be_killed_in_its_first_moment(start):
    child = await start("import time; time.sleep(99)")
    child.kill()
    async with asyncio.timeout(20):
        await child.wait()


async def written(log: Path) -> str:
    """What the child has said, once it has said something."""
    async with asyncio.timeout(20):
        while not (text := content(log)):
            await asyncio.sleep(0.02)
    return text


def content(log: Path) -> str:
    return log.read_text()


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
