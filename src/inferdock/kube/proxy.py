"""The way to a cluster from outside: `kubectl proxy` as a child, so that every kind of login that kubectl knows works.

The child listens on 127.0.0.1 on a free port and ends with us, be it by SIGKILL: a shell between us and kubectl reads
from a pipe whose other end only we hold. While it runs, whoever may connect to 127.0.0.1 on this machine has the
person's rights on the cluster; Secrets and shells in pods are held back all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping

from inferdock.domain.errors import ConfigError, InferdockError, UnreachableError
from inferdock.kube.access import ClusterAccess, cluster_access
from inferdock.kube.errors import KubeError
from inferdock.kube.transport import Transport

START_TIMEOUT_S = 20.0
LOGIN_TIMEOUT_S = 60.0
"""A login may ask a server far away, or the person."""
STOP_TIMEOUT_S = 5.0
LAST_WORDS_S = 2.0
MAX_SAID_BYTES = 4096
SERVES = re.compile(rb"Starting to serve on (127\.0\.0\.1:\d+)")
REJECTED = r"^/api/[^/]+/namespaces/[^/]+/pods/[^/]+/(exec|attach|portforward),^/api/[^/]+/(namespaces/[^/]+/)?secrets"
LIFELINE = (
    'exec 3<&0; "$@" 3<&- </dev/null & child=$!; '
    '(read -r _ <&3; kill "$child") >/dev/null 2>&1 & exec 3<&-; wait "$child"'
)
"""Runs the command, and ends it when standard input does."""


def is_own_cluster(api_url: str | None, context: str | None, env: Mapping[str, str]) -> bool:
    """Whether the cluster that is meant is the one that this process runs in: nobody said another, and it is a pod."""
    return api_url is None and context is None and "KUBERNETES_SERVICE_HOST" in env


@contextlib.asynccontextmanager
async def cluster_by(api_url: str | None, context: str | None, env: Mapping[str, str]) -> AsyncIterator[ClusterAccess]:
    """Reach a cluster for as long as the block runs: by an address that was given, as a pod, or as kubectl does.

    Args:
        api_url: address of the API server; None: there is none.
        context: of kubectl's configuration; None: the current one.
        env: the environment.

    Raises:
        ConfigError: the cluster cannot be reached like that.
        UnreachableError: it does not answer.
    """
    if api_url is not None or is_own_cluster(api_url, context, env):
        yield cluster_access(api_url, env)
        return
    async with kubectl_proxy(context, env) as access:
        yield access


@contextlib.asynccontextmanager
async def kubectl_proxy(
    context: str | None, env: Mapping[str, str], *, kubectl: str = "kubectl"
) -> AsyncIterator[ClusterAccess]:
    """Reach the cluster of a context of the person's kubeconfig for as long as the block runs.

    Args:
        context: name of the context; None takes the current one.
        env: the environment, which says where the kubeconfig is.
        kubectl: name or path of the program.

    Raises:
        ConfigError: there is no kubectl, or its configuration does not lead to a cluster.
        UnreachableError: the cluster does not answer, or does not let us in; with kubectl's own sentence.
    """
    program = shutil.which(kubectl, path=env.get("PATH"))
    if program is None:
        raise ConfigError(
            f"`{kubectl}` is not installed here.", cure="Install it, or give the address of the API (`--kube-api`)."
        )
    chosen = [f"--context={context}"] if context is not None else []
    namespace = await _namespace(program, chosen, env)
    command = [program, "proxy", "--port=0", "--address=127.0.0.1", f"--reject-paths={REJECTED}", *chosen]
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", LIFELINE, "sh", *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(env),
        start_new_session=True,  # no Ctrl-C of the terminal: the last words of a release still go through
    )  # fmt: skip
    said = bytearray()
    assert process.stdout is not None
    assert process.stderr is not None
    listening = asyncio.create_task(_listen(process.stderr, said))
    try:
        access = ClusterAccess(f"http://{await _address(process, listening, said)}", namespace=namespace)
        await _check(access)
        yield access
    finally:
        await _stop(process)
        await asyncio.gather(listening, _listen(process.stdout, bytearray()))


async def _namespace(program: str, chosen: list[str], env: Mapping[str, str]) -> str:
    """Namespace of the context; also finds out whether there is such a context."""
    command = [program, "config", "view", "--minify", *chosen, "-o", "jsonpath={..namespace}"]
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=dict(env))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            out, said = await process.communicate()
    except TimeoutError:
        raise UnreachableError("`kubectl config view` does not end.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _no_context(said)
    return out.decode("utf-8", "replace").strip() or "default"


def _no_context(said: bytes) -> ConfigError:
    return ConfigError(
        f"kubectl knows no cluster to go to: {_sentence(said)}.",
        cure="`kubectl config get-contexts` lists what there is; `--kube-context` and KUBECONFIG choose.",
    )


async def _address(process: Process, listening: asyncio.Task[None], said: bytearray) -> str:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            async for line in process.stdout:
                found = SERVES.search(line)
                if found:
                    return found[1].decode()
            await process.wait()
            # Its last words may still be on their way to us; a login that it left behind may hold the pipe open.
            await asyncio.wait([listening], timeout=LAST_WORDS_S)
    except (TimeoutError, ValueError):  # a line without end
        raise UnreachableError("`kubectl proxy` does not say that it serves.") from None
    raise _no_context(bytes(said))


async def _check(access: ClusterAccess) -> None:
    """Whether the cluster answers and lets us in."""
    transport = Transport(access, answer_timeout_s=LOGIN_TIMEOUT_S, watch_timeout_s=1)
    try:
        await transport.ask("GET", "/version")
    except KubeError as exc:
        raise _no_way(exc) from exc
    finally:
        await transport.close()


def _no_way(exc: KubeError) -> InferdockError:
    return UnreachableError(
        f"kubectl does not reach the cluster. {exc.message}", cure="Does `kubectl version` with this context answer?"
    )


async def _listen(stream: asyncio.StreamReader, said: bytearray) -> None:
    """Keep the pipe empty, and the end of what was said."""
    while data := await stream.read(MAX_SAID_BYTES):
        said += data
        del said[:-MAX_SAID_BYTES]


async def _stop(process: Process) -> None:
    """End the session of shell, kubectl and whatever its login had started."""
    assert process.stdin is not None
    process.stdin.close()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()


def _sentence(said: bytes) -> str:
    """The last line of what kubectl said, without its prefix."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    text = lines[-1] if lines else "no reason given"
    return "".join(c for c in text.removeprefix("error: ") if c.isprintable())[:300].rstrip(".")
