"""The client for objects of any kind against the fake cluster: custom kinds, faults, hostile answers.

What a real API server must do as well is in ``tests/contract/kube``.
"""

import asyncio
import contextlib

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.kube.access import ClusterAccess
from inferdock.kube.errors import ApiConflict, ApiGone, ApiMissing, ApiNonsense, ApiRefused, ApiUnreachable
from inferdock.kube.objects_api import KubeObjects
from inferdock.kube.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS, SCALED_OBJECTS
from tests.support.fake_cluster import running_fake_cluster

NS = "ns"


@contextlib.asynccontextmanager
async def cluster(**client_args):
    async with running_fake_cluster() as fake, KubeObjects(ClusterAccess(fake.url), **client_args) as api:
        yield fake, api


def deployment(name: str = "llm", image: str = "engine:1", **spec: object) -> dict:
    """A Deployment as a template has it: without replicas."""
    labels = {"app": name}
    container = {"name": "engine", "image": image, "ports": [{"name": "http", "containerPort": 8000}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {"metadata": {"labels": labels}, "spec": {"selector": {"matchLabels": labels}, "template": template, **spec}}


async def changes(api: KubeObjects, version: str, count: int, **selectors: str) -> list[tuple[str, str]]:
    """Type and name of so many events of ConfigMaps after a version."""
    found: list[tuple[str, str]] = []
    async with contextlib.aclosing(api.watch(CONFIG_MAPS, NS, version=version, **selectors)) as batches:
        async for batch in batches:
            found += [(event.type, event.object["metadata"]["name"]) for event in batch]
            if len(found) >= count:
                break
    return found


# -- Reading ------------------------------------------------------------------------------------------------------


async def test_a_list_has_every_page_says_what_the_items_are_and_keeps_to_its_selectors():
    async with cluster() as (fake, api):
        fake.page_items = 2
        for number in range(5):
            labels = {"parity": "odd" if number % 2 else "even"}
            fake.store.create(CONFIG_MAPS, NS, {"metadata": {"name": f"c{number}", "labels": labels}})
        every, version = await api.list(CONFIG_MAPS, NS)
        assert ([one["metadata"]["name"] for one in every], version) == ([f"c{n}" for n in range(5)], "105")
        assert {one["kind"] for one in every} == {"ConfigMap"}
        odd, _ = await api.list(CONFIG_MAPS, NS, selector="parity in (odd, none),parity")
        named, _ = await api.list(CONFIG_MAPS, NS, fields="metadata.name=c2")
        assert ([one["metadata"]["name"] for one in odd], len(named)) == (["c1", "c3"], 1)


async def test_a_list_that_grew_old_between_its_pages_is_begun_anew():
    async with cluster() as (fake, api):
        fake.page_items = 1
        for name in "ab":
            fake.store.create(CONFIG_MAPS, NS, {"metadata": {"name": name}})
        fake.fault("refuse", 1, path="/configmaps", code=410)
        assert len((await api.list(CONFIG_MAPS, NS))[0]) == 2
        fake.fault("refuse", 3, path="/configmaps", code=410)
        with pytest.raises(ApiGone):
            await api.list(CONFIG_MAPS, NS)


async def test_nodes_have_no_namespace():
    async with cluster() as (fake, api):
        fake.store.create(NODES, "", {"metadata": {"name": "n1"}})
        assert [node["metadata"]["name"] for node in (await api.list(NODES, NS))[0]] == ["n1"]


async def test_history_that_is_gone_asks_for_a_new_list():
    async with cluster() as (fake, api):
        fake.store.create(CONFIG_MAPS, NS, {"metadata": {"name": "a"}})
        fake.store.compact()
        with pytest.raises(ApiGone):
            await changes(api, "100", 1)


@pytest.mark.parametrize(("how", "error"), [("gone", ApiGone), ("cut", ApiUnreachable)])
async def test_a_watch_that_breaks_says_how(how, error):
    async with cluster() as (fake, api):
        watching = asyncio.create_task(changes(api, "100", 1))
        async with asyncio.timeout(10):
            while not fake.open_watches:
                await asyncio.sleep(0.001)
        await fake.end_watches(how)
        with pytest.raises(error):
            await watching


# -- Server-side apply --------------------------------------------------------------------------------------------


async def test_fields_of_a_custom_kind_have_owners_too_and_its_lists_only_one():
    async with cluster() as (_, api):
        spec = {"minReplicaCount": 1, "triggers": [{"type": "cpu", "name": "a"}]}
        await api.apply(SCALED_OBJECTS, NS, "s", {"spec": spec}, manager="chart")
        change = {"spec": {"triggers": [{"type": "cpu", "name": "b"}]}}
        with pytest.raises(ApiConflict) as caught:
            await api.apply(SCALED_OBJECTS, NS, "s", change, manager="us")
        assert caught.value.owners == (("chart", ".spec.triggers"),)


async def test_replicas_are_set_through_scale_and_an_apply_without_them_leaves_them():
    async with cluster() as (fake, api):
        await api.apply(DEPLOYMENTS, NS, "llm", deployment(), manager="us")
        scale = await api.patch(DEPLOYMENTS, NS, "llm", {"spec": {"replicas": 3}}, subresource="scale")
        assert (scale["kind"], scale["spec"]) == ("Scale", {"replicas": 3})
        after = await api.apply(DEPLOYMENTS, NS, "llm", deployment(image="engine:2"), manager="us")
        assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (3, 3)
        with pytest.raises(ApiConflict, match="inferdock-release"):
            await api.apply(DEPLOYMENTS, NS, "llm", deployment(replicas=1), manager="us")
        fake.scale(NS, "llm", 5, "keda")
        with pytest.raises(ApiConflict, match='"keda"'):
            await api.apply(DEPLOYMENTS, NS, "llm", {"spec": {"replicas": 2}}, manager="us", subresource="scale")


# -- What the server refuses, and faults --------------------------------------------------------------------------


async def test_what_is_forbidden_says_what_and_whom_to_ask():
    async with cluster() as (fake, api):
        fake.forbidden = lambda verb, resource, name: (verb, resource) == ("patch", DEPLOYMENTS)
        with pytest.raises(ApiRefused, match=r'cannot patch resource "deployments".*administrator'):
            await api.apply(DEPLOYMENTS, NS, "a", deployment("a"), manager="us")


async def test_a_kind_that_the_cluster_does_not_have_is_missing():
    async with cluster() as (fake, api):
        fake.unknown = {"scaledobjects"}
        with pytest.raises(ApiMissing, match="could not find the requested resource"):
            await api.list(SCALED_OBJECTS, NS)


async def test_an_answer_that_is_lost_leaves_what_was_done():
    async with cluster() as (fake, api):
        fake.fault("lose", method="POST")
        with pytest.raises(ApiUnreachable):
            await api.create(CONFIG_MAPS, NS, {"metadata": {"name": "a"}})
        assert await api.get(CONFIG_MAPS, NS, "a") is not None


async def test_a_request_that_is_dropped_was_not_done():
    async with cluster() as (fake, api):
        fake.fault("drop", method="PATCH")
        with pytest.raises(ApiUnreachable):
            await api.apply(CONFIG_MAPS, NS, "a", {"data": {}}, manager="us")
        assert await api.get(CONFIG_MAPS, NS, "a") is None


async def test_while_the_api_is_away_nothing_answers_and_then_all_is_as_before():
    async with cluster() as (fake, api):
        await api.create(CONFIG_MAPS, NS, {"metadata": {"name": "a"}})
        await fake.go_away()
        with pytest.raises(ApiUnreachable):
            await api.get(CONFIG_MAPS, NS, "a")
        fake.away = False
        assert await api.get(CONFIG_MAPS, NS, "a") is not None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"oops",
        b"[]",
        b"null",
        b"{}",
        b'{"metadata":[]}',
        b'{"metadata":{"name":7}}',
        b'{"metadata":{"labels":{"a":1}}}',
        b'{"metadata":{}} more',
        b'{"metadata":{"name":"\xff"}}',
        b'{"metadata":{},"x":' + b"[" * 100_000,
    ],
    ids=["empty", "text", "list", "null", "bare", "meta", "name", "label", "tail", "bytes", "deep"],
)
async def test_an_answer_that_is_no_object_is_nonsense(body):
    async with cluster() as (fake, api):
        for method, ask in (
            ("GET", lambda: api.get(CONFIG_MAPS, NS, "a")),
            ("GET", lambda: api.list(CONFIG_MAPS, NS)),
            ("PATCH", lambda: api.apply(CONFIG_MAPS, NS, "b", {}, manager="us")),
        ):
            fake.store.create(CONFIG_MAPS, NS, {"metadata": {"generateName": "a"}})
            fake.fault("nonsense", method=method, body=body)
            with pytest.raises((ApiNonsense, ApiMissing)):
                await ask()


async def test_a_watch_line_that_is_no_object_is_nonsense():
    async with cluster() as (fake, api):
        fake.send_line(b'{"type":"ADDED","object":[]}\n')
        with pytest.raises(ApiNonsense):
            await changes(api, "100", 1)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?b", "a b", "a\n", "-a", "a" * 300])
async def test_a_name_that_would_change_the_path_never_leaves_us(name):
    async with cluster() as (fake, api):
        for ask in (api.get, api.delete):
            with pytest.raises(ConfigError):
                await ask(CONFIG_MAPS, NS, name)
        with pytest.raises(ConfigError):
            await api.list(CONFIG_MAPS, name or "/")
        assert fake.requests == []


async def test_an_error_text_that_comes_in_pieces_is_read_to_its_end():
    said = '{"kind":"Status","message":"all of this","reason":"Invalid","code":422}'
    answer = f"HTTP/1.1 422 Unprocessable\r\nContent-Length: {len(said)}\r\n\r\n".encode()
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (answer, said[:20].encode(), said[20:].encode()):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, KubeObjects(ClusterAccess(f"http://127.0.0.1:{port}")) as api:
        with pytest.raises(ApiRefused, match="all of this"):
            await api.get(CONFIG_MAPS, NS, "a")
        await served.wait()


async def test_a_pod_is_reached_through_the_api_server():
    async with cluster() as (fake, api), running_fake_cluster() as behind:
        fake.store.create(PODS, NS, {"metadata": {"name": "gw"}, "spec": {"containers": []}})
        host, _, port = behind.url.removeprefix("http://").partition(":")
        fake.backends[NS, "gw", 8080] = (host, int(port))
        with pytest.raises(ApiMissing, match="requested resource"):
            await api.read_pod(NS, "gw", 8080, "/metrics", most=1000)
        assert behind.requests[0].path == "/metrics"
        assert api.pod_proxy(NS, "gw", 8080) == f"{fake.url}/api/v1/namespaces/ns/pods/http:gw:8080/proxy"
        with pytest.raises(ApiRefused, match="refused"):
            await api.read_pod(NS, "gw", 9, "/metrics", most=1000)
