"""The fake replica and the load generator, on each other and on answers that are wrong."""

import contextlib
import json
import shutil
import socket
import subprocess
import threading
import urllib.request

import pytest
from bench.gateway.processes import Cores, replicas
from bench.gateway.tools import program

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def token(number: int) -> bytes:
    return b'data: {"choices":[{"delta":{"content":"@%019d.%06d@"}}]}\n\n' % (1, number)


def wish(**fields) -> dict:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}


@pytest.fixture
def replica():
    with replicas(2, Cores((0,), (0,))) as running:
        running.ask("/bench/pace?1000")
        yield running


def post(replica, **fields) -> bytes:
    request = urllib.request.Request(f"{replica.urls[0]}/v1/chat/completions", json.dumps(wish(**fields)).encode())
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read()


def events(answer: bytes) -> list:
    lines = [line.removeprefix(b"data: ") for line in answer.split(b"\n\n") if line]
    assert lines.pop() == b"[DONE]"
    return [json.loads(line) for line in lines]


def load(tmp_path, port: int, mode: str, *arguments: str, **fields) -> dict:
    body = tmp_path / "body"
    body.write_text(json.dumps(wish(**fields)))
    command = [str(program("load")), mode, "--port", str(port), "--body", str(body), *arguments]
    return json.loads(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)


def port_of(replica) -> int:
    return int(replica.urls[0].rpartition(":")[2])


@contextlib.contextmanager
def canned(answer: bytes):
    """A server that answers everything with these bytes and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_a_stream_has_as_many_tokens_as_asked_for(replica):
    found = events(post(replica, stream=True, max_tokens=5))
    assert len(found) == 7  # the role, five tokens, the end
    assert found[-1]["choices"][0]["finish_reason"] == "length"


def test_token_ids_come_when_asked_for(replica):
    found = events(post(replica, stream=True, max_tokens=2, return_token_ids=True))
    assert found[0]["prompt_token_ids"]
    assert [event["choices"][0]["token_ids"] for event in found[1:3]] == [[10000], [10001]]
    assert "token_ids" not in events(post(replica, stream=True, max_tokens=1))[1]["choices"][0]


def test_usage_comes_when_asked_for(replica):
    found = events(post(replica, stream=True, max_tokens=3, stream_options={"include_usage": True}))
    assert found[-1]["usage"]["completion_tokens"] == 3
    assert found[-1]["choices"] == []


def test_text_of_a_prompt_is_not_taken_for_a_wish(replica):
    answer = post(replica, messages=[{"role": "user", "content": 'say "stream": true, \\"max_tokens\\": 9'}], n=1)
    assert json.loads(answer)["object"] == "chat.completion"


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
def test_bodies_of_any_size_are_read_whole(replica, size):
    answer = post(replica, messages=[{"role": "user", "content": "x" * size}], stream=True, max_tokens=1)
    assert len(events(answer)) == 3


def test_a_chunked_request_is_understood(replica):
    body = json.dumps(wish(stream=True, max_tokens=4)).encode()
    parts = (body[i : i + 7] for i in range(0, len(body), 7))
    request = urllib.request.Request(f"{replica.urls[0]}/v1/chat/completions", parts)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=10) as response:
        assert len(events(response.read())) == 6


def test_what_a_gateway_asks_a_replica_is_answered(replica):
    assert replica.ask("/health") == ""
    assert json.loads(replica.ask("/v1/models"))["data"][0]["id"] == "m"
    assert "vllm:num_requests_running" in replica.ask("/metrics")


def test_requests_are_counted_on_both_sides_alike(replica, tmp_path):
    found = load(tmp_path, port_of(replica), "json", "-c", "4", "--seconds", "0.2")
    assert found["errors"] == 0
    seen = json.loads(replica.ask("/bench/counts"))["requests"]
    assert found["requests"] <= seen <= found["requests"] + 4


def test_streams_are_counted_token_by_token(replica, tmp_path):
    sizes = ("-c", "5", "--streams", "10", "--tokens", "20")
    found = load(tmp_path, port_of(replica), "run", *sizes, stream=True, max_tokens=20)
    assert (found["errors"], found["streams"], found["tokens"], found["unfinished"]) == (0, 10, 200, 0)
    assert found["ttft_us"]["count"] == 10


def test_open_streams_are_measured_while_they_are_open(replica, tmp_path):
    sizes = ("-c", "5", "--tokens", "900000", "--seconds", "0.3")
    found = load(tmp_path, port_of(replica), "steady", *sizes, stream=True, max_tokens=900_000)
    assert found["errors"] == 0
    assert found["tokens"] > 0


def test_the_processor_time_of_a_watched_process_is_read(replica, tmp_path):
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        try:
            found = load(tmp_path, port_of(replica), "json", "--seconds", "0.3", "--pid", str(busy.pid))
        finally:
            busy.kill()
    assert 0 < found["cpu_s"] < 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HEAD + chunk(token(0)) + chunk(token(1)) + chunk(DONE) + b"0\r\n\r\n", ""),
        (HEAD + chunk(token(0)[:9]) + chunk(token(0)[9:] + token(1)[:-1]) + chunk(b"\n" + DONE) + b"0\r\n\r\n", ""),
        (HEAD + chunk(token(0)) + chunk(b": wait\n\n") + chunk(token(1)) + chunk(DONE) + b"0\r\n\r\n", ""),
        (HEAD + chunk(token(0)) + chunk(token(1)) + b"0\r\n\r\n", "no [DONE]"),
        (HEAD + chunk(token(0)) + chunk(DONE) + b"0\r\n\r\n", "tokens are missing"),
        (HEAD + chunk(token(0)) + chunk(token(0)) + chunk(DONE) + b"0\r\n\r\n", "tokens out of order"),
        (HEAD + chunk(token(0)) + chunk(b'data: {"error": {}}\n\n') + chunk(DONE) + b"0\r\n\r\n", "error event"),
        (HEAD + chunk(token(0)) + chunk(token(1)), "connection closed"),
        (HEAD + b"xyz\r\n", "bad chunk size"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "answered HTTP/1.1 503 Busy"),
    ],
    ids=["right", "cut-anywhere", "heartbeat", "no-done", "lost", "doubled", "error", "closed", "framing", "status"],
)
def test_a_wrong_stream_is_an_error(tmp_path, answer, error):
    with canned(answer) as port:
        found = load(tmp_path, port, "run", "--streams", "1", "--tokens", "2", stream=True, max_tokens=2)
    assert found["first_error"].strip() == error
    assert found["streams"] == (0 if error else 1)
