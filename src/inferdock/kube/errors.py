"""What can go wrong with the Kubernetes API. Errors of sockets, TLS and JSON become these in ``kube.api``.

::

    KubeError              the API did not give what was asked for; what was known before still holds
    |-- ApiUnreachable     no answer, or one that was cut: network, TLS, time
    |-- ApiRefused         an error status; carries it, and how long the API wants to be left alone
    |   |-- ApiConflict    409: somebody else owns the field, or was faster; says who
    |   `-- ApiMissing     404: there is no such object, or no such kind of objects
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


class ApiMissing(ApiRefused):
    """There is no such object, or the cluster does not know its kind (404)."""


class ApiConflict(ApiRefused):
    """The object is not as the change supposes (409).

    Args:
        message: one sentence with what the server said.
        said: the server's own sentence.
        exists: an object of this name is there already.
        owners: of a server-side apply: who owns a field that we wanted to set otherwise, and the field.
        retry_after_s: how long the API wants to be left alone.
    """

    def __init__(
        self,
        message: str,
        *,
        said: str,
        exists: bool = False,
        owners: tuple[tuple[str, str], ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=409, retry_after_s=retry_after_s)
        self.said = said
        self.exists = exists
        self.owners = owners


class ApiGone(KubeError):
    """The history after the given resource version is no longer kept (410)."""


class ApiNonsense(KubeError):
    """The API sent something that it promises not to send."""


class EndpointsRefused(KubeError):
    """Whoever was told of the endpoints cannot use them, for instance because there are too many."""
