"""The client against an API server on a socket: lists, watches, refusals, TLS."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess

import pytest

from inferdock.kube import transport
from inferdock.kube.access import ClusterAccess, cluster_access
from inferdock.kube.api import KubeClient
from inferdock.kube.errors import ApiGone, ApiNonsense, ApiRefused, ApiUnreachable
from tests.support.fake_kube import FakeKube, endpoint, endpoint_slice, running_fake_kube


@contextlib.asynccontextmanager
async def cluster(**client_args):
    async with running_fake_kube() as fake, KubeClient(ClusterAccess(fake.url), **client_args) as client:
        yield fake, client


async def first_events(client: KubeClient, version: str, count: int) -> list:
    """So many events of a watch from a version."""
    events: list = []
    async with contextlib.aclosing(client.watch_slices("ns", "", version)) as batches:
        async for batch in batches:
            events += batch
            if len(events) >= count:
                break
    return events


async def test_a_list_has_every_page_and_the_version_to_watch_from():
    async with cluster() as (fake, client):
        fake.page_items = 2
        for number in range(5):
            await fake.put(endpoint_slice(f"s{number}", endpoint()))
        slices, version = await client.list_slices("ns", "")
        assert ([one.metadata.name for one in slices], version) == ([f"s{n}" for n in range(5)], "105")


async def test_namespace_and_selector_reach_the_server():
    async with cluster() as (fake, client):
        await fake.put(endpoint_slice("a", endpoint()))
        assert await client.list_slices("other", "inferdock.io/model,a=b") == ([], "101")
        assert fake.queries == [{"namespace": "other", "limit": "500", "labelSelector": "inferdock.io/model,a=b"}]


async def test_a_watch_begins_after_the_version_and_asks_for_bookmarks_and_an_end():
    async with cluster(watch_timeout_s=100) as (fake, client):
        await fake.put(endpoint_slice("a", endpoint()))
        await fake.put(endpoint_slice("b", endpoint()))
        (event,) = await first_events(client, "101", 1)
        assert (event.type, event.object.metadata.name) == ("ADDED", "b")
        assert fake.queries[0]["allowWatchBookmarks"] == "true"
        assert 100 <= int(fake.queries[0]["timeoutSeconds"]) <= 200


async def test_events_may_be_cut_into_single_bytes():
    async with cluster() as (fake, client):
        fake.split = lambda line: [line[i : i + 1] for i in range(len(line))]
        for _ in range(3):
            await fake.put(endpoint_slice("a", endpoint()))
        assert [event.type for event in await first_events(client, "100", 3)] == ["ADDED", "MODIFIED", "MODIFIED"]


async def test_a_bookmark_tells_the_version_alone():
    async with cluster() as (fake, client):
        await fake.bookmark()
        (event,) = await first_events(client, "100", 1)
        assert (event.type, event.object.metadata.resource_version) == ("BOOKMARK", "101")


async def test_the_server_ends_a_watch_after_the_time_it_was_given():
    async with cluster(watch_timeout_s=0.5) as (_, client):
        assert [batch async for batch in client.watch_slices("ns", "", "100")] == [[]]


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "token"), (403, "endpointslices"), (429, "this is a 429"), (500, "this is a 500"), (404, "this is a 404")],
)
async def test_a_refusal_carries_the_status_and_what_was_said(status, said):
    async with cluster() as (fake, client):
        fake.refusals.append((status, {"Retry-After": "7"}))
        with pytest.raises(ApiRefused, match=said) as caught:
            await client.list_slices("ns", "")
        assert (caught.value.status, caught.value.retry_after_s) == (status, 7.0)


@pytest.mark.parametrize("value", ["", "soon", "-1", "1e9", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 50])
async def test_a_retry_after_that_is_no_number_of_seconds_is_none(value):
    async with cluster() as (fake, client):
        fake.refusals.append((429, {"Retry-After": value}))
        with pytest.raises(ApiRefused) as caught:
            await client.list_slices("ns", "")
        assert caught.value.retry_after_s is None


async def test_history_that_is_gone_is_told_apart():
    async with cluster() as (fake, client):
        await fake.put(endpoint_slice("a", endpoint()))
        await fake.compact()
        with pytest.raises(ApiGone):
            await first_events(client, "1", 1)


async def test_history_may_go_in_the_middle_of_a_watch():
    async with cluster() as (fake, client):
        watching = asyncio.create_task(first_events(client, "100", 1))
        await until_watched(fake)
        await fake.end_watches("gone")
        with pytest.raises(ApiGone):
            await watching


async def test_a_connection_cut_in_the_middle_of_a_line_is_an_outage_and_no_event():
    async with cluster() as (fake, client):
        watching = asyncio.create_task(first_events(client, "100", 1))
        await until_watched(fake)
        await fake.end_watches("cut")
        with pytest.raises(ApiUnreachable):
            await watching


async def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(transport, "MAX_LINE_BYTES", 1000)
    async with cluster() as (fake, client):
        fake.send_line(b"x" * 2000)
        with pytest.raises(ApiNonsense, match="longer than 1000"):
            await first_events(client, "100", 1)


async def test_a_list_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(transport, "MAX_LIST_BYTES", 1000)
    async with cluster() as (fake, client):
        for number in range(5):
            await fake.put(endpoint_slice(f"s{number}", endpoint()))
        with pytest.raises(ApiNonsense, match="larger than 1000"):
            await client.list_slices("ns", "")


async def test_a_server_that_does_not_answer_is_given_up():
    async with cluster(answer_timeout_s=0.1) as (fake, client):
        fake.slow_s = 60
        with pytest.raises(ApiUnreachable):
            await client.list_slices("ns", "")


async def test_nobody_there_is_an_outage():
    async with running_fake_kube() as fake:
        url = fake.url
    async with KubeClient(ClusterAccess(url)) as client:
        with pytest.raises(ApiUnreachable, match="127"):
            await client.list_slices("ns", "")


async def test_a_redirect_is_not_followed_with_our_token():
    async with cluster() as (fake, client):
        fake.refusals.append((307, {"Location": "http://127.0.0.1:9/"}))
        with pytest.raises(ApiRefused) as caught:
            await client.list_slices("ns", "")
        assert caught.value.status == 307


async def test_a_new_token_is_used_without_a_restart(tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    async with running_fake_kube() as fake, KubeClient(ClusterAccess(fake.url, token_file=token)) as client:
        fake.token = "new"
        with pytest.raises(ApiRefused, match="401"):
            await client.list_slices("ns", "")
        token.write_text("new\n")
        assert await client.list_slices("ns", "") == ([], "100")


@pytest.fixture
def service_account(tmp_path):
    """Files that Kubernetes mounts into a pod, with a CA that is its own server certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kube"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "token").write_text("secret")
    (tmp_path / "namespace").write_text("ns")
    return tmp_path


async def test_a_pod_talks_tls_and_checks_the_certificate(service_account, tmp_path_factory):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(service_account / "ca.crt", service_account / "key")
    async with running_fake_kube(tls=tls) as fake:
        fake.token = "secret"
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": fake.url.rpartition(":")[2]}
        async with KubeClient(cluster_access(None, env, service_account)) as client:
            assert await client.list_slices("ns", "") == ([], "100")
        async with KubeClient(ClusterAccess(fake.url)) as stranger:
            with pytest.raises(ApiUnreachable, match=r"(?i)certificate"):
                await stranger.list_slices("ns", "")


async def until_watched(fake: FakeKube) -> None:
    async with asyncio.timeout(10):
        while not fake.open_watches:
            await asyncio.sleep(0.001)
