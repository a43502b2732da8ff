"""The fuzz targets and the soak: their corpora pass, and a fault is found.

atheris is not needed for this. `make fuzz` runs the targets for longer, `make -C tools soak` the
soak.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from fastws import codec, deflate, rules
from fastws._py import messages as _py_messages
from fastws.connection import Connection
from fastws.spec import Role

from .tools import run

if TYPE_CHECKING:
    from collections.abc import Iterator

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
TARGETS = (
    *("decoder", "differential", "deflate", "streams", "frames"),
    *("handshake", "session", "preambles", "addresses", "captures"),
)
SOAK = ("soak", "load", "children", "leaks")


@pytest.fixture(scope="module", autouse=True)
def fuzz_on_path() -> Iterator[None]:
    """Their modules have short names, which must not stay in sys.modules."""
    sys.path.insert(0, str(FUZZ))
    yield
    sys.path.remove(str(FUZZ))
    for name in ("common", "make_corpus", "reference", *TARGETS, *SOAK):
        sys.modules.pop(name, None)


def load(name: str) -> Any:
    return import_module(name)


@pytest.mark.parametrize("target", TARGETS)
def test_corpus_passes(target: str) -> None:
    check_all(target)
    module = load(target)
    for size in range(10):
        module.check(bytes(size))


def test_corpus_is_the_same_for_the_same_seed() -> None:
    make_corpus = load("make_corpus")
    assert set(make_corpus.TARGETS) >= set(TARGETS)
    for target in make_corpus.TARGETS:
        first, second = (list(make_corpus.corpus(target, 1, 30)) for _ in range(2))
        assert first == second != list(make_corpus.corpus(target, 2, 30))


def test_corpus_is_written(tmp_path: Path) -> None:
    make_corpus = load("make_corpus")
    make_corpus.write(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(make_corpus.TARGETS) * 150
    assert sum(path.stat().st_size for path in files) < 80_000 * len(make_corpus.TARGETS)


# Faults ----------------------------------------------------------------------------------------


def check_all(target: str) -> None:
    module = load(target)
    corpus = list(load("make_corpus").corpus(target))
    assert corpus
    for data in corpus:
        module.check(data)


def inflate_without_limit(self: Any, data: bytes, budget: int | None, last: bool) -> bytes:
    return bytes(1 << 20)


@pytest.mark.parametrize("target", ["decoder", "deflate"])
def test_inflater_without_limit_is_found(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load(target)
    monkeypatch.setattr(deflate.Inflater, "inflate", inflate_without_limit)
    if target == "decoder":
        # The decoder has its own limits, which hide the fault.
        monkeypatch.setattr(_py_messages.MessageDecoder, "_grow", lambda *_: None)
    with pytest.raises(AssertionError):
        check_all(target)


@pytest.mark.skipif(codec.implementation == "py", reason="there is one twin only")
def test_twins_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "begins_surrogate", lambda pending: False)
    with pytest.raises(AssertionError):
        check_all("differential")


# The soak ----------------------------------------------------------------------------------------

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


@needs_proc
@pytest.mark.timeout(180)
def test_soak_passes() -> None:
    environment = {"SOAK_SECONDS": "12", "SOAK_CONNECTIONS": "60"}
    result = run(sys.executable, str(FUZZ / "soak.py"), env=os.environ | environment, timeout=170)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("all is flat, and nothing was lost\n")
    echoes, stopped_on = summary(result.stdout)
    assert echoes > 500
    assert sum(stopped_on) > 0


def summary(output: str) -> tuple[int, list[int]]:
    """How many echoes it checked, and how many honest clients each server had when it stopped."""
    echoes = re.search(r"^([\d,]+) echoes checked", output, re.MULTILINE)
    assert echoes is not None
    rows = re.findall(r"^\| \w+ on \w+ \|.*\| (\d+) \| \d+ \|$", output, re.MULTILINE)
    assert len(rows) == 6
    return int(echoes[1].replace(",", "")), list(map(int, rows))


@pytest.fixture
def soak() -> Any:
    """A soak of one server, which was stopped from 100 s to 110 s."""
    module = load("soak")
    child = SimpleNamespace(name="callback on asyncio", complaints=lambda: "")
    served = module.Served("callback", "asyncio", child, stopped=[(100.0, 110.0)])
    points = [{"rss": 100 << 20, "fds": 8, "tasks": 1} for _ in range(6)]
    served.quiet = [points[:3], points[3:]]
    served.ledgers = {"0-1": 5}
    soak = module.Soak()
    soak.servers = [served]
    soak.match_ends()
    soak.judge()
    assert soak.failures == []
    return soak


END = {"server": 0, "name": "0-1", "kind": "honest", "code": 1001, "echoes": 5, "at": 105.0}


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        ({}, None),
        ({"echoes": 6}, None),  # it died before it could record its answer
        ({"name": "0-2", "echoes": 0}, None),  # it had not answered yet
        ({"name": "0-2"}, "kept no count of honest 0-2"),
        ({"echoes": 4}, "answered 5 messages of honest 0-1, which got 4"),
        ({"code": 1000}, "got 1000 as its close code"),
        ({"code": None}, "got None as its close code"),
        ({"at": 99.0}, "ended the connection of honest 0-1"),
        ({"at": 115.0}, "ended the connection of honest 0-1"),
    ],
)
def test_soak_sees_what_a_stop_loses(soak: Any, change: dict[str, Any], failure: Any) -> None:
    soak.ends = [END | change]
    soak.match_ends()
    if failure is None:
        assert soak.failures == []
    else:
        assert failure in soak.failures[0]


def test_soak_lets_few_clients_of_uvicorn_be_late(soak: Any) -> None:
    (served,) = soak.servers
    served.style = "uvicorn"
    late = END | {"code": None, "at": 101.1}
    soak.ends = [END | {"code": 1012}] * 40 + [late] * 2
    soak.match_ends()
    assert soak.failures == []
    soak.ends = [late]
    soak.match_ends()
    assert "stopped on 43 honest clients, and gave 3 no close frame" in soak.failures[0]
    soak.ends = [late | {"at": 100.9}]
    soak.match_ends()
    assert "0.9 s after SIGTERM" in soak.failures[1]


def test_soak_sees_who_is_not_let_in(soak: Any) -> None:
    soak.unopened = [END | {"why": ""}, END | {"why": "HTTP 503", "at": 50.0}]
    soak.match_ends()
    assert soak.failures == ["callback on asyncio did not let honest 0-1 in: HTTP 503"]


@pytest.mark.parametrize("name", ["rss", "fds", "tasks"])
@pytest.mark.parametrize("life", [0, 1])
def test_soak_sees_growth(soak: Any, name: str, life: int) -> None:
    soak.servers[0].quiet[life][-1][name] += 5 << 20
    soak.judge()
    assert f"life {life + 1}: {name} rose from" in soak.failures[0]


def test_soak_lets_a_server_get_warm(soak: Any) -> None:
    soak.servers[0].quiet[1][0]["rss"] -= 20 << 20
    soak.judge()
    assert soak.failures == []


@pytest.mark.parametrize("text", ["Traceback (most recent call last):\n", "ERROR fastws: oh\n"])
def test_soak_sees_what_a_server_logs(soak: Any, text: str) -> None:
    soak.servers[0].child.complaints = lambda: text
    soak.judge()
    assert "logged" in soak.failures[0]


@pytest.mark.parametrize(
    ("echoes", "failure"),
    [
        (["a", b"b", "c"], None),
        (["a", "c"], "got 'c' (1) for its message 1"),
        (["a", "a"], "got 'a' (1) for its message 1"),
        (["a", "b"], "got 'b' (1) for its message 1"),  # of the other kind
        (["a", b"b", "c", "d"], "got 'd' (1) for its message 3"),
    ],
)
def test_soak_sees_wrong_echoes(echoes: list[str | bytes], failure: str | None) -> None:
    module = load("load")
    failures: list[str] = []
    life = SimpleNamespace(load=SimpleNamespace(fail=failures.append), port=1, write=None)
    conversation = module.Conversation(life, "0-1")
    conversation.connection = Connection(Role.CLIENT)
    conversation.expected.extend(["a", b"b", "c"])
    server = Connection(Role.SERVER)
    for echo in echoes:
        server.send(echo)
    if failure is None:
        conversation.take(server.data_to_send())
        assert conversation.echoes == 3
        assert failures == []
    else:
        with pytest.raises(module.Ended):
            conversation.take(server.data_to_send())
        assert failure in failures[0]


# The bounds --------------------------------------------------------------------------------------


@needs_proc
@pytest.mark.timeout(180)
def test_bounds_are_measured() -> None:
    names = ("empties", "ended-tcp")
    argv = [sys.executable, str(FUZZ / "bounds.py"), "--loop", "asyncio", "--src", "src"]
    argv += [word for name in names for word in ("--only", name)]
    result = run(*argv, cwd=FUZZ.parent, timeout=170)
    assert result.returncode == 0, result.stderr
    titles, rule, *rows = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert titles == "| | callback, asyncio | coroutine, asyncio | uvicorn, asyncio |"
    assert rule == "|---|---|---|---|"
    assert [row.split(" | ")[0].rpartition(", ")[2] for row in rows] == ["MiB", "ms", "KiB"]
    for row in rows:
        for value in row.strip("| ").split(" | ")[1:]:
            assert -100 < float(value) < 100_000, result.stdout + result.stderr
