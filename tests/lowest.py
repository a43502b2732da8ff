"""Print each dependency at the oldest version that pyproject.toml allows, as constraints for pip.

    python tests/lowest.py [extra ...]

This file reads pyproject.toml, and contains no versions itself. It needs `packaging`.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def read() -> dict[str, Any]:
    """Return the contents of pyproject.toml."""
    return tomllib.loads(PYPROJECT.read_text("utf-8"))


def requirements(*extras: str) -> list[Requirement]:
    """Return the requirements for building, running and these extras, including nested extras."""
    pyproject = read()
    project = pyproject["project"]
    found = [Requirement(text) for text in pyproject["build-system"]["requires"]]
    found += [Requirement(text) for text in project["dependencies"]]
    wanted, seen = list(extras), set()
    while wanted:
        extra = wanted.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for text in project["optional-dependencies"][extra]:
            requirement = Requirement(text)
            if requirement.name == project["name"]:
                wanted += requirement.extras
            else:
                found.append(requirement)
    return found


def lower_bound(requirement: Requirement) -> Version:
    """Return the oldest version that a requirement allows.

    Raises:
        ValueError: if the requirement has no lower bound.
    """
    bounds = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"{requirement} has no lower bound, or several")
    return bounds[0]


def constraints(*extras: str) -> list[str]:
    """Return a constraint for each requirement: the highest one if there are several bounds."""
    lowest: dict[str, Version] = {}
    for requirement in requirements(*extras):
        bound = lower_bound(requirement)
        lowest[requirement.name] = max(bound, lowest.get(requirement.name, bound))
    return [f"{name}=={bound}" for name, bound in sorted(lowest.items())]


if __name__ == "__main__":
    print(*constraints(*sys.argv[1:]), sep="\n")
