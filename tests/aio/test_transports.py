"""What waits for a peer that takes too little is not copied for each connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from contextlib import AsyncExitStack, suppress

import pytest

from fastws import Topics, WebSocketProtocol, connect, prepare, serve
from fastws.aio.transports import Holder, copies_writes

from ..wire import upgrade_request

KIB = 1 << 10
MIB = 1 << 20


class Transport:
    """Takes so many bytes until it is full."""

    def __init__(self, room):
        self.room = room
        self.taken = []
        self.calls = []
        self.holder = None

    def write(self, data):
        self.taken.append(data)
        self.room -= len(data)
        if self.room < 0:
            self.holder.is_full = True

    def get_write_buffer_size(self):
        return 7

    def is_closing(self):
        return "close" in self.calls or "abort" in self.calls

    def __getattr__(self, name):
        return lambda: self.calls.append(name)


def held(*pieces, room=0):
    transport = Transport(room)
    holder = transport.holder = Holder(transport)
    for piece in pieces:
        holder.write(piece)
    return holder, transport


def test_what_is_held_is_written_when_there_is_room():
    payload = bytes(range(256)) * (4 * KIB)
    holder, transport = held(payload, memoryview(b"small"), b"one", bytes(64 * KIB), room=1)
    assert holder.get_write_buffer_size() == 7 + MIB + 64 * KIB + 8
    assert not holder.release()
    assert [len(data) for data in transport.taken] == [256 * KIB]
    assert transport.taken[0].obj is payload
    transport.room = 10 * MIB
    assert holder.release()
    # What is large is not copied, and what is small leaves in one write.
    assert [len(data) for data in transport.taken] == [256 * KIB] * 4 + [8, 64 * KIB]
    assert all(data.obj is payload for data in transport.taken[:4])
    assert b"".join(transport.taken) == payload + b"smallone" + bytes(64 * KIB)
    assert holder.get_write_buffer_size() == 7


def test_a_transport_that_the_last_piece_fills_is_full():
    """It says so while it is asked to take more, and will not say it again."""
    holder, transport = held(b"one", room=1)
    assert not holder.release()
    assert transport.taken == [b"one"]
    assert holder.is_full
    transport.room = 1
    assert holder.release()


def test_small_pieces_take_little_memory():
    holder, transport = held(*[b"%08d" % number for number in range(20_000)], bytes(KIB), b"z")
    assert len(holder._held) < 10
    assert holder.get_write_buffer_size() == 7 + 160_000 + KIB + 1
    transport.room = MIB
    assert holder.release()
    octets = b"".join(transport.taken)
    assert octets == b"".join(b"%08d" % number for number in range(20_000)) + bytes(KIB) + b"z"


def test_what_is_handed_over_is_written_though_the_transport_is_full():
    holder, transport = held(bytes(MIB), b"last", room=1)
    holder.hand_over()
    assert b"".join(transport.taken) == bytes(MIB) + b"last"
    assert holder.get_write_buffer_size() == 7
    assert holder.is_full
    assert holder.release()


@pytest.mark.parametrize("how", ["close", "write_eof"])
async def test_the_end_comes_after_what_is_held(how):
    holder, transport = held(bytes(MIB), room=1)
    getattr(holder, how)()
    assert how not in transport.calls
    assert holder.is_closing() == (how == "close")
    if how == "close":
        holder.write_eof()
        holder.close()
    assert transport.calls.count("pause_reading") == (how == "close")
    assert not holder.release()
    await asyncio.sleep(0)
    assert how not in transport.calls
    transport.room = MIB
    assert not holder.release()
    assert how not in transport.calls
    await asyncio.sleep(0)
    assert transport.calls[-1] == how
    assert transport.calls.count("write_eof") == (how == "write_eof")
    holder, transport = held(room=1)
    getattr(holder, how)()
    assert transport.calls == [how]


async def test_abort_drops_what_is_held():
    holder, transport = held(bytes(MIB), room=1)
    holder.close()
    holder.abort()
    assert (transport.calls, holder.get_write_buffer_size()) == (["pause_reading", "abort"], 7)
    holder.release()
    await asyncio.sleep(0)
    assert transport.taken == []
    assert "close" not in transport.calls


def failing(error):
    def fail(*args):
        raise error

    return fail


def test_an_error_ends_the_transport():
    """What follows would be taken for the rest of a frame."""
    holder, transport = held(b"one", bytes(MIB), room=1)
    transport.write = failing(MemoryError)
    with pytest.raises(MemoryError):
        holder.release()
    assert transport.calls == ["abort"]


async def test_an_error_when_writing_ends():
    holder, transport = held(b"one", room=9)
    holder.write_eof()
    transport.write_eof = failing(OSError)
    holder.release()
    await asyncio.sleep(0)
    assert transport.calls == ["abort"]


def let_read(client, member):
    for transport, option in (
        (client._transport, socket.SO_RCVBUF),
        (member._transport, socket.SO_SNDBUF),
    ):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, MIB)
    client._transport.resume_reading()


@pytest.fixture
def deaf(until, tls, url):
    """A connection whose peer does not read until it is told to."""

    async def opened(stack, secure, **options):
        members, received = [], []

        class Member(WebSocketProtocol):
            def on_open(self):
                members.append(self)

        class Peer(WebSocketProtocol):
            def on_message(self, message):
                received.append(message)

        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        server = await stack.enter_async_context(
            serve(Member, sock=listener, ssl=tls.server if secure else None, **options)
        )
        client = await connect(
            url(server, secure=secure),
            protocol=Peer,
            ssl=tls.client if secure else None,
            max_message_size=None,
        )
        stack.callback(client._transport.abort)
        await until(lambda: members)
        client._transport.pause_reading()
        return members[0], client, received

    return opened


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("how", ["stays", "closes", "vanishes", "ends"])
async def test_one_message_waits_once_for_many(deaf, until, secure, how):
    """Only a step of it is copied; all of it arrives, with what follows."""
    async with AsyncExitStack() as stack:
        topics = Topics(max_unsent_size=None)
        member, client, received = await deaf(stack, secure, shutdown_timeout=0.1)
        topics.subscribe(member, "room")
        payload = bytes(range(256)) * (8 * KIB)
        message = prepare(payload)
        assert topics.publish("room", message) == 1
        assert topics.publish("room", "next") == 1
        member.send("last")
        assert member._write_paused
        assert member._unsent() > MIB
        transport = member._transport
        assert isinstance(transport, Holder) == copies_writes(
            transport.transport if isinstance(transport, Holder) else transport
        )
        if isinstance(transport, Holder):
            views = [data for data in transport._held if len(data) > 512 * KIB]
            assert [view.obj for view in views] == [payload]
            assert transport.transport.get_write_buffer_size() < MIB
        if how == "closes":
            member.close(4000)
        elif how == "ends":
            await asyncio.sleep(0)  # what was sent in this turn leaves at its end
            member._transport.close()
        elif how == "vanishes":
            client._transport.abort()
            await until(lambda: member._phase.name == "CLOSED")
            assert not member._write_paused
            assert not isinstance(member._transport, Holder)
            return
        let_read(client, member)
        await until(lambda: len(received) == 3, timeout=20)
        assert received == [payload, "next", "last"]
        if how == "stays":
            await until(lambda: not member._write_paused)
            assert not isinstance(member._transport, Holder)
            member.send("again")
            await until(lambda: received[-1] == "again")
            client.close()
        await until(lambda: member._phase.name == "CLOSED")
        if how == "closes":
            assert client.close_code == 4000


async def test_hooks_that_send_much_keep_their_order(deaf, until):
    async with AsyncExitStack() as stack:
        member, client, received = await deaf(stack, False, max_unsent_size=None)
        expected = [f"{number}".ljust(number % 7 * 10 * KIB) for number in range(300)]
        for text in expected:
            member.send(text)
            await asyncio.sleep(0)
        let_read(client, member)
        await until(lambda: len(received) == 300, timeout=20)
        assert received == expected
        assert member.stats.write_pauses < 100
        client.close()


def test_who_copies():
    plain = type("Plain", (), {"get_extra_info": lambda self, name: None})
    secure = type("Secure", (), {"get_extra_info": lambda self, name: ssl.SSLContext})
    assert copies_writes(plain())
    for made, copies in ((plain, False), (secure, True)):
        made.__module__ = "uvloop.loop"
        assert copies_writes(made()) is copies


@pytest.mark.parametrize("options", [{}, {"write_limit": 5000}])
async def test_the_write_limit_holds_over_tls(deaf, options):
    async with AsyncExitStack() as stack:
        member, client, _ = await deaf(stack, True, **options)
        assert member._transport.get_write_buffer_limits()[1] == options.get("write_limit", 65536)
        client.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_sender_waits_for_an_empty_transport_without_a_write_limit(tls, url, secure):
    async def handler(ws):
        for number in range(100):
            await ws.send(bytes(number))
            await asyncio.sleep(0)

    async with (
        serve(handler, "127.0.0.1", 0, ssl=tls.server if secure else None, write_limit=0) as server,
        connect(url(server, secure=secure), ssl=tls.client if secure else None) as ws,
    ):
        assert [len(message) async for message in ws] == list(range(100))


def half_close(port, context, paused):
    """Be a peer that ends its side while much waits for it; return what it reads then."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def until(condition, call, *args):
            result = None
            while not condition(result):
                try:
                    result = call(*args)
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(64 * KIB)) or incoming.write_eof()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    break
                sock.sendall(outgoing.read())
            return result

        until(lambda _: session.version(), session.do_handshake)
        session.write(upgrade_request())
        head = until(lambda head: head and b"\r\n\r\n" in head, session.read, 64 * KIB)
        octets = head.partition(b"\r\n\r\n")[2]
        assert paused.wait(10)
        with suppress(ssl.SSLWantReadError):
            while part := session.read(64 * KIB):
                octets += part
        with pytest.raises(ssl.SSLWantReadError):
            session.unwrap()
        sock.sendall(outgoing.read())
        while part := until(lambda part: part is not None, session.read, 64 * KIB):
            octets += part
    return octets


@pytest.mark.loops("asyncio", "uvloop", "aiofastnet")
async def test_what_is_held_reaches_a_peer_that_has_ended_its_side_of_tls(tls):
    paused = threading.Event()

    class Member(WebSocketProtocol):
        def on_open(self):
            self.send(bytes(4 * MIB))
            self.close(4000)
            assert self._write_paused
            paused.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
        async with serve(Member, sock=listener, ssl=tls.server) as server:
            port = server.sockets[0].getsockname()[1]
            octets = await asyncio.to_thread(half_close, port, tls.client, paused)
    assert len(octets) == 10 + 4 * MIB + 4
    assert octets.endswith(b"\x88\x02\x0f\xa0")


async def test_a_transport_that_is_full_while_a_connection_opens(caplog, raw_server):
    """What logs the frames comes between the connection and its transport."""
    caplog.set_level(logging.DEBUG, "fastws")
    got = asyncio.Event()

    async def play(peer):
        assert (await peer.frame())[1] == b"first"
        got.set()
        await peer.reader.read()

    class Client(WebSocketProtocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.pause_writing()

        def on_open(self):
            self.send("first")

    async with raw_server(play) as server:
        port = server.sockets[0].getsockname()[1]
        client = await connect(f"ws://127.0.0.1:{port}", protocol=Client)
        client.resume_writing()
        await asyncio.wait_for(got.wait(), 5)
        client.close()
        client._transport.abort()
