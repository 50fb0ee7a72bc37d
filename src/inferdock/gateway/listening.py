"""Sockets that listen: what can be wrong with an address, and one port for several processes.

Several processes take one port by SO_REUSEPORT: each has a listening socket of its own and the kernel spreads new
connections over them by a hash of the addresses. The kernel lets any program of the same user join such a group
unnoticed, so the first socket takes the port without SO_REUSEPORT, listens, and only then opens it to the others:
a port that somebody else holds is refused, and a second gateway is refused in turn.
"""

from __future__ import annotations

import errno
import socket
from itertools import chain

from inferdock.domain.errors import ResourceError

BACKLOG = 4096


def open_listeners(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """``count`` groups of listening sockets on the same port, each with one socket per address of ``host``.

    Args:
        host: name or address; "" is every address.
        port: 0 takes any free one, the same for all.
        count: groups, at least 1.

    Raises:
        ResourceError: the port is taken or the address cannot be used.
    """
    groups: list[list[socket.socket]] = [[] for _ in range(count)]
    try:
        for family, address in _addresses(host, port):
            first = _bound(family, (address, port), shared=False)
            groups[0].append(first)
            first.listen(BACKLOG)
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = first.getsockname()[1]
            for group in groups[1:]:
                sock = _bound(family, (address, port), shared=True)
                group.append(sock)
                sock.listen(BACKLOG)
    except OSError as exc:
        for sock in chain.from_iterable(groups):
            sock.close()
        raise cannot_listen(host, port, exc) from exc
    return groups


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, *_, address in found))


def _bound(family: int, address: tuple[str, int], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def cannot_listen(host: str, port: int, exc: OSError) -> ResourceError:
    """The sentence for a port or address that cannot be used."""
    if exc.errno == errno.EADDRINUSE:
        return ResourceError(
            f"Port {port} on {host} is in use.", cure="Stop what holds it, or choose another with --port."
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return ResourceError(
            f"Port {port} on {host} needs more rights than this user has.", cure="Choose a port above 1023."
        )
    return ResourceError(f"Cannot listen on {host}:{port}: {exc.strerror or exc}.", cure="Check --host and --port.")
