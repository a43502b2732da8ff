"""Chromium's own WebSocket against our servers."""

from __future__ import annotations

import asyncio
import os
import queue

import pytest
import trustme

import fastws

from ..tools import TIMEOUT, Background, Echo, free_port

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")

# Runs `talk` when the connection opens and when a message arrives. Ends when the connection is
# closed, and returns all that happened.
CONVERSE = """
    const seen = [];
    const show = (data) =>
        typeof data === 'string' ? data : [...new Uint8Array(data)];
    await new Promise((resolve) => {
        const ws = new WebSocket(url, protocols);
        ws.binaryType = 'arraybuffer';
        ws.onopen = () => { seen.push(['open', ws.protocol, ws.extensions]); talk(ws); };
        ws.onmessage = (event) => {
            seen.push(['message', show(event.data)]);
            talk(ws, event.data);
        };
        ws.onerror = () => seen.push(['error']);
        ws.onclose = (event) => {
            seen.push(['close', event.code, event.reason, event.wasClean]);
            resolve();
        };
    });
    return seen;
"""


def converse(page, url: str, talk: str = "() => {}", protocols: tuple[str, ...] = ()):
    return page.run(f"const talk = {talk};" + CONVERSE, url=url, protocols=protocols)


def localhost(server) -> str:
    return server.url.replace("127.0.0.1", "localhost")


@pytest.fixture
def closed_port() -> int:
    return free_port()


# The seed conversation ------------------------------------------------------------------


def test_conversation(page, echo):
    """As in README.md."""
    seen = page.run(
        """
        const seen = [];
        const note = (...words) => seen.push(words);
        const console = { log: note, error: note };
        await new Promise((resolve) => {
            const ws = new WebSocket('ws://localhost:PORT');
            ws.onopen = () => ws.send('Hello Server!');
            ws.onmessage = (event) => { console.log('Server:', event.data); ws.close(); };
            ws.onclose = (event) => { console.log('closed with', event.code); resolve(); };
            ws.onerror = () => console.error('that did not work');
        });
        return seen;
        """.replace("PORT", str(echo.port))
    )
    assert seen == [["Server:", "Hello Server!"], ["closed with", 1005]]


def test_close_with_a_code(page, echo):
    talk = "(ws, data) => data ? ws.close(1000, 'bye') : ws.send('Hello Server!')"
    assert converse(page, localhost(echo), talk) == [
        ["open", "", ""],
        ["message", "Hello Server!"],
        ["close", 1000, "bye", True],
    ]


def test_refused_connection(page, closed_port):
    assert converse(page, f"ws://localhost:{closed_port}") == [
        ["error"],
        ["close", 1006, "", False],
    ]


# Messages ---------------------------------------------------------------------------------


def test_binary(page, echo):
    talk = "(ws, data) => data ? ws.close(4000) : ws.send(new Uint8Array([0, 1, 254, 255]))"
    assert converse(page, localhost(echo), talk) == [
        ["open", "", ""],
        ["message", [0, 1, 254, 255]],
        ["close", 4000, "", True],
    ]


def test_blob(page, echo):
    seen = page.run(
        """
        const ws = new WebSocket(url);
        await new Promise((resolve) => { ws.onopen = resolve; });
        ws.send(new Blob(['zażółć']));
        const event = await new Promise((resolve) => { ws.onmessage = resolve; });
        ws.close();
        return [event.data instanceof Blob, await event.data.text()];
        """,
        url=localhost(echo),
    )
    assert seen == [True, "zażółć"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 1 << 20])
def test_sizes(page, echo, size):
    """Chromium fragments large messages."""
    seen = page.run(
        """
        const ws = new WebSocket(url);
        ws.binaryType = 'arraybuffer';
        const next = (name) => new Promise((resolve) => { ws['on' + name] = resolve; });
        await next('open');
        const text = 'x'.repeat(size);
        ws.send(text);
        const sameText = (await next('message')).data === text;
        const octets = Uint8Array.from({ length: size }, (_, i) => i * 7);
        ws.send(octets);
        const answer = new Uint8Array((await next('message')).data);
        const sameOctets =
            answer.length === size && answer.every((octet, i) => octet === octets[i]);
        ws.close(1000);
        return [sameText, sameOctets, (await next('close')).code];
        """,
        url=localhost(echo),
        size=size,
    )
    assert seen == [True, True, 1000]


def test_text_beyond_ascii(page, echo):
    text = "\x00 é ł 漢字 🎈 " * 10_000
    seen = page.run(
        """
        const ws = new WebSocket(url);
        await new Promise((resolve) => { ws.onopen = resolve; });
        ws.send(text);
        const event = await new Promise((resolve) => { ws.onmessage = resolve; });
        ws.close();
        return event.data === text;
        """,
        url=localhost(echo),
        text=text,
    )
    assert seen is True


def test_many_messages(page, echo):
    seen = page.run(
        """
        const ws = new WebSocket(url);
        await new Promise((resolve) => { ws.onopen = resolve; });
        const seen = [];
        const all = new Promise((resolve) => {
            ws.onmessage = (event) => { if (seen.push(event.data) === 1000) resolve(); };
        });
        for (let i = 0; i < 1000; i++) ws.send(String(i));
        await all;
        ws.close();
        return seen;
        """,
        url=localhost(echo),
    )
    assert seen == [str(number) for number in range(1000)]


# What a server can do -----------------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1007, 1008, 1009, 1011, 3000, 4999])
def test_close_codes(page, code):
    async def close(ws):
        await ws.close(code, "zażółć")

    with Background(close) as server:
        assert converse(page, localhost(server)) == [
            ["open", "", ""],
            ["close", code, "zażółć", True],
        ]


def test_message_too_big(page):
    with Echo("--max-message-size", "10") as server:
        seen = converse(page, localhost(server), "(ws) => ws.send('0123456789a')")
    assert seen[1][:2] == ["close", 1009]
    assert seen[1][3] is True


@pytest.mark.parametrize("messages", [2, 1000])
def test_message_too_big_with_more_on_its_way(page, messages):
    # No reset may overtake our close frame.
    with Echo("--max-message-size", "1000") as server:
        talk = f"(ws) => {{ for (let i = 0; i < {messages}; i++) ws.send('x'.repeat(2000)); }}"
        seen = converse(page, localhost(server), talk)
    # Chromium does not consider it clean if it has messages left to send.
    assert seen[-1][:2] == ["close", 1009]


def test_failed_handler(page, caplog):
    async def fail(ws):
        raise RuntimeError("on purpose")

    with Background(fail) as server:
        seen = converse(page, localhost(server))
    assert seen == [["open", "", ""], ["close", 1011, "", True]]
    assert "handler failed" in caplog.text


def test_shutdown_of_the_server(page):
    with Echo() as server:
        page.run(
            """
            window.ending = new Promise((resolve) => {
                const ws = new WebSocket(url);
                window.opened = new Promise((opened) => { ws.onopen = opened; });
                ws.onclose = (event) => resolve([event.code, event.wasClean]);
            });
            await window.opened;
            """,
            url=localhost(server),
        )
        assert server.stop() == 0
        assert page.run("return await window.ending;") == [1001, True]


def test_closing_the_tab(page):
    codes: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    async def wait(ws):
        await ws.wait_closed()
        codes.put(ws.close_code)

    with Background(wait) as server:
        page.run(
            """
            const ws = new WebSocket(url);
            await new Promise((resolve) => { ws.onopen = resolve; });
            """,
            url=localhost(server),
        )
        page.close()
        assert codes.get(timeout=TIMEOUT) == 1001


def test_ping(page):
    latencies: queue.SimpleQueue[float] = queue.SimpleQueue()

    async def ping(ws):
        latencies.put(await asyncio.wait_for(ws.ping(b"are you there"), TIMEOUT))

    with Background(ping) as server:
        assert converse(page, localhost(server))[-1] == ["close", 1000, "", True]
        assert latencies.get(timeout=TIMEOUT) > 0


def test_subprotocol(page):
    async def end(ws):
        await ws.close()

    with Background(end, subprotocols=["two", "one"]) as server:
        url = localhost(server)
        assert converse(page, url, protocols=("one", "two"))[0] == ["open", "two", ""]
        # The browser asked for subprotocols, but goes on without: the server chose none.
        seen = converse(page, url, protocols=("three",))
        assert seen[-1][0] == "close"


def test_refused_handshake(page, base):
    async def never(ws):
        """Never called."""

    origin = base.url.replace("ws://127.0.0.1", "http://localhost")
    refused = [["error"], ["close", 1006, "", False]]
    with Background(never, origins=["http://example.com"]) as server:
        assert converse(page, localhost(server)) == refused
    with Background(never, process_request=lambda _: fastws.Response.text("no", 403)) as server:
        assert converse(page, localhost(server)) == refused
    with Background(never, origins=[origin]) as server:
        assert converse(page, localhost(server))[0] == ["open", "", ""]


@pytest.fixture
def certificate(tmp_path) -> str:
    path = tmp_path / "localhost.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


def test_wss(page, certificate):
    with Echo("--tls-cert", certificate) as server:
        url = f"wss://localhost:{server.port}/"
        page.navigate(url.replace("wss", "https"))
        page.wait_until("document.getElementById('state').textContent === 'open'")
        assert page.run("return document.getElementById('url').value;") == url
        talk = "(ws, data) => data ? ws.close(1000) : ws.send('x'.repeat(100000))"
        assert converse(page, url, talk) == [
            ["open", "", ""],
            ["message", "x" * 100_000],
            ["close", 1000, "", True],
        ]


def test_message_too_big_over_tls(page, certificate):
    with Echo("--tls-cert", certificate, "--max-message-size", "1000") as server:
        page.navigate(f"https://localhost:{server.port}/health")
        talk = "(ws) => ws.send('x'.repeat(2000))"
        seen = converse(page, f"wss://localhost:{server.port}", talk)
    assert seen[-1][:2] == ["close", 1009]
    assert seen[-1][3] is True
