"""How `fastws` displays what strangers send. (test_cli.py tests what is typed.)"""

from __future__ import annotations

import os
import sys
import unicodedata

import pytest

from fastws.cli._terminal import Keyboard, printable

from .tools import run


def test_nothing_that_a_terminal_obeys_is_left() -> None:
    for code in (*range(0x20000), *range(0xE0000, 0xE0200), sys.maxunicode):
        char = chr(code)
        shown = printable(char)
        category = unicodedata.category(char)
        if category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            assert shown.isascii()
            assert shown.isprintable()
            assert shown.encode().decode("unicode_escape") == char
        elif shown != char:
            assert "FILLER" in unicodedata.name(char) or category == "Mn"


@pytest.mark.parametrize(
    "text",
    ["", "plain ASCII ~", "Grüße, 世界\u3000です", "\xa0 %", "❤️ 😀", "a\\x1b", "e\u0301"],
    ids=ascii,
)
def test_words_stay_as_they_are(text: str) -> None:
    assert printable(text) == text


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's")
def test_what_a_terminal_does_not_take_is_left_out() -> None:
    master, slave = os.openpty()
    # In place of its output, because a pipe accepts parts of characters.
    reader, writer = os.pipe()
    try:
        with Keyboard(slave, "utf-8") as keyboard:
            os.set_blocking(reader, False)
            os.set_blocking(writer, False)
            os.dup2(writer, keyboard._output)
            typed = "€" * 30_000
            assert list(keyboard.feed(typed.encode())) == []
            assert list(keyboard.feed(b"\n")) == [f"{typed}\n".encode()]
            shown = os.read(reader, 100_000)
            assert len(shown) % 3
            list(keyboard.feed(b"\n|"))
            shown += os.read(reader, 100_000)
        assert shown.decode().strip("€") == "\n|"
    finally:
        for fd in (master, slave, reader, writer):
            os.close(fd)


def test_what_is_kept() -> None:
    assert printable("a\n\tb\r\x1b", keep="\n\t") == "a\n\tb\\r\\x1b"
    assert printable("a\n\tb") == r"a\n\tb"


def test_long_text_takes_no_time_to_speak_of() -> None:
    assert printable("\x1b" * 1_000_000) == r"\x1b" * 1_000_000


def test_what_is_logged_is_printable() -> None:
    code = (
        "import logging; from fastws.cli import main; main(['info'])\n"
        "try:\n    raise ValueError('\\x1b]0;title\\x07')\n"
        "except ValueError:\n    logging.getLogger('fastws').exception('\\x9b2J %s', '\\u202e')"
    )
    lines = run(sys.executable, "-c", code).stderr.splitlines()
    assert (lines[0], lines[-1]) == (r"\x9b2J \u202e", r"ValueError: \x1b]0;title\x07")
