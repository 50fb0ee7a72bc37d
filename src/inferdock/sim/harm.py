"""What armed faults do to a connection: before an answer, in the middle of a stream, in a whole answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct

from aiohttp import web

from inferdock.sim.faults import Fault

_FOREVER_S = 86_400.0
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def before_answer(request: web.Request, fault: Fault) -> web.Response | None:
    """Faults that come before the first byte; an answer if the fault is one, None if the request goes on."""
    transport = request.transport
    if fault.kind == "status":
        status = int(fault.value or 500)
        error = {"message": "injected fault", "type": "InternalServerError", "param": None, "code": status}
        return web.Response(
            text=json.dumps({"error": error}), status=status, headers={"content-type": "application/json"}
        )
    if fault.kind == "refuse" and transport is not None:
        _reset(transport)
        await asyncio.sleep(_FOREVER_S)
    if fault.kind == "garbage":
        await _write_and_close(request, b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    if fault.kind == "hang" and fault.value is None:
        await asyncio.sleep(_FOREVER_S)
    return None


async def in_stream(request: web.Request, response: web.StreamResponse, fault: Fault, tokens: int) -> None:
    """Faults in the middle of a stream, when the chosen number of events with tokens is out."""
    if fault.value is None or tokens != int(fault.value):
        return
    if fault.kind == "die":
        await _die()
    elif fault.kind == "hang":
        await asyncio.sleep(_FOREVER_S)
    elif fault.kind == "badjson":
        await response.write(b"data: {not json\n\n")
    elif fault.kind == "cut":
        await _write_and_close(request, b"1f4\r\ndata: {half")
    elif fault.kind == "badchunk":
        await _write_and_close(request, b"zz\r\nnot a chunk\r\n")


async def in_whole(request: web.Request, fault: Fault) -> web.Response | None:
    """The same faults for an answer that is no stream, when the chosen number of tokens is generated."""
    if fault.kind == "die":
        await _die()
    elif fault.kind == "hang":
        await asyncio.sleep(_FOREVER_S)
    elif fault.kind == "badjson":
        return web.Response(body=b'{"id": not json', headers={"content-type": "application/json"})
    elif fault.kind == "cut":
        await _write_and_close(request, _HEAD + b'content-length: 500\r\n\r\n{"id":')
    elif fault.kind == "badchunk":
        await _write_and_close(request, _HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\nnot a chunk\r\n")
    return None


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST, not FIN
    transport.abort()


async def _die() -> None:
    await asyncio.sleep(0.01)  # so that what was written leaves this process first
    os.kill(os.getpid(), signal.SIGKILL)


async def _write_and_close(request: web.Request, data: bytes) -> None:
    """Bytes behind the HTTP library's back; its handler is cancelled when the connection is gone."""
    transport = request.transport
    if transport is not None:  # uvloop's transports are no instances of asyncio's classes
        transport.write(data)
        transport.close()
    await asyncio.sleep(_FOREVER_S)
