"""How the API server is reached."""

import pytest

from inferdock.domain.errors import ConfigError
from inferdock.kube.access import ClusterAccess, cluster_access
from inferdock.kube.errors import ApiUnreachable

POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def test_a_pod_finds_its_cluster_and_namespace(tmp_path):
    (tmp_path / "namespace").write_text("llm\n")
    access = cluster_access(None, POD, tmp_path)
    assert (access.base_url, access.namespace) == ("https://10.96.0.1:443", "llm")


def test_an_ipv6_cluster_is_written_with_brackets(tmp_path):
    assert (
        cluster_access(None, {**POD, "KUBERNETES_SERVICE_HOST": "fd00::1"}, tmp_path).base_url
        == "https://[fd00::1]:443"
    )


def test_outside_a_pod_the_error_says_what_to_do():
    with pytest.raises(ConfigError, match="kubectl proxy"):
        cluster_access(None, {})


@pytest.mark.parametrize(
    "url", ["10.0.0.1:443", "ftp://x", "http://", "http://h:99999", "http://h/?a=1", "http://[::1"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match=r"http\(s\)://host:port"):
        cluster_access(url, {})


def test_a_given_address_needs_no_token():
    assert "Authorization" not in cluster_access("http://127.0.0.1:8001/", {}).headers()


def test_a_token_that_was_replaced_is_used_at_once(tmp_path):
    access = cluster_access(None, POD, tmp_path)
    for token in ("first", "second"):
        (tmp_path / "token").write_text(f"{token}\n")
        assert access.headers()["Authorization"] == f"Bearer {token}"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"a\r\nX-Evil: 1", b"\xff"])
def test_a_token_that_cannot_be_used_is_an_outage_and_is_not_repeated(tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    with pytest.raises(ApiUnreachable) as caught:
        cluster_access(None, POD, tmp_path).headers()
    assert "Evil" not in str(caught.value)


def test_a_ca_file_that_cannot_be_used_is_an_outage(tmp_path):
    access = ClusterAccess("https://h", ca_file=tmp_path / "ca.crt")
    for prepare in (lambda: None, lambda: (tmp_path / "ca.crt").write_text("no certificate")):
        prepare()
        with pytest.raises(ApiUnreachable, match="CA file"):
            access.tls()


def test_without_a_ca_file_the_system_s_authorities_hold():
    assert ClusterAccess("https://h").tls() is True
