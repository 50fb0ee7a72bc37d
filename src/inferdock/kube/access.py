"""How the API server is reached: from inside a pod, or at an address that was given (`kubectl proxy`, tests)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from inferdock.domain.errors import ConfigError
from inferdock.kube.errors import ApiUnreachable

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts token, CA and namespace into a pod."""
MAX_TOKEN_BYTES = 64 * 1024


class ClusterAccess:
    """Address and credentials of one API server.

    The token is read anew for every request, because Kubernetes replaces it about once an hour; the CA file is read
    again when it has changed.

    Attributes:
        base_url: for instance ``https://10.0.0.1:443``, without a trailing slash.
        namespace: the pod's own namespace; ``default`` outside a pod.
    """

    def __init__(
        self,
        base_url: str,
        *,
        namespace: str = "default",
        token_file: Path | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.namespace = namespace
        self._token_file = token_file
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._tls_stamp: tuple[int, int] | None = None

    def headers(self) -> dict[str, str]:
        """Headers that every request needs.

        Raises:
            ApiUnreachable: the token cannot be read now.
        """
        # Watches are read line by line as they come: a compressing proxy would hold lines back.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {self._token(self._token_file)}"
        return headers

    def _token(self, path: Path) -> str:
        try:
            with path.open("rb") as file:
                token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "not ASCII"
            raise ApiUnreachable(f"Cannot read the service account's token at {path}: {reason}.") from exc
        if not token or not token.isprintable():
            raise ApiUnreachable(f"The service account's token at {path} is empty or not one line.")
        return token

    def tls(self) -> ssl.SSLContext | bool:
        """What the server's certificate is checked against; True means the system's own authorities.

        Raises:
            ApiUnreachable: the CA file cannot be used now.
        """
        if self._ca_file is None:
            return True
        try:
            stat = self._ca_file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self._tls is None or stamp != self._tls_stamp:
                self._tls = ssl.create_default_context(cafile=str(self._ca_file))
                self._tls_stamp = stamp
        except OSError as exc:  # ssl.SSLError is one too
            raise ApiUnreachable(f"Cannot use the cluster's CA file {self._ca_file}: {exc.strerror or exc}.") from exc
        return self._tls


def cluster_access(api_url: str | None, env: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> ClusterAccess:
    """Access as configured, else as the pod that we run in has it.

    Args:
        api_url: base URL of the API server or of a `kubectl proxy`; None looks for a pod's service account.
        env: the environment, for instance ``os.environ``.
        folder: where the service account is mounted.

    Raises:
        ConfigError: the URL is not one, or this is no pod.
    """
    if api_url is not None:
        return ClusterAccess(_checked(api_url))
    access = pod_access(env, folder)
    if access is None:
        raise ConfigError(
            "`gateway.kubernetes.enabled` is on, but this process runs in no Kubernetes pod.",
            cure="Run it in a pod with a service account, or give `gateway.kubernetes.api_url` (`kubectl proxy`).",
        )
    return access


def pod_access(env: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> ClusterAccess | None:
    """Access as the pod that we run in has it; None outside a pod.

    Raises:
        ConfigError: the address in the environment is not one.
    """
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        return None
    return ClusterAccess(
        _checked(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"),
        namespace=_own_namespace(folder / "namespace"),
        token_file=folder / "token",
        ca_file=folder / "ca.crt",
    )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ConfigError(f"`{url[:200]}` is no address of a Kubernetes API server.", cure="Write http(s)://host:port.")
    return url


def _own_namespace(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "default"
    except (OSError, UnicodeDecodeError):
        return "default"
