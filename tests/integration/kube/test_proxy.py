"""`kubectl proxy` as the way to a cluster: the real program where there is one, and its troubles."""

import asyncio
import json
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inferdock.domain.errors import ConfigError, UnreachableError
from inferdock.kube.errors import ApiConflict, ApiRefused
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.proxy import kubectl_proxy
from inferdock.kube.resources import CONFIG_MAPS, PODS
from tests.support.fake_cluster import running_fake_cluster

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


def environment(folder: Path, server: str, **user: object) -> dict[str, str]:
    """The environment of a person with one context, `here`, in namespace `team`."""
    cluster: dict[str, object] = {"server": server}
    if server.startswith("https"):
        cluster["insecure-skip-tls-verify"] = True
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        "current-context": "here",
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}


def processes_with(word: str) -> list[str]:
    """Command lines of this machine with a word in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


async def until_gone(word: str) -> None:
    """Processes that were killed may take a moment to be gone."""
    async with asyncio.timeout(20):
        while processes_with(word):
            await asyncio.sleep(0.01)


@needs_kubectl
async def test_every_call_works_through_kubectl_and_nothing_is_left(tmp_path):
    async with running_fake_cluster() as cluster:
        env = environment(tmp_path, cluster.url)
        async with kubectl_proxy("here", env) as access, KubeObjects(access) as api:
            assert access.namespace == "team"
            await api.apply(CONFIG_MAPS, "team", "t", {"data": {"a": "1"}}, manager="us")
            with pytest.raises(ApiConflict) as caught:
                await api.apply(CONFIG_MAPS, "team", "t", {"data": {"a": "2"}}, manager="them")
            assert caught.value.owners == (("us", ".data.a"),)
            watch = api.watch(CONFIG_MAPS, "team", version="100")
            assert [await anext(watch) for _ in range(2)][1][0].object["data"] == {"a": "1"}
            await watch.aclose()
            url = access.base_url
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """kubectl shows no credentials to a server without TLS."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kube"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key", "-out", folder / "crt"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


@needs_kubectl
async def test_kubectls_token_reaches_the_cluster(tmp_path, tls):
    async with running_fake_cluster(tls=tls) as cluster:
        cluster.token = "secret"
        async with kubectl_proxy(None, environment(tmp_path, cluster.url, token="secret")) as access:
            async with KubeObjects(access) as api:
                assert (await api.list(PODS, "team"))[0] == []


@needs_kubectl
async def test_a_pod_is_reached_through_both_and_secrets_are_not(tmp_path):
    async with running_fake_cluster() as cluster, running_fake_cluster() as behind:
        cluster.store.create(PODS, "team", {"metadata": {"name": "gw"}, "spec": {"containers": []}})
        cluster.backends["team", "gw", 8080] = ("127.0.0.1", int(behind.url.rpartition(":")[2]))
        async with kubectl_proxy(None, environment(tmp_path, cluster.url)) as access, KubeObjects(access) as api:
            assert b"v1.33" in await api.read_pod("team", "gw", 8080, "/version", most=1000)
            with pytest.raises(ApiRefused, match="403"):
                await api._transport.ask("GET", "/api/v1/namespaces/team/secrets")


@needs_kubectl
@pytest.mark.parametrize(
    ("context", "user", "error", "said"),
    [
        ("nowhere", {}, ConfigError, "nowhere"),
        ("here", {"token": "wrong"}, UnreachableError, "401"),
        ("here", {"exec": {"command": "/nonexistent/login"}}, UnreachableError, "getting credentials.*login"),
    ],
    ids=["context", "token", "login"],
)
async def test_what_is_wrong_with_the_login_is_said_in_kubectls_words(tmp_path, tls, context, user, error, said):
    if "exec" in user:
        user["exec"] |= {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
    async with running_fake_cluster(tls=tls) as cluster:
        cluster.token = "secret" if user else None
        with pytest.raises(error, match=said):
            async with kubectl_proxy(context, environment(tmp_path, cluster.url, **user)):
                raise AssertionError("not reached")


@needs_kubectl
async def test_a_cluster_that_is_not_there_and_a_person_without_one(tmp_path):
    env = environment(tmp_path, "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="refused"):
        async with kubectl_proxy(None, env):
            raise AssertionError("not reached")
    with pytest.raises(ConfigError, match="current-context"):
        async with kubectl_proxy(None, env | {"KUBECONFIG": str(tmp_path / "none")}):
            raise AssertionError("not reached")


async def test_without_kubectl_the_cure_names_the_other_way(tmp_path):
    with pytest.raises(ConfigError, match="--kube-api"):
        async with kubectl_proxy(None, {"PATH": str(tmp_path)}):
            raise AssertionError("not reached")


def stand_in(folder: Path, proxy: str) -> dict[str, str]:
    """A kubectl that does this for `kubectl proxy`."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\nif [ "$1" = config ]; then exit 0; fi\n{proxy}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(
    ("proxy", "error", "said"),
    [
        ('echo "error: no luck" >&2; exit 1', ConfigError, "no luck"),
        ("exit 0", ConfigError, "no reason given"),
        ("head -c 300000 /dev/zero; sleep 60", UnreachableError, "does not say"),
        ("echo Starting to serve on 127.0.0.1:9; sleep 60", UnreachableError, "Connect call failed"),
    ],
    ids=["fails", "silent", "garbage", "deaf"],
)
async def test_a_kubectl_that_does_something_else(tmp_path, proxy, error, said):
    with pytest.raises(error, match=said):
        async with kubectl_proxy(None, stand_in(tmp_path, proxy)):
            raise AssertionError("not reached")
    await until_gone(str(tmp_path))


async def test_a_kubectl_that_talks_without_end_does_not_get_stuck(tmp_path):
    async with running_fake_cluster() as cluster:
        port = cluster.url.rpartition(":")[2]
        talk = f"echo Starting to serve on 127.0.0.1:{port}; head -c 3000000 /dev/zero >&2"
        talk += f"; touch {tmp_path}/said; sleep 60"
        async with kubectl_proxy(None, stand_in(tmp_path, talk)), asyncio.timeout(20):
            while not (tmp_path / "said").exists():
                await asyncio.sleep(0.01)


@needs_kubectl
def test_kubectl_ends_when_we_are_killed(tmp_path):
    code = """
import asyncio, os, sys
from inferdock.kube import proxy
async def main():
    proxy._check = lambda access: asyncio.sleep(0)
    async with proxy.kubectl_proxy(None, os.environ):
        print("up", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    env = environment(tmp_path, "http://127.0.0.1:9")
    word = str(tmp_path / "bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kubectl").symlink_to(shutil.which("kubectl"))
    env["PATH"] = f"{word}:{env['PATH']}"
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert processes_with(word)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while processes_with(word):
        assert time.monotonic() < deadline, "kubectl outlives us"
        time.sleep(0.02)
