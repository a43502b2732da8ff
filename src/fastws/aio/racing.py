"""TCP connections to hosts with several addresses: Happy Eyeballs (RFC 8305).

This module knows how to look up a host, in which order to try its addresses, when to begin with
the next one, and how a transport gets the socket. It does not know what a connection is for, nor
how names are looked up, which the event loop does.
"""

from __future__ import annotations

import asyncio
import socket
from itertools import chain, zip_longest
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from fastws.tunnels import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["CHOICES", "connect_socket", "hand_over", "is_address"]

# RFC 8305 §5 recommends this.
DEFAULT_DELAY = 0.25

# RFC 8305 §3 recommends this, in seconds: if a host has IPv4 addresses, how long to wait for its
# IPv6 addresses.
RESOLUTION_DELAY = 0.05

# The arguments that are about several addresses. Not every event loop has them.
CHOICES = frozenset({"all_errors", "happy_eyeballs_delay", "interleave"})

# What getaddrinfo returns: family, type, protocol, canonical name and address.
_Info: TypeAlias = tuple[int, int, int, str, Any]


def is_address(host: str) -> bool:
    """Return whether this is an IP address, for which there is nothing to look up."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):  # the latter of what cannot be a name either
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
    hints: dict[str, Any] = {"type": socket.SOCK_STREAM, "proto": proto, "flags": flags}
    local: Sequence[_Info] = ()
    if local_addr is not None:
        local = await loop.getaddrinfo(*local_addr, family=family, **hints)
    families = [family]
    is_fixed = family or happy_eyeballs_delay is None or not interleave  # as getaddrinfo has it
    lookups: list[asyncio.Future[Any]]
    if is_address(host):
        known = loop.create_future()  # nothing to wait for: this needs no thread
        known.set_result(socket.getaddrinfo(host, port, family, **hints))
        lookups = [known]
    else:
        if not is_fixed and not is_loopback(host):
            # Two questions, neither of which waits for the answer to the other (RFC 8305 §3).
            families = [socket.AF_INET6, socket.AF_INET]
        lookups = [
            asyncio.ensure_future(loop.getaddrinfo(host, port, family=one, **hints))
            for one in families
        ]
    race = _Race(loop, local, happy_eyeballs_delay, interleave or 0)
    sock = await race.run(lookups)
    if sock is not None:
        return sock
    if not race.errors:
        raise _lookup_error(race.lookup_errors) or OSError(f"no address of {host}")
    if all_errors:
        raise ExceptionGroup("connecting failed", race.errors)
    raise _summary(race.errors)


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


class _Race:
    """Attempts to connect to the addresses of a host, which need not arrive at the same time.

    Args:
        loop: the running loop.
        local: the local addresses to choose from; empty for any.
        delay: begin with the next address after so many seconds, if the one before it has not
            failed until then; None: only when it has failed.
        first: how many addresses of the preferred family come before others; 0 to keep their
            order.

    Attributes:
        errors: why attempts failed.
        lookup_errors: why addresses are not known.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        local: Sequence[_Info],
        delay: float | None,
        first: int,
    ) -> None:
        self.errors: list[OSError] = []
        self.lookup_errors: list[OSError] = []
        self._loop = loop
        self._local = local
        self._delay = inf if delay is None else delay
        self._first = first
        self._begun: list[_Info] = []
        self._waiting: list[_Info] = []
        self._running: set[asyncio.Task[socket.socket | None]] = set()

    async def run(self, lookups: Sequence[asyncio.Future[Sequence[_Info]]]) -> socket.socket | None:
        """Try the addresses until one is connected; return None if none is.

        Each attempt begins when the one before it has failed or taken longer than the delay;
        those that are under way go on (RFC 8305 §5).

        Args:
            lookups: what finds the addresses. Those of the first one are preferred.
        """
        asking = set(lookups)
        winner: socket.socket | None = None
        due = 0.0  # when to begin with the next address
        try:
            while winner is None and (asking or self._waiting or self._running):
                now = self._loop.time()
                if self._waiting and now >= due:
                    info = self._waiting.pop(0)
                    if not (asking or self._waiting or self._running):
                        # Most hosts have one address, which needs no task: nothing races with it.
                        return await _attempt(self._loop, info, self._local, self.errors)
                    self._begin(info)
                    due = now + self._delay
                timeout = due - now if self._waiting and due < inf else None
                tasks: set[asyncio.Future[Any]] = {*asking, *self._running}
                done = {task for task in tasks if task.done()}
                if not done:
                    done, _ = await asyncio.wait(
                        tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                    )
                if asking & done:
                    asking -= done
                    self._sort([lookup for lookup in lookups if lookup not in asking])
                    if not self._begun:
                        late = lookups[0] in asking
                        due = self._loop.time() + RESOLUTION_DELAY if late else 0.0
                for task in self._running & done:
                    self._running.discard(task)
                    winner = task.result()
                    if winner is not None:
                        break
                    due = 0.0
        finally:
            await self._give_up(asking, winner)
        return winner

    def _begin(self, info: _Info) -> None:
        attempt = _attempt(self._loop, info, self._local, self.errors)
        self._running.add(self._loop.create_task(attempt))
        self._begun.append(info)

    def _sort(self, answered: Sequence[asyncio.Future[Sequence[_Info]]]) -> None:
        """Put all addresses that are known in order, except for those that were begun with."""
        self.lookup_errors = []
        infos: list[_Info] = []
        for lookup in answered:
            error = lookup.exception()
            if error is None:
                infos += lookup.result()
            elif isinstance(error, OSError):
                self.lookup_errors.append(error)
            else:
                raise error
        self._waiting = _interleaved(infos, self._first) if self._first else infos
        for info in self._begun:
            self._waiting.remove(info)

    async def _give_up(
        self, asking: set[asyncio.Future[Sequence[_Info]]], winner: socket.socket | None
    ) -> None:
        """Cancel what is under way, and wait until it has ended."""
        for lookup in asking:
            lookup.add_done_callback(_forget)
            lookup.cancel()
        for task in self._running:
            if task.done():  # it has connected in the same turn of the event loop
                _close(task)
            else:
                task.add_done_callback(_close)
                task.cancel()
        try:
            left: set[asyncio.Future[Any]] = {*asking, *self._running}
            if left:
                await asyncio.wait(left)
        except BaseException:
            if winner is not None:
                winner.close()
            raise


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


def _forget(lookup: asyncio.Future[Sequence[_Info]]) -> None:
    """Drop the result, so that asyncio does not log an exception that nobody retrieved."""
    if not lookup.cancelled():
        lookup.exception()


def _interleaved(infos: Iterable[_Info], first: int) -> list[_Info]:
    """Alternate between the address families, after some of the first one (RFC 8305 §4)."""
    families: dict[int, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    preferred, *others = families.values() or [[]]
    begin, rest = preferred[: first - 1], preferred[first - 1 :]
    mixed = chain.from_iterable(zip_longest(rest, *others))
    return [*begin, *(info for info in mixed if info is not None)]


def _lookup_error(errors: Sequence[OSError]) -> OSError | None:
    """The error that says most: a name may be known and have no address of one family."""
    for error in errors:
        if error.errno == socket.EAI_AGAIN:
            return error
    return errors[-1] if errors else None


def _summary(errors: Sequence[OSError]) -> OSError:
    """One error for all: its class is theirs if they have the same one."""
    first = errors[0]
    if len(errors) == 1:
        return first
    text = "; ".join(error.strerror or str(error) for error in errors)
    if len({error.errno for error in errors}) == 1 and first.errno is not None:
        return OSError(first.errno, text)
    return OSError("; ".join(map(str, errors)))
