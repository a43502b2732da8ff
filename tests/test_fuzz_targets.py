"""The fuzz targets themselves: their corpora pass, and a fault does not.

atheris is not needed for this; `make fuzz` runs the targets for longer.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastws import codec, deflate, rules
from fastws._py import messages as _py_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

FUZZ = Path(__file__).resolve().parent.parent / "fuzz"
TARGETS = ("decoder", "differential", "deflate", "handshake", "frames")


@pytest.fixture(scope="module", autouse=True)
def fuzz_on_path() -> Iterator[None]:
    """Their modules have short names, which are not to stay around."""
    sys.path.insert(0, str(FUZZ))
    yield
    sys.path.remove(str(FUZZ))
    for name in ("common", "make_corpus", "reference", *TARGETS):
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
    assert sum(path.stat().st_size for path in files) < 500_000


# Faults ----------------------------------------------------------------------------------------


def check_all(target: str) -> None:
    module = load(target)
    corpus = list(load("make_corpus").corpus(target))
    assert corpus
    for data in corpus:
        module.check(data)


def inflate_without_limit(self: Any, data: bytes, room: int | None, last: bool) -> bytes:
    return bytes(1 << 20)


@pytest.mark.parametrize("target", ["decoder", "deflate"])
def test_inflater_without_limit_is_found(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load(target)
    monkeypatch.setattr(deflate.Inflater, "inflate", inflate_without_limit)
    if target == "decoder":
        # The decoder has limits of its own, which hide it.
        monkeypatch.setattr(_py_messages.MessageDecoder, "_grow", lambda *_: None)
    with pytest.raises(AssertionError):
        check_all(target)


@pytest.mark.skipif(codec.implementation == "py", reason="there is one twin only")
def test_twins_that_differ_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "begins_surrogate", lambda pending: False)
    with pytest.raises(AssertionError):
        check_all("differential")
