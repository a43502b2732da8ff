"""The pytest plugin of `upstream.py`: installs fastws, and records the outcome of each test.

It is configured by the environment, so that the hosts' own arguments stay unchanged.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

# From best to worst: the worst phase of a test counts.
OUTCOMES = ["passed", "skipped", "failed"]

outcomes: dict[str, str] = {}
problems: dict[str, str] = {}
handles = []

for name in os.environ["FASTWS_UPSTREAM_WITH"].split():
    handle = importlib.import_module(f"fastws.integrations.{name}").install()
    if not handle.active:
        sys.exit(f"{handle!r}: upstream.toml names a version that the integration does not support")
    handles.append(handle)
for name in os.environ["FASTWS_UPSTREAM_PLUGINS"].split():
    importlib.import_module(name)


def pytest_report_header(config: Any) -> list[str]:
    return [repr(handle) for handle in handles]


def pytest_runtest_logreport(report: Any) -> None:
    note(report)


def pytest_collectreport(report: Any) -> None:
    if report.failed:
        note(report)


def note(report: Any) -> None:
    outcome = "skipped" if hasattr(report, "wasxfail") else report.outcome
    if report.failed:
        problems[report.nodeid] = str(report.longrepr)
    # A passed setup does not mean that the test passed, but a passed call does.
    if report.when in ("call", "collect", None) or outcome != "passed":
        before = outcomes.get(report.nodeid, "passed")
        outcomes[report.nodeid] = max(before, outcome, key=OUTCOMES.index)


def pytest_sessionfinish() -> None:
    gone = [repr(handle) for handle in handles if not handle.active]
    text = json.dumps({"outcomes": outcomes, "problems": problems, "gone": gone})
    Path(os.environ["FASTWS_UPSTREAM_OUT"]).write_text(text)
