"""``inferdock bench`` and ``inferdock ask`` as commands, against simulated replicas and things that are none."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferdock.app.render import merged, read_values
from inferdock.cli.bench.sweep import Known
from inferdock.sim.testing import sim_process
from tests.support.chart import chart_objects
from tests.support.kubernetes_scaling_checks import triggers
from tests.support.scripted_replica import Script, scripted_replica

REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"
EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n'
)
INFERDOCK = [sys.executable, "-m", "inferdock.cli.main"]


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*INFERDOCK, *arguments], input=stdin, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def replica():
    with sim_process("--port", "0", "--ttft", "0.05", "--itl", "0.01") as running:
        yield running


def test_a_closed_loop_measures_what_the_replica_was_told_to_be(replica):
    result = run(
        "bench", f"{replica.url}/v1", "--concurrency", "5", "--requests", "60", "--output-tokens", "20", "-o", "json"
    )
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout)["summary"]
    assert (summary["succeeded"], summary["output_tokens"], summary["counted_tokens"]) == (60, 1200, False)
    assert 0.045 < summary["ttft"]["p50"] < 0.5
    assert 0.008 < summary["tpot"]["p50"] < 0.1


@pytest.mark.parametrize("arrival", ["poisson", "constant"])
def test_an_open_loop_keeps_its_rate(replica, arrival):
    result = run("bench", f"{replica.url}/v1", "--arrival", arrival, "--rate", "40", "--duration", "2", "-o", "json")
    summary = json.loads(result.stdout)["summary"]
    assert 50 <= summary["requests"] <= 110
    assert summary["succeeded"] == summary["requests"]


def target_in_the_chart(values: Path) -> str:
    """What KEDA would aim at for the model `small`, with these values after others."""
    model = {"version": "1.0.0", "source": "org/small", "autoscaling": {"enabled": True}}
    given = merged({"models": {"mistral-7b-instruct": None, "small": model}}, read_values([values], []))
    found = [one for _, one in triggers(chart_objects(given)) if one["name"] == "load"]
    assert len(found) == 1
    return str(found[0]["metadata"]["threshold"])


def test_what_is_known_of_the_engine_is_in_the_profile_and_the_rest_is_measured():
    known = Known(max_num_seqs=64, startup_s=75.0)
    assert known.engine() == {"max_num_seqs": 64, "startup_s": 75.0}
    assert Known().engine() == {}


def test_a_sweep_finds_what_the_replica_takes_at_once_and_simulate_believes_it(tmp_path):
    with sim_process("--port", "0", "--ttft", "0.05", "--itl", "0.01", "--max-num-seqs", "8") as small:
        files = {name: tmp_path / f"{name}.out" for name in ("profile", "values", "json")}
        wishes = [part for name, file in files.items() for part in (f"--{name}", str(file))]
        result = run(
            *("bench", f"{small.url}/v1", "--sweep", "1,8,64", "--output-tokens", "20"),
            *("--slo", "ttft_p95=1s", *wishes),
            *("--startup-s", "7.5", "--kv-cache-tokens", "50000", "--values-key", "small"),
        )
        assert result.returncode == 0, result.stderr
        assert "--max-num-seqs says more" in result.stderr
        assert "--startup-s" not in result.stderr
    document = json.loads(files["json"].read_text())
    assert (document["knee"], document["requests_per_replica"]) == (8, 6)
    assert target_in_the_chart(files["values"]) == "6"
    profile = json.loads(files["profile"].read_text())
    assert (profile["startup_s"], profile["kv_cache_tokens"]) == (7.5, 50_000)
    assert 6 <= profile["max_num_seqs"] <= 8
    assert 0.008 < profile["steps"][0]["seconds"] < 0.1
    played = run("simulate", "--profile", str(files["profile"]), "--burst", "5", "20", "10", "60", "--duration", "100",
                 "--fixed", "-o", "json")  # fmt: skip
    assert json.loads(played.stdout)["requests"]["asked"] > 500


def test_a_sweep_whose_first_rung_misses_says_so(replica):
    result = run("bench", f"{replica.url}/v1", "--sweep", "1", "--output-tokens", "5", "--slo", "ttft_p95=1ms")
    assert result.returncode == 8
    assert "Already 1 at once miss ttft_p95=1ms" in result.stderr


@pytest.mark.parametrize("arguments", [("--sweep", "x"), ("--profile", "p.json"), ("--values", "v.yaml")])
def test_wishes_that_no_sweep_can_follow_are_refused_at_once(arguments):
    result = run("bench", "http://127.0.0.1:9/v1", *arguments)
    assert result.returncode == 3
    assert "sweep" in result.stderr or "concurrencies" in result.stderr


@pytest.mark.parametrize("arguments", [("--api", "completions"), ("--no-stream",), ("--free-output",)])
def test_other_ways_to_ask_work_too(replica, arguments):
    result = run("bench", f"{replica.url}/v1", "--requests", "10", "--concurrency", "5", "-o", "json", *arguments)
    assert json.loads(result.stdout)["summary"]["succeeded"] == 10, result.stderr


def test_a_report_has_configuration_machine_and_picture(replica, tmp_path):
    files = ["--json", str(tmp_path / "run.json"), "--plot", str(tmp_path / "run.png")]
    result = run("bench", f"{replica.url}/v1", "--requests", "30", "--concurrency", "10", "--api-key", "secret", *files)
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "run.json").read_text())
    assert document["configuration"]["model"] == "sim"
    assert document["machine"]["cpus"] >= 1
    assert "secret" not in json.dumps(document)
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "requests/s" in result.stdout


def test_a_missed_objective_is_exit_8_and_named(replica):
    result = run("bench", f"{replica.url}/v1", "--requests", "50", "--slo", "ttft_p95=1ms", "--slo", "error_rate=1%")
    assert result.returncode == 8
    assert "fail: ttft_p95=1ms" in result.stdout
    assert "pass: error_rate=1%" in result.stdout


def test_failures_are_counted_by_kind_and_do_not_stop_the_run():
    with sim_process("--port", "0", "--ttft", "0", "--fault", "status:500@11x5", "--fault", "cut:3@21x5") as replica:
        result = run(
            "bench", f"{replica.url}/v1", "--warmup", "0", "--requests", "40", "--concurrency", "1", "-o", "json"
        )
    errors = json.loads(result.stdout)["summary"]["errors"]
    assert errors == {"http 500": 5, "stream cut": 5}


def test_nobody_there_is_exit_7_with_a_cure():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    for command in (("bench", url), ("ask", "hello", "--url", url)):
        result = run(*command)
        assert (result.returncode, "inferdock up" in result.stderr) == (7, True), result.stderr


@pytest.mark.parametrize(
    "arguments", [("--arrival", "poisson"), ("--prompt-tokens", "many"), ("--slo", "fast"), ("--prompts", "/nowhere")]
)
def test_wrong_options_are_exit_3(replica, arguments):
    result = run("bench", f"{replica.url}/v1", *arguments)
    assert result.returncode == 3
    assert "Traceback" not in result.stderr


def test_ctrl_c_reports_what_was_measured_so_far(replica):
    command = [*INFERDOCK, "bench", f"{replica.url}/v1", "--duration", "60", "--concurrency", "5", "-o", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert json.loads(out)["summary"]["succeeded"] > 0


async def test_a_server_that_refuses_vllms_fields_is_measured_without_them():
    def script(_: int) -> Script:
        refused = b"ignore_eos" in replica.requests[-1]
        return [REFUSAL] if refused else [EVENTS, None]

    async with scripted_replica(script) as replica:
        command = [*INFERDOCK, "bench", f"{replica.url}/v1", "--model", "m", "--requests", "5", "-o", "json"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = await process.communicate()
    document = json.loads(out)
    assert document["summary"]["succeeded"] == 5
    assert document["configuration"]["exact_output"] is False
    assert b"refuses ignore_eos" in err


@pytest.mark.parametrize(("fault", "status"), [("status:503", 8), ("refuse", 7)])
@pytest.mark.parametrize("warmup", ["0", "3"])
def test_a_run_without_one_success_is_no_success(fault, status, warmup):
    with sim_process("--port", "0", "--fault", fault) as replica:
        result = run("bench", f"{replica.url}/v1", "--requests", "5", "--warmup", warmup)
    assert result.returncode == status
    assert "No request succeeded" in result.stderr


def test_json_is_valid_even_where_nothing_was_measured(replica):
    objective = ("--slo", "tpot_p50=50ms")
    result = run("bench", f"{replica.url}/v1", "--requests", "2", "--output-tokens", "1", "-o", "json", *objective)
    document = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert result.returncode == 8
    assert document["objectives"] == [{"objective": "tpot_p50=50ms", "verdict": "inconclusive", "value": None}]


def test_files_that_cannot_be_written_lose_no_result(replica, tmp_path):
    (tmp_path / "file").touch()
    result = run("bench", f"{replica.url}/v1", "--requests", "5", "--json", str(tmp_path / "file" / "result.json"))
    assert result.returncode == 5
    assert "requests/s" in result.stdout
    assert "Traceback" not in result.stderr


def test_ask_streams_an_answer(replica):
    result = run("ask", "hello there", "--url", f"{replica.url}/v1", "--max-tokens", "8")
    assert result.returncode == 0
    assert result.stdout.strip()


def test_ask_reads_the_question_from_standard_input(replica):
    asked = run("ask", "-", "--url", f"{replica.url}/v1", "-o", "json", stdin="hello there")
    given = run("ask", "hello there", "--url", f"{replica.url}/v1", "-o", "json")
    assert json.loads(asked.stdout) == json.loads(given.stdout)


def test_ask_without_a_question_says_so(replica):
    result = run("ask", "-", "--url", f"{replica.url}/v1", stdin=" \n")
    assert (result.returncode, "no question" in result.stderr) == (3, True)


def test_ask_takes_any_bytes_as_a_question(replica):
    command = [*INFERDOCK, "ask", "-", "--url", f"{replica.url}/v1", "--max-tokens", "3"]
    result = subprocess.run(command, input=b"hello \xff\xfe", capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


async def test_a_message_of_the_server_cannot_steer_the_terminal():
    message = b'{"error": {"message": "\\u001b[2Jgone"}}'
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(message)
    async with scripted_replica([head + message]) as replica:
        command = [*INFERDOCK, "ask", "hello", "--url", f"{replica.url}/v1", "--model", "m"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        _, err = await process.communicate()
    assert b"[2Jgone" in err
    assert b"\x1b" not in err


def test_ask_says_what_the_server_says(replica):
    result = run("ask", "hello", "--url", f"{replica.url}/v1", "--model", "other")
    assert result.returncode == 8
    assert "does not exist" in result.stderr


def test_ask_says_when_the_answer_was_cut():
    with sim_process("--port", "0", "--ttft", "0", "--fault", "cut:3") as replica:
        result = run("ask", "hello there", "--url", f"{replica.url}/v1", "--max-tokens", "50")
    assert result.returncode == 8
    assert "cut" in result.stderr
