"""tools/english.py, part of `make lint`: each of its rules finds what it should, and no more."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "english.py"
spec = importlib.util.spec_from_file_location("english", SCRIPT)
assert spec is not None
assert spec.loader is not None
english = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = english  # for NamedTuple
spec.loader.exec_module(english)


@pytest.mark.parametrize("rule", english.RULES, ids=lambda rule: rule.bad)
def test_a_rule_finds_the_bad_phrase_and_not_the_good_one(rule: object) -> None:
    assert rule in [found for _, _, found in english.find(rule.bad)]
    assert list(english.find(rule.good)) == []


def test_a_phrase_may_go_on_in_the_next_line() -> None:
    (rule,) = [rule for rule in english.RULES if "earnest" in rule.bad]
    first, second = rule.bad.split()[1:]
    for mark in ("", "# ", "    # ", "// ", " * ", "> "):
        text = f"One.\n{mark}It is random {first}\n{mark}{second}.\n"
        assert list(english.find(text)) == [(2, f"{first} {second}", rule)]


def test_a_part_of_a_document_can_be_left_out() -> None:
    bad = english.RULES[0].bad
    text = f"<!-- english: off -->\n{bad}\n<!-- english: on -->\n\n{bad}\n"
    assert [line for line, _, _ in english.find(text)] == [5]


def test_the_program_reports_where_a_phrase_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.md", tmp_path / "bad.py"
    good.write_text("Plain words.\n")
    bad.write_text(f"# One\n# {english.RULES[0].bad}\n")
    monkeypatch.setattr(sys, "argv", ["english.py", str(good)])
    assert english.main() == 0
    monkeypatch.setattr(sys, "argv", ["english.py", str(good), str(bad)])
    assert english.main() == 1
    assert f"{bad}:2: " in capsys.readouterr().out


def test_only_what_we_wrote_is_walked() -> None:
    files = {path.relative_to(english.ROOT).as_posix() for path in english.walk(english.ALL)}
    assert {"README.md", "Makefile", "tools/Makefile", "src/fastws/__init__.py"} <= files
    assert "src/fastws/_c/frames.c" not in files
    assert not [name for name in files if "egg-info" in name or "node_modules" in name]
