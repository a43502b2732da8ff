"""The page of `fastws echo`, in Chromium and Firefox, used as people use it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import fastws

from ..tools import Background, Echo, free_port

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are stopped POSIX's way")

PAGE = Path(fastws.__file__).parent / "demo"


def by_id(name: str) -> str:
    return f"document.getElementById({name!r})"


def text_of(tab, name: str) -> str:
    return tab.run(f"return {by_id(name)}.textContent;")


def click(tab, name: str) -> None:
    tab.run(f"{by_id(name)}.click();")


def write(tab, name: str, value: str) -> None:
    """Write into a field, or choose an option."""
    code = f"const field = {by_id(name)}; field.value = value;"
    tab.run(f"{code} field.dispatchEvent(new Event('input', {{bubbles: true}}));", value=value)


def focus(tab, name: str) -> None:
    tab.run(f"{by_id(name)}.focus();")


def rows(tab, name: str = "log") -> list[list[str]]:
    """The cells of the visible rows of a list, in order."""
    found = tab.run(
        f"return [...document.querySelectorAll('#{name} .row:not([hidden])')].map((row) =>"
        "[row.at, ...[...row.children].map((cell) => cell.textContent)]);"
    )
    return [cells for _, *cells in sorted(found)]


def entries(tab) -> list[str]:
    """What the log shows: a sign and a text each."""
    return [f"{cells[1]} {cells[5]}" for cells in rows(tab)]


def wait_for_state(tab, state: str) -> None:
    tab.wait_until(f"{by_id('state')}.textContent === {state!r}")


def wait_for_entries(tab, count: int) -> None:
    tab.wait_until(f"document.querySelectorAll('#log .row:not([hidden])').length >= {count}")


@pytest.fixture
def console(tab, echo):
    """The page, connected to its server."""
    tab.navigate(echo.http)
    wait_for_state(tab, "open")
    wait_for_entries(tab, 2)
    return tab


# Messages -----------------------------------------------------------------------------------


def test_conversation(console, echo):
    focus(console, "text")
    console.type("Hello Server!\n")
    wait_for_entries(console, 4)
    click(console, "close")
    wait_for_state(console, "closed")
    wait_for_entries(console, 5)
    assert entries(console) == [
        f"· connection 1 to {echo.url}/",
        "· connection 1 is open: no subprotocol, no extensions",
        "↑ Hello Server!",
        "↓ Hello Server!",
        "· connection 1 closed: code 1000, clean",
    ]
    time, _, kind, size, trip, _ = rows(console)[3]
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3}", time)
    assert (kind, size) == ("text", "13 B")
    assert re.fullmatch(r"[\d.]+ m?s", trip)
    assert text_of(console, "what") == "Closed with 1000, normal closure"
    assert text_of(console, "count") == "1 message sent · 1 received"
    assert console.complaints == []


def test_writing(console):
    """Shift+Enter breaks the line, the arrows recall, markup stays text."""
    focus(console, "text")
    console.insert("one")
    console.press("Enter", shift=True)
    console.type("<img src=x onerror=alert(1)>\nlast\n")
    console.insert("draft")
    for _ in range(2):
        console.press("ArrowUp")
    assert console.run(f"return {by_id('text')}.value;") == "one\n<img src=x onerror=alert(1)>"
    for _ in range(2):
        console.run(f"{by_id('text')}.setSelectionRange(99, 99);")
        console.press("ArrowDown")
    assert console.run(f"return {by_id('text')}.value;") == "draft"
    wait_for_entries(console, 6)
    messages = {line[2:] for line in entries(console)[2:]}
    assert messages == {"one ↵ <img src=x onerror=alert(1)>", "last"}
    assert console.run("return document.images.length;") == 0
    click(console, "clear")
    assert entries(console) == []
    assert console.complaints == []


def test_binary_messages(console):
    write(console, "type", "hex")
    write(console, "text", "00 0xff,a b")
    click(console, "send")
    write(console, "text", "no hex")
    click(console, "send")
    console.run(
        f"""
        const files = new DataTransfer();
        files.items.add(new File([new Uint8Array(100000).fill(7)], 'seven.bin'));
        {by_id("chosen")}.files = files.files;
        {by_id("chosen")}.dispatchEvent(new Event('change'));
        """
    )
    wait_for_entries(console, 8)
    console.wait_until(f"{by_id('count')}.textContent.startsWith('2 messages sent · 2 received')")
    shown = [cells[1:4] + cells[5:] for cells in rows(console)]
    assert ["↓", "binary", "3 B", "00 ff ab"] in shown
    assert ["!", "", "", "not hexadecimal bytes: no hex"] in shown
    assert ["↓", "binary", "98 KiB", " ".join(["07"] * 64)] in shown
    assert all(cells[4] for cells in rows(console) if cells[1] == "↓")  # the round trips


def test_repeating(console):
    for times, interval in (("3", "5"), ("1200", "0")):
        write(console, "text", "again")
        write(console, "times", times)
        write(console, "interval", interval)
        click(console, "repeat")
        console.wait_until(f"{by_id('repeat')}.textContent === 'Start'")
    console.wait_until(f"{by_id('count')}.textContent === '1,203 messages sent · 1,203 received'")
    # The list has followed the newest message.
    bottom = "log.scrollTop + log.clientHeight > log.scrollHeight - 5"
    console.wait_until(f"((log) => {bottom})({by_id('log')})")
    write(console, "times", "")
    click(console, "repeat")
    click(console, "close")
    wait_for_state(console, "closed")
    assert text_of(console, "repeat") == "Start"
    assert console.complaints == []


def test_the_log(console):
    document = '{"a":[1,{"b":null}]}'
    for message in (document, "two", "TWO again"):
        write(console, "text", message)
        click(console, "send")
    wait_for_entries(console, 8)
    write(console, "filter", "two")
    write(console, "kinds", "received")
    console.wait_until(f"{by_id('count')}.textContent.endsWith('2 match the filter')")
    assert entries(console) == ["↓ two", "↓ TWO again"]
    # What is copied and saved is what is shown.
    console.run("URL.createObjectURL = (blob) => { window.saved = blob; return ''; };")
    console.run("HTMLAnchorElement.prototype.click = () => {};")
    click(console, "download")
    lines = console.run("return await saved.text();").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["two", "TWO again"]
    assert json.loads(lines[0])["size"] == 3
    click(console, "copy")
    console.wait_until(f"{by_id('copy')}.textContent === 'Copied'")
    # The keyboard selects a message and opens it.
    write(console, "filter", "")
    write(console, "kinds", "sent")
    click(console, "tab-measure")  # a list that is hidden has no size
    console.wait_until(f"!{by_id('log')}.offsetHeight")
    click(console, "tab-messages")
    focus(console, "log")
    console.press("ArrowDown")
    console.wait_until(f"!{by_id('detail')}.hidden")
    shown = "return document.querySelector('#detail pre').textContent;"
    assert json.loads(console.run(shown)) == json.loads(document)
    assert console.run(shown).count("\n") == 7
    click(console, "pretty")
    assert console.run(shown) == document
    # (Its row is drawn with the next animation frame.)
    active = f"document.getElementById({by_id('log')}.getAttribute('aria-activedescendant'))"
    console.wait_until(f"{active}?.getAttribute('aria-selected') === 'true'")
    console.press("Escape")
    assert console.run(f"return {by_id('detail')}.hidden;")
    # A pause holds the list, not the connection.
    click(console, "pause")
    write(console, "text", "unseen")
    click(console, "send")
    console.wait_until(f"{by_id('count')}.textContent.startsWith('4 messages sent · 4 received')")
    assert "↑ unseen" not in entries(console)
    click(console, "pause")
    console.wait_until("document.querySelector('#log').textContent.includes('unseen')")
    click(console, "clear")
    assert entries(console) == []
    assert text_of(console, "count") == "no messages yet"
    assert console.complaints == []


def test_a_flood(console):
    """A row is made only for what is visible, and the page says what it no longer keeps."""
    kept = console.run(
        """
        const {Log} = await import('/log.js');
        const byId = (id) => document.getElementById(id);
        const log = new Log(byId, null, null);
        for (let i = 0; i < 70000; i++) log.received('message ' + i, 0);
        await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
        return [log.entries.length, byId('count').textContent,
          document.querySelectorAll('#log .row').length,
          [...document.querySelectorAll('#log .row:not([hidden])')].some((row) =>
            row.textContent.endsWith('message 69999'))];
        """
    )
    assert kept[:2] == [
        50_000,
        "0 messages sent · 70,000 received · the oldest 20,000 entries are no longer kept",
    ]
    assert kept[2] < 200
    assert kept[3]


def test_round_trips(console):
    """Messages that do not come back, and others that nobody sent, do not stop the clock."""
    trips = console.run(
        """
        const {Log} = await import('/log.js');
        const log = new Log((id) => document.getElementById(id), null, null);
        for (const text of ['one', 'two', 'three']) log.sent(text);
        for (const text of ['news', 'two', 'one', 'three']) log.received(text, performance.now());
        log.sent('four');
        log.disconnect();
        log.received('four', 0);
        return log.entries.slice(3).map((entry) => entry.kind === 'sent' || entry.trip !== null);
        """
    )
    assert trips == [False, True, False, True, True, False]


# Connections ----------------------------------------------------------------------------------


def test_urls_are_completed(console):
    complete = "const {complete} = await import('/words.js'); return texts.map((text) =>"
    here = "complete(text, {protocol: 'http:', host: 'here:1'}));"
    assert console.run(
        complete + here,
        texts=[
            "localhost:8080",
            " example.com/chat ",
            ":8080/x",
            "/path",
            "https://example.com",
            "HTTP://a",
            "wss://a",
            "//a",
            "[::1]:80",
        ],
    ) == [
        "ws://localhost:8080",
        "ws://example.com/chat",
        "ws://localhost:8080/x",
        "ws://here:1/path",
        "wss://example.com",
        "ws://a",
        "wss://a",
        "ws://a",
        "ws://[::1]:80",
    ]


def test_ends_are_explained(console):
    port = free_port()
    for url, title, words in (
        (f"localhost:{port}", f"Could not connect to localhost:{port}", "1006"),
        ("nonsense://localhost", "Not connected", ""),
    ):
        write(console, "url", url)
        click(console, "connect")
        console.wait_until(f"{by_id('what')}.textContent === {title!r}")
        wait_for_state(console, "closed")
        assert words in text_of(console, "why")
        assert console.run(f"return {by_id('checks')}.children.length;") > 1
    assert console.run(f"return {by_id('url')}.value;") == "nonsense://localhost"
    explain = "const {explainClose} = await import('/words.js'); return explainClose({reason: '',"
    explain += "wasClean: true, url: 'ws://a/', opened: 90000, silent: 60000, ...how});"
    given_up = {"code": 1006, "wasClean": False, "opened": None, "closing": True}
    assert console.run(explain, how=given_up)["calm"]
    lost = console.run(explain, how={"code": 1006, "wasClean": False})
    assert lost["title"] == "Connection lost (code 1006)"
    assert "Nothing was received for 1 min 0 s" in lost["checks"][0]
    for code in (*range(1000, 1004), 1005, *range(1007, 1015), 3000, 4999):
        how = console.run(explain, how={"code": code, "reason": "why"})
        assert how["title"].startswith(f"Closed with {code}, ")
        assert how["title"].endswith(" “why”")
        assert how["why"]


def test_close_code_and_reason(console):
    write(console, "code", "4001")
    write(console, "reason", "zażółć")
    click(console, "close")
    wait_for_state(console, "closed")
    assert text_of(console, "what").startswith("Closed with 4001, ")
    console.wait_until(
        "document.querySelector('#log').textContent.includes('code 4001, reason “zażółć”, clean')"
    )
    assert console.run(f"return [{by_id('send')}.disabled, {by_id('close')}.disabled];") == [
        True,
        True,
    ]
    write(console, "code", "1001")  # pages must not send it
    click(console, "connect")
    wait_for_state(console, "open")
    click(console, "close")
    assert text_of(console, "state") == "open"


def test_the_end_of_an_old_connection(console):
    """It is logged under its number, and changes nothing about the new connection."""

    async def listen(ws):
        async for _ in ws:
            """Drop it."""

    with Background(listen, subprotocols=["chat"]) as server:
        write(console, "url", server.url)
        write(console, "protocols", "other, chat")
        click(console, "connect")
        console.wait_until(
            "document.querySelector('#log').textContent.includes("
            "'connection 1 closed: code 1000, clean')"
        )
        wait_for_state(console, "open")
        assert console.run(f"return {by_id('notice')}.hidden;")
        wait_for_entries(console, 5)
        assert "· connection 2 is open: subprotocol chat, no extensions" in entries(console)
    wait_for_state(console, "closed")
    assert text_of(console, "what") == "Closed with 1001, going away"
    # It may also come late, and be a failure.
    noted = console.run(
        """
        const {Connection} = await import('/connection.js');
        const made = [];
        const Real = WebSocket;
        window.WebSocket = class {
          constructor(url) { Object.assign(this, {url, readyState: 0}); made.push(this); }
          close() { this.readyState = 2; }
        };
        Object.assign(WebSocket, {OPEN: 1, CLOSING: 2});
        const noted = [];
        const hooks = {began() {}, changed() {}, noted: (...note) => noted.push(note),
          explained: (explanation) => { if (explanation) noted.push(explanation); }};
        const connection = new Connection(hooks, () => true);
        connection.connect('ws://a/', []);
        connection.connect('ws://a/', []);
        made[1].readyState = 1;
        made[1].onopen();
        made[0].readyState = 3;
        made[0].onclose({code: 1006, reason: '', wasClean: false});
        window.WebSocket = Real;
        return [made.length, connection.lost, connection.due, made[0].onmessage, noted.pop()];
        """
    )
    assert noted == [2, False, None, None, ["note", "connection 1 closed: code 1006, not clean"]]


def test_reconnecting(console):
    calls = []

    async def refuse(ws):
        calls.append(ws)
        await ws.close(1011 if len(calls) == 1 else 4000, "not now")

    click(console, "reconnect")
    with Background(refuse) as server:
        # Delays of milliseconds instead of seconds.
        console.run("const later = setTimeout; window.setTimeout = (f, ms) => later(f, ms / 50);")
        write(console, "url", server.url)
        click(console, "connect")
        console.wait_until(
            "document.querySelector('#log').textContent.includes("
            "'connection 4 closed: code 4000, reason “not now”, clean')"
        )
        # (Both at once: it waits for milliseconds.)
        console.wait_until(
            f"{by_id('state')}.textContent === 'waiting' && "
            rf"/^to reconnect in \d+ s$/.test({by_id('countdown')}.textContent)"
        )
        click(console, "close")
        wait_for_state(console, "closed")
    assert len(calls) >= 3


# Measure --------------------------------------------------------------------------------------


def test_measuring(console):
    click(console, "tab-measure")
    write(console, "seconds", "1")
    write(console, "flight", "3")
    # The page itself waits for the state: it is gone after a second.
    console.run(
        f"const state = {by_id('run-state')}; const {{promise, resolve}} = Promise.withResolvers();"
        "new MutationObserver(() => state.textContent === 'running' && resolve())"
        f".observe(state, {{childList: true}}); {by_id('run')}.click(); await promise;"
    )
    write(console, "size", "10")
    console.wait_until(f"{by_id('run-state')}.textContent === 'done'")
    figures = console.run(
        "return Object.fromEntries([...document.querySelectorAll('#results div')].map((pair) =>"
        "[pair.children[0].textContent, pair.children[1].textContent]));"
    )
    assert int(figures["Messages"].replace(",", "")) > 10
    assert all(re.match(r"[\d.,]+", value) for value in figures.values())
    assert console.run("return document.querySelectorAll('#trips rect').length;") > 0
    assert console.run("return document.querySelectorAll('#rate path').length;") == 2
    click(console, "copy-result")
    console.wait_until(f"{by_id('copy-result')}.textContent === 'Copied'")

    async def deaf(ws):
        async for _ in ws:
            await ws.send("something else")

    with Background(deaf) as server:
        write(console, "url", server.url)
        click(console, "run")
        console.wait_until(f"{by_id('run-state')}.textContent.includes('does not echo')")
    assert console.complaints == []


# Frames ---------------------------------------------------------------------------------------


def test_no_frames(console):
    click(console, "tab-frames")
    assert "--inspect" in text_of(console, "no-frames")
    assert console.run(f"return {by_id('inspector')}.hidden;")


def test_frames(tab):
    with Echo("--inspect") as server:
        tab.navigate(server.http)
        wait_for_state(tab, "open")
        click(tab, "tab-frames")
        tab.wait_until(f"{by_id('channel')}.textContent.startsWith('All connections')")
        write(tab, "text", "Hello")
        click(tab, "send")
        tab.wait_until("document.querySelectorAll('#frame-list .row:not([hidden])').length === 2")
        received, sent = rows(tab, "frame-list")
        assert received[1:5] == ["↓", "text", "5 B", "#1"]
        assert received[5].startswith("81 85 ")
        assert sent[1:] == ["↑", "text", "5 B", "#1", "81 05  48 65 6c 6c 6f"]
        focus(tab, "frame-list")
        tab.press("ArrowDown")
        tab.wait_until(f"!{by_id('frame')}.hidden")
        bits = tab.run(
            "return [...document.querySelectorAll('.bits td')].map((c) => c.textContent);"
        )
        assert "".join(bits) == "1000000110000101"
        shown = text_of(tab, "frame")
        assert "1: text" in shown
        assert "48 65 6c 6c 6f" in shown  # unmasked
        assert tab.complaints == []
    tab.wait_until(f"{by_id('channel')}.textContent.endsWith('does not show its frames anymore.')")


# For everybody --------------------------------------------------------------------------------


def test_without_a_mouse(console):
    """Every control has a name, the tabs obey the arrow keys."""
    nameless = console.run(
        """
        const controls = 'input, button, select, textarea, svg, [role=listbox]';
        return [...document.querySelectorAll(controls)]
          .filter((control) => !control.hidden && !control.labels?.length
            && !control.getAttribute('aria-label') && !control.textContent.trim())
          .map((control) => control.id);
        """
    )
    assert nameless == []
    assert console.run("return document.documentElement.lang;") == "en"
    ids = "[...document.querySelectorAll('[id]')].map((element) => element.id)"
    assert console.run(f"const ids = {ids}; return ids.length - new Set(ids).size;") == 0
    focus(console, "tab-messages")
    for name in ("measure", "frames", "messages"):
        console.press("ArrowRight")
        assert console.run("return document.activeElement.id;") == f"tab-{name}"
        assert not console.run(f"return {by_id(name)}.hidden;")


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme):
    css = (PAGE / "page.css").read_text("utf-8")
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[scheme == "dark"]))
    assert len(colours) == 12
    # No colour is written anywhere else.
    assert len(re.findall(r"#[0-9a-f]{3,8}\b", css)) == 24

    def contrast(one: str, other: str) -> float:
        least, most = sorted((luminance(colours[one]), luminance(colours[other])))
        return (most + 0.05) / (least + 0.05)

    for back in ("back", "card", "mark", "alert"):
        for text in ("text", "dim", "accent", "good", "bad"):
            assert contrast(text, back) >= 4.5, (text, back)
    assert contrast("on-accent", "accent") >= 4.5
    for back in ("back", "card"):
        assert contrast("edge", back) >= 3  # the borders of controls


TALK = (
    ("text", "Hello Server!"),
    ("text", '{"op":"subscribe","channel":"trades","symbols":["BTC-EUR","ETH-EUR"]}'),
    ("text", "Zażółć gęślą jaźń"),
    ("text", '{"op":"trade","symbol":"BTC-EUR","price":81250.5,"amount":0.0125,"side":"buy"}'),
    ("text", "GET /not/http HTTP/1.1\nHost: example.com"),
    ("text", "ping"),
    ("hex", "de ad be ef 00 01"),
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_looks(page, width, height, scheme):
    """Nothing is cut off on either side. With FASTWS_SCREENSHOTS, save pictures in that directory,
    for people to look at."""
    place = os.environ.get("FASTWS_SCREENSHOTS")

    def look(name: str) -> None:
        assert page.run(
            "const {scrollWidth, clientWidth} = document.documentElement;"
            "return scrollWidth <= clientWidth;"
        ), name
        if place is not None:
            # Let what was asked for be drawn.
            page.run("await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));")
            path = Path(place) / f"{name}-{width}-{scheme}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(page.screenshot())

    with Echo("--inspect") as server:
        page.resize(width, height, scheme=scheme)
        page.navigate(server.http)
        wait_for_state(page, "open")
        for number, (kind, message) in enumerate(TALK, 1):
            write(page, "type", kind)
            write(page, "text", message)
            click(page, "send")
            page.wait_until(f"{by_id('count')}.textContent.endsWith('· {number} received')")
        write(page, "type", "text")
        look("messages")
        focus(page, "log")
        for _ in range(7):
            page.press("ArrowUp")
        look("selected")
        click(page, "tab-frames")
        page.wait_until("document.querySelectorAll('#frame-list .row:not([hidden])').length > 7")
        look("frames")
        focus(page, "frame-list")
        page.press("End")
        page.press("ArrowUp")
        look("frame")
        click(page, "tab-measure")
        look("nothing-measured")
        if place is not None:
            write(page, "seconds", "4")
            write(page, "flight", "4")
            click(page, "run")
            page.wait_until(f"{by_id('run-state')}.textContent === 'done'")
        look("measure")
        click(page, "tab-messages")
        page.run("document.querySelector('details').open = true;")
        write(page, "url", f"ws://localhost:{free_port()}/chat")
        click(page, "connect")
        page.wait_until(f"!{by_id('notice')}.hidden")
        look("refused")
