"""docs/howto/probing.md: the client that it shows passes the checks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..tools import TIMEOUT, run_fastws
from .pages import code, text

if TYPE_CHECKING:
    from pathlib import Path


def test_the_client(tmp_path: Path) -> None:
    program = tmp_path / "client.py"
    program.write_text(code("howto/probing.md", "client"), "utf-8")
    command = f"'{sys.executable}' '{program}' {{url}}"
    result = run_fastws("probe", "--client", "--exec", command, timeout=4 * TIMEOUT)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(" ok, 0 wrong, 2 skipped\n")
    assert f"\n{result.stdout}```\n" in text("howto/probing.md")
