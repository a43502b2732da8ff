"""The committed figures, and how new ones compare with them.

This module knows the files in baselines/ and what they are valid for. It does not know how
instructions are counted.
"""

from __future__ import annotations

import platform
import re
import sys
import sysconfig
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER: Final = Path(__file__).parent / "baselines"
LIMIT: Final = 0.02  # a change by more is reported

_HEADER: Final = """\
# Instructions for one operation, and what they were counted with.
# Written by `make bench-instructions-accept`.
"""


@dataclass(frozen=True)
class Baseline:
    """Figures and what they are valid for.

    Attributes:
        environment: what the figures depend on, by name.
        instructions: the figures, by operation.
    """

    environment: Mapping[str, str]
    instructions: Mapping[str, float]

    @property
    def name(self) -> str:
        """The name of its file: the compiler, the Python and the machine."""
        parts = [self.environment[key] for key in ("compiler", "python", "machine")]
        return re.sub(r"[^\w.]+", "-", "-".join(parts)).lower()

    def path(self, folder: Path = FOLDER) -> Path:
        return folder / f"{self.name}.toml"

    def save(self, folder: Path = FOLDER) -> Path:
        """Write the file; return its path."""
        path = self.path(folder)
        tables = [_HEADER, "[environment]"]
        tables += [f'{key} = "{value}"' for key, value in self.environment.items()]
        tables += ["", "[instructions]"]
        tables += [f'"{name}" = {value}' for name, value in self.instructions.items()]
        path.write_text("\n".join(tables) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Baseline:
        return cls(**tomllib.loads(path.read_text("utf-8")))


def describe(built_with: Mapping[str, str], *, kernel: str, valgrind: str) -> dict[str, str]:
    """Return what figures of this process depend on, besides the code of fastws.

    Args:
        built_with: the versions of Cython and of the compiler.
        kernel: the name of the kernels.
        valgrind: valgrind's version.
    """
    options = re.findall(r"--(?:enable|with|disable|without)-[\w-]+", _config("CONFIG_ARGS"))
    return {
        "compiler": built_with["compiler"],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": platform.machine(),
        "kernel": kernel,
        "python_build": " ".join([platform.python_compiler(), *sorted(options)]),
        "cython": built_with["cython"],
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind,
        "packages": ", ".join(_packages()),
    }


def _config(name: str) -> str:
    return str(sysconfig.get_config_var(name) or "")


def _packages() -> list[str]:
    """The packages that fastws has imported."""
    owners = metadata.packages_distributions()
    # (Private modules were imported when Python started.)
    tops = {module.partition(".")[0] for module in sys.modules if not module.startswith("_")}
    found = {name for top in tops for name in owners.get(top, ())}
    return sorted(f"{name} {metadata.version(name)}" for name in found if name != "fastws-codec")


# Comparing ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """New figures beside those of the baseline.

    Attributes:
        before: the baseline, if there is one for this compiler, Python and machine.
        after: the new figures.
    """

    before: Baseline | None
    after: Baseline

    @property
    def differences(self) -> list[str]:
        """What is not as it was when the baseline was written, except for the code."""
        if self.before is None:
            return []
        before, after = self.before.environment, self.after.environment
        return [
            f"{key}: {before.get(key, 'none')} -> {after.get(key, 'none')}"
            for key in {**before, **after}
            if before.get(key) != after.get(key)
        ]

    @property
    def is_valid(self) -> bool:
        """Whether the figures can be compared."""
        return self.before is not None and not self.differences

    def change(self, operation: str) -> float | None:
        """Return how much more an operation takes: 0.02 for 2 %. None if one figure is missing."""
        before = self.before.instructions.get(operation) if self.before else None
        after = self.after.instructions.get(operation)
        return None if before is None or after is None else (after - before) / before

    @property
    def dearer(self) -> list[str]:
        """The operations that take more than the limit allows."""
        return [name for name in self.after.instructions if (self.change(name) or 0) > LIMIT]

    @property
    def cheaper(self) -> list[str]:
        return [name for name in self.after.instructions if (self.change(name) or 0) < -LIMIT]

    @property
    def passes(self) -> bool:
        return not (self.is_valid and self.dearer)

    def table(self) -> str:
        before = self.before.instructions if self.before else {}
        lines = [f"{'instructions for one':<24}{'before':>12}{'after':>12}{'change':>10}"]
        for name in {**before, **self.after.instructions}:
            old, new = before.get(name), self.after.instructions.get(name)
            change = self.change(name)
            percent = "" if change is None else f"{100 * change:+.1f} %"
            word = ""
            if change is not None and abs(change) > LIMIT:
                word = "MORE" if change > 0 else "less"
            line = f"{name:<24}{_figure(old):>12}{_figure(new):>12}{percent:>10}  {word}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    def verdict(self) -> str:
        """Say what follows from it."""
        accept = "make bench-instructions-accept"
        name = self.after.name
        if self.before is None:
            return f"There is no baseline for {name}, so nothing was compared. To add it: {accept}"
        if self.differences:
            # What is different may have changed the figures, and not the code.
            return (
                f"The baseline for {name} was written with something else, so it decides nothing:\n"
                + "".join(f"  {difference}\n" for difference in self.differences)
                + f"To write it anew: {accept}"
            )
        lines = []
        if self.dearer:
            lines.append(
                f"FAILED: over {100 * LIMIT:g} % more instructions for {self._list(self.dearer)}.\n"
                f"If that is the price of something: {accept}"
            )
        if self.cheaper:
            lines.append(
                f"Over {100 * LIMIT:g} % fewer instructions for {self._list(self.cheaper)}.\n"
                f"To hold that: {accept}"
            )
        return "\n".join(lines or [f"All operations are within {100 * LIMIT:g} % of the baseline."])

    def _list(self, names: list[str]) -> str:
        return ", ".join(f"{name} ({100 * (self.change(name) or 0):+.1f} %)" for name in names)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"
