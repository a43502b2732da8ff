"""TCP connections to hosts with several addresses: Happy Eyeballs (RFC 8305).

This module knows how to look up a host, in which order to try its addresses, when to begin with
the next one, and how a transport gets the socket. It does not know what a connection is for.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CHOICES", "connect_socket", "hand_over", "is_address"]

# RFC 8305 §5 recommends this.
DEFAULT_DELAY = 0.25

# The arguments that are about several addresses. Not every event loop has them.
CHOICES = frozenset({"all_errors", "happy_eyeballs_delay", "interleave"})

# What getaddrinfo returns: family, type, protocol, canonical name and address.
_Info: TypeAlias = tuple[int, int, int, str, Any]


def is_address(host: str) -> bool:
    """Return whether this is an IP address, for which there is nothing to look up."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


async def connect_socket(
    host: str,
    port: int,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    local_addr: tuple[str, int] | None = None,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
    interleave: int | None = 1,
    all_errors: bool = False,
) -> socket.socket:
    """Connect to a host; the arguments are those of `loop.create_connection`.

    Raises:
        OSError: if no address can be reached.
        ExceptionGroup: instead, if `all_errors` is true.
    """
    loop = asyncio.get_running_loop()
    hints: dict[str, Any] = {
        "type": socket.SOCK_STREAM,
        "family": family,
        "proto": proto,
        "flags": flags,
    }
    infos: Sequence[_Info] = await loop.getaddrinfo(host, port, **hints)
    local: Sequence[_Info] = ()
    if local_addr is not None:
        local = await loop.getaddrinfo(*local_addr, **hints)
    if not infos:
        raise OSError(f"no address of {host}")
    errors: list[OSError] = []
    if interleave:
        infos = _interleaved(infos, interleave)
    sock = await _race(loop, infos, local, happy_eyeballs_delay, errors)
    if sock is not None:
        return sock
    if all_errors:
        raise ExceptionGroup("connecting failed", errors)
    raise _summary(errors)


async def hand_over(
    sock: socket.socket, protocol: asyncio.BaseProtocol, tls: dict[str, Any]
) -> None:
    """Put a protocol on a connected socket, which its transport closes from now on.

    Args:
        sock: the socket.
        protocol: gets the transport.
        tls: the arguments of `loop.create_connection` for TLS; empty for no TLS.
    """
    create = asyncio.get_running_loop().create_connection
    try:
        await create(lambda: protocol, sock=sock, **tls)
    except (TypeError, ValueError) as exc:
        if not isinstance(exc, OSError):  # (An untrusted certificate is both.)
            sock.close()  # these are about arguments, and there is no transport yet
        raise
    finally:
        # uvloop closes the descriptor without this object. If it is not told of that (before
        # 0.23: if anything fails; later: if connection_made aborts the transport), it closes the
        # number again as garbage: then that may be somebody else's connection.
        if type(getattr(create, "__self__", None)).__module__.startswith("uvloop"):
            sock.detach()


async def _race(
    loop: asyncio.AbstractEventLoop,
    infos: Sequence[_Info],
    local: Sequence[_Info],
    delay: float | None,
    errors: list[OSError],
) -> socket.socket | None:
    """Try the addresses until one is connected. Each attempt begins when the one before it has
    failed or taken longer than the delay; those that are under way go on (RFC 8305 §5)."""
    if len(infos) == 1:
        return await _attempt(loop, infos[0], local, errors)
    waiting = list(reversed(infos))
    running: set[asyncio.Task[socket.socket | None]] = set()
    winner: socket.socket | None = None
    try:
        while winner is None and (waiting or running):
            if waiting:
                attempt = _attempt(loop, waiting.pop(), local, errors)
                running.add(loop.create_task(attempt))
            timeout = delay if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                running.discard(task)
                winner = task.result()
                if winner is not None:
                    break
    finally:
        for task in running:
            if task.done():  # it has connected in the same turn of the event loop
                _close(task)
            else:
                task.add_done_callback(_close)
                task.cancel()
        try:
            if running:
                await asyncio.wait(running)
        except BaseException:
            if winner is not None:
                winner.close()
            raise
    return winner


async def _attempt(
    loop: asyncio.AbstractEventLoop,
    info: _Info,
    local: Sequence[_Info],
    errors: list[OSError],
) -> socket.socket | None:
    family, kind, proto, _, address = info
    sock = None
    try:
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        if local:
            _bind(sock, local)
        await loop.sock_connect(sock, address)
        return sock
    except OSError as exc:
        if sock is not None:
            sock.close()
        # (uvloop does not name the address.)
        message = f"Connect call failed {address}"
        errors.append(OSError(exc.errno, message) if exc.errno else exc)
        return None
    except BaseException:
        if sock is not None:
            sock.close()
        raise


def _bind(sock: socket.socket, local: Sequence[_Info]) -> None:
    error = OSError(f"no local address of the family {sock.family!r}")
    for family, _, _, _, address in local:
        if family == sock.family:
            try:
                sock.bind(address)
            except OSError as exc:
                error = OSError(f"cannot use the local address {address}: {exc}")
            else:
                return
    raise error


def _close(task: asyncio.Task[socket.socket | None]) -> None:
    if not task.cancelled() and task.exception() is None and (sock := task.result()) is not None:
        sock.close()


def _interleaved(infos: Iterable[_Info], first: int) -> list[_Info]:
    """Alternate between the address families, after some of the first one (RFC 8305 §4)."""
    families: dict[int, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    preferred, *others = families.values()
    begin, rest = preferred[: first - 1], preferred[first - 1 :]
    mixed = chain.from_iterable(zip_longest(rest, *others))
    return [*begin, *(info for info in mixed if info is not None)]


def _summary(errors: Sequence[OSError]) -> OSError:
    """One error for all: its class is theirs if they have the same one."""
    first = errors[0]
    if len(errors) == 1:
        return first
    text = "; ".join(error.strerror or str(error) for error in errors)
    if len({error.errno for error in errors}) == 1 and first.errno is not None:
        return OSError(first.errno, text)
    return OSError("; ".join(map(str, errors)))
