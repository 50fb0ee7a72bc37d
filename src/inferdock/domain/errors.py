"""Every error that Inferdock raises on purpose.

::

    InferdockError              something the person can act on; carries a cure and an exit code
    |-- ConfigError        (3)  inferdock.yaml, INFERDOCK_* or a flag is wrong
    |-- ModelError         (4)  the model folder is missing, partial or unusable
    |-- ResourceError      (5)  a port, memory, disk or permission is short
    |-- EngineError        (6)  the engine is not installed, or a replica did not become ready
    |-- UnreachableError   (7)  nothing answers where a running platform was expected
    |-- CheckFailedError   (8)  the command ran, and what it checked is not as it should be
    |-- RegistryError      (9)  the model registry has no such thing, or refuses
    |   `-- ConflictError  (10) somebody else was first: a version, an alias or a push
    |-- IntegrityError     (11) bytes are not those of the manifest, or its signature is not trusted
    |-- InconclusiveError  (12) the command ran, and what it saw is not enough to say yes or no
    `-- RequestError       (-)  the *client's* HTTP request cannot be served; becomes an OpenAI error object

Exit codes 0 (done), 1 (a defect of ours), 2 (wrong usage) and 130 (Ctrl-C) belong to the command line itself.
Local faults and client faults are different types, so nobody can answer 500 for a client's mistake by accident.
"""

from __future__ import annotations

from typing import ClassVar


class InferdockError(Exception):
    """A failure that somebody can act on.

    Args:
        message: one sentence that says what is wrong.
        cure: one sentence that says what to do about it ("" when the message says it all).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, cure: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.message} {self.cure}".strip()


class ConfigError(InferdockError):
    """The configuration is wrong: unknown key, wrong type, unreadable file."""

    exit_code: ClassVar[int] = 3


class ModelError(InferdockError):
    """The model folder is missing, partial, or not something the engine can load."""

    exit_code: ClassVar[int] = 4


class ResourceError(InferdockError):
    """The machine lacks something: a free port, memory, disk, a permission."""

    exit_code: ClassVar[int] = 5


class EngineError(InferdockError):
    """The engine is not installed, or a replica did not become ready."""

    exit_code: ClassVar[int] = 6


class UnreachableError(InferdockError):
    """Nothing answers at the address where a running platform was expected."""

    exit_code: ClassVar[int] = 7


class CheckFailedError(InferdockError):
    """The command did its work, and what it checked is not as it should be."""

    exit_code: ClassVar[int] = 8


class RegistryError(InferdockError):
    """The model registry has no such thing, or refuses the change."""

    exit_code: ClassVar[int] = 9


class ConflictError(RegistryError):
    """Somebody else was first: the version is taken, the alias was moved, or another push is under way."""

    exit_code: ClassVar[int] = 10


class IntegrityError(InferdockError):
    """A model's bytes are not those of its manifest, or the manifest's signature is not trusted."""

    exit_code: ClassVar[int] = 11


class InconclusiveError(InferdockError):
    """The command did its work, and what it saw is not enough for a verdict."""

    exit_code: ClassVar[int] = 12


class RequestError(InferdockError):
    """The client's request cannot be served; the gateway turns it into an OpenAI error object.

    Args:
        status: HTTP status code, 400-599.
        message: sentence for the client.
        kind: OpenAI's ``error.type``, for instance ``invalid_request_error``.
        code: OpenAI's ``error.code``, for instance ``model_not_found``; None when there is none.
        param: name of the offending request field, if one is to blame.
        retry_after_s: seconds after which trying again makes sense (429 and 503 only).
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


def unavailable(message: str, *, code: str, retry_after_s: int) -> RequestError:
    """503: not now, but asking again after ``retry_after_s`` seconds makes sense."""
    return RequestError(503, message, kind="server_error", code=code, retry_after_s=retry_after_s)


EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "unexpected failure (a defect: please report it)",
    2: "wrong usage of the command line",
    **{
        cls.exit_code: (cls.__doc__ or "").splitlines()[0].rstrip(".")
        for cls in (
            ConfigError,
            ModelError,
            ResourceError,
            EngineError,
            UnreachableError,
            CheckFailedError,
            RegistryError,
            ConflictError,
            IntegrityError,
            InconclusiveError,
        )
    },
    130: "interrupted by Ctrl-C",
}
"""Exit code to meaning, for ``--help`` and the generated CLI page."""
