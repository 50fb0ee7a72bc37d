"""What can go wrong with the Kubernetes API. Errors of sockets, TLS and JSON become these in ``kube.api``.

::

    KubeError              the API did not give what was asked for; what was known before still holds
    |-- ApiUnreachable     no answer, or one that was cut: network, TLS, time
    |-- ApiRefused         an error status; carries it, and how long the API wants to be left alone
    |-- ApiGone            the history after our resource version is no longer kept: list again
    |-- ApiNonsense        an answer that is not what the API promises
    `-- EndpointsRefused   what was found cannot be used as a whole
"""

from __future__ import annotations

from inferdock.domain.errors import UnreachableError


class KubeError(UnreachableError):
    """The Kubernetes API did not give what was asked for."""


class ApiUnreachable(KubeError):
    """The API did not answer, or its answer was cut."""


class ApiRefused(KubeError):
    """The API answered with an error.

    Args:
        message: what it said.
        status: HTTP status code.
        retry_after_s: how long it wants to be left alone; None when it did not say.
        cure: what to do about it.
    """

    def __init__(self, message: str, *, status: int, retry_after_s: float | None = None, cure: str = "") -> None:
        super().__init__(message, cure=cure)
        self.status = status
        self.retry_after_s = retry_after_s


class ApiGone(KubeError):
    """The history after the given resource version is no longer kept (410)."""


class ApiNonsense(KubeError):
    """The API sent something that it promises not to send."""


class EndpointsRefused(KubeError):
    """Whoever was told of the endpoints cannot use them, for instance because there are too many."""
