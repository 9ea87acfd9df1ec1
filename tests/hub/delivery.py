"""How a reply is delivered, faults included: a value that faults change, and its execution."""

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from aiohttp import web

from aim_downloader.demo.content import Content
from aim_downloader.demo.reply import Reply
from aim_downloader.demo.sender import Pace, Wire, begin

FLUSH_S = 5.0
FLUSH_POLL_S = 0.002


class Break(Enum):
    """What happens in the middle of a body."""

    NONE = "none"
    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"


@dataclass(frozen=True)
class Delivery:
    """A reply and what goes wrong with it."""

    reply: Reply
    delay: float = 0.0
    """Seconds before the first byte of the answer."""
    pace: Pace | None = None
    """How fast this body goes, beside the pace of the whole server."""
    damaged: frozenset[int] = frozenset()
    """Offsets in the content whose bytes are sent with all bits flipped."""
    break_after: int = 0
    """How many bytes of the body go before the break."""
    break_by: Break = Break.NONE
    break_seconds: float | None = None
    """How long a stall lasts, after which the rest follows; None for ever."""
    extra: bytes = b""
    """Bytes that are pushed behind the body, beyond its Content-Length."""
    expire_url: bool = False
    """The signed URL of this request is refused from now on."""


async def deliver(
    request: web.Request, delivery: Delivery, pace: Pace, sent: Callable[[int], None]
) -> web.StreamResponse:
    """Sends the reply as the delivery says."""
    if delivery.delay:
        await asyncio.sleep(delivery.delay)
    response = await begin(request, delivery.reply)
    if request.method != "HEAD":
        paces = [pace, delivery.pace] if delivery.pace else [pace]
        await _body(request, delivery, Wire(request, response, paces, sent))
    await response.write_eof()
    return response


async def _body(request: web.Request, delivery: Delivery, wire: Wire) -> None:
    reply = delivery.reply
    if delivery.break_by is Break.NONE:
        await _write(wire, delivery, reply.start, reply.stop)
    else:
        middle = min(reply.stop, reply.start + max(0, delivery.break_after))
        await _write(wire, delivery, reply.start, middle)
        await _break(request, delivery)
        if delivery.break_by is Break.STALL:
            await _write(wire, delivery, middle, reply.stop)
    if delivery.extra and request.transport is not None:
        # Past aiohttp's response, which would cut what exceeds the Content-Length.
        request.transport.write(delivery.extra)


async def _write(wire: Wire, delivery: Delivery, start: int, stop: int) -> None:
    content = delivery.reply.content
    for offset in sorted(delivery.damaged):
        if start <= offset < stop:
            await wire.write(content, start, offset)
            flipped = content.read(offset, offset + 1)[0] ^ 0xFF
            await wire.write(Content(bytes([flipped])), 0, 1)
            start = offset + 1
    await wire.write(content, start, stop)


async def _break(request: web.Request, delivery: Delivery) -> None:
    if delivery.break_by is Break.STALL:
        if delivery.break_seconds is None:
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(delivery.break_seconds)
        return
    transport = request.transport
    if transport is None:
        return
    await _flushed(transport)
    if delivery.break_by is Break.RESET:
        # Closing with a linger time of zero sends RST in place of FIN.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        transport.close()


async def _flushed(transport: asyncio.Transport) -> None:
    """Waits until the client's kernel has what was written: a reset throws away what is queued."""
    deadline = asyncio.get_running_loop().time() + FLUSH_S
    while asyncio.get_running_loop().time() < deadline:
        if not transport.get_write_buffer_size() and not _queued(transport):
            return
        await asyncio.sleep(FLUSH_POLL_S)


def _queued(transport: asyncio.Transport) -> int:
    """How many bytes the kernel holds that the peer has not acknowledged."""
    if sys.platform != "linux":
        return 0
    import fcntl
    import termios

    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return 0
    answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])
