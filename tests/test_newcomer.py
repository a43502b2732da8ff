"""tools/newcomer.py: it finds in README.md what a newcomer needs, and fails loudly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .tools import from_checkout

ROOT = Path(__file__).parents[1]
(newcomer,) = from_checkout("tools", "newcomer")

README = (ROOT / "README.md").read_text("utf-8")


def test_the_readme_says_all_that_a_newcomer_needs() -> None:
    readme = newcomer.Readme.parse(README)
    assert (readme.run, readme.test, readme.checkout) == ("make run", "make test", "pip install .")
    assert "fastws.serve(echo" in readme.server
    assert "fastws.connect(" in readme.client
    assert "ws.onmessage" in readme.browser
    assert readme.uvicorn.startswith("uvicorn app:app --ws fastws.integrations.")


@pytest.mark.parametrize(
    ("old", "what"),
    [
        ("    make run", "how to run it"),
        ("<!-- run: server -->", "what `server` is"),
        ("`make wheels`", "how to build wheels"),
        ("```js\nconst", "how to connect from a browser"),
        ("`uvicorn app:app --ws", "how to put it under uvicorn"),
    ],
)
def test_what_the_readme_does_not_say_is_named(old: str, what: str) -> None:
    assert old in README
    with pytest.raises(newcomer.Failed, match=rf"README\.md does not say {what}"):
        newcomer.Readme.parse(README.replace(old, ""))


def test_a_step_that_fails_ends_the_walk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = newcomer.Place(tmp_path)

    def run(code: str) -> str:
        command = f"'{sys.executable}' -c '{code}'"
        return str(place.run(command, tmp_path, place.env, 30.0)).strip()

    steps = [("one", lambda: run("print(1)")), ("two", lambda: run("print(2); exit(3)"))]
    steps += [("three", lambda: run("print(3)"))]
    assert newcomer.walk(iter(steps)) == 1
    text = capsys.readouterr().out
    _, table, output, verdict = text.split("\n\n")
    assert [line.split()[-1] for line in table.splitlines()] == ["1", "FAILED", "reached"]
    assert output.endswith("\n2\n(exit status 3)")
    assert verdict.startswith("FAILED after ")


def test_a_walk_to_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert newcomer.walk(iter([("one", lambda: "well")])) == 0
    assert "A newcomer gets through in " in capsys.readouterr().out
