"""`fastws info`: what it prints is true, and it works wherever fastws runs."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import ssl
import sys
import tomllib
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import fastws
from fastws.cli import info as command
from fastws.cli import main

from .tools import run

if TYPE_CHECKING:
    from types import SimpleNamespace

ROOT = Path(__file__).parents[1]

# Runs `fastws` without its script; argv[1] is Python code to run before.
CODE = "import sys; exec(sys.argv.pop(1)); from fastws.cli import main; sys.exit(main())"


def info(before: str = "", **env: str) -> dict[str, Any]:
    """Ask a new process, whose environment has these FASTWS_* variables and none of ours."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FASTWS_")}
    result = run(sys.executable, "-c", CODE, before, "info", "--json", env=inherited | env)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_twin_asked_for(twin: SimpleNamespace) -> None:
    found = info(FASTWS_IMPL=twin.name)
    assert found["fastws"] == fastws.__version__
    assert (found["twin"], found["twin_reason"]) == (twin.name, f"FASTWS_IMPL is {twin.name}")
    assert found["extension_error"] is None
    assert found["environment"] == {"FASTWS_IMPL": twin.name}
    if twin.name == "py":
        assert (found["kernel"], found["kernels"], found["extension"]) == (
            "python",
            ["python"],
            None,
        )
    else:
        assert found["kernel"] == found["kernels"][0]
        assert found["kernels"][-1] == "scalar"
        assert re.fullmatch(r"\d+\.\d+\.\d+", found["extension"]["cython"])
        assert found["extension"]["compiler"]


def test_the_kernel_asked_for(twin: SimpleNamespace) -> None:
    name = "python" if twin.name == "py" else "scalar"
    found = info(FASTWS_IMPL=twin.name, FASTWS_KERNEL=name)
    assert (found["kernel"], name in found["kernels"]) == (name, True)


def test_the_twin_that_is_there() -> None:
    found = info()
    if found["twin"] == "c":
        assert (found["twin_reason"], found["extension_error"]) == (
            "the extension can be imported",
            None,
        )
    else:
        assert found["twin_reason"] == "the extension cannot be imported"
        assert found["extension_error"].startswith("ModuleNotFoundError: No module named ")


def test_an_extension_that_does_not_load() -> None:
    found = info("sys.modules['fastws._c.connection'] = None")
    assert (found["twin"], found["kernel"], found["extension"]) == ("py", "python", None)
    assert found["twin_reason"] == "the extension cannot be imported"
    error = found["extension_error"]
    assert re.fullmatch(r"ModuleNotFoundError: .*fastws\._c\.connection.*", error)


def test_where_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["python"]["implementation"] == platform.python_implementation()
    assert found["python"]["version"] == platform.python_version()
    assert found["python"]["free_threaded"] is ("free-threading" in sys.version)
    assert found["python"]["gil_enabled"] is getattr(sys, "_is_gil_enabled", lambda: True)()
    assert found["platform"]["name"] == platform.platform()
    assert found["platform"]["bits"] == (64 if sys.maxsize > 2**32 else 32)
    assert found["deflate"]["zlib"] == zlib.ZLIB_RUNTIME_VERSION
    assert found["openssl"] == ssl.OPENSSL_VERSION
    assert found["dependencies"]["h11"] == version("h11")
    assert found["integrations"]["websockets"] == {
        "host": "websockets",
        "version": version("websockets"),
        "tested": True,
    }


def test_what_is_not_installed() -> None:
    absent = ("zlib_ng", "zlib_ng.zlib_ng", "isal")
    found = info(
        f"sys.modules |= dict.fromkeys({absent}); import importlib.metadata as m; "
        "m.Distribution.from_name = lambda name: (_ for _ in ()).throw(m.PackageNotFoundError)"
    )
    assert found["deflate"] == {"zlib": zlib.ZLIB_RUNTIME_VERSION, "zlib-ng": None, "isal": None}
    assert found["dependencies"] == dict.fromkeys(command.DEPENDENCIES)
    assert found["integrations"] == {}
    assert found["installation"]["version"] is None


def test_the_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    # An extra with the name of what it installs is for users, and so are these three; the
    # others are for us.
    optional = [
        re.split(r"[>=]", text)[0]
        for name, wanted in extras.items()
        for text in wanted
        if name in ("proxy", "cli", "nats") or text.startswith(f"{name}>=")
    ]
    required = [re.split(r"[>=]", text)[0] for text in project["dependencies"]]
    assert list(command.DEPENDENCIES) == [*required, *optional]


# How it was installed -------------------------------------------------------------------


class Distribution:
    version = "9.9"

    def __init__(self, **files: str) -> None:
        self.files = files

    def read_text(self, name: str) -> str | None:
        return self.files.get(name.partition(".")[0])


@pytest.mark.parametrize(
    ("files", "expected", "line"),
    [
        (
            {"WHEEL": "Wheel-Version: 1.0\nTag: cp311-cp311-a\nTag: cp311-cp311-b\n"},
            {"editable": False, "wheel": ["cp311-cp311-a", "cp311-cp311-b"], "installer": None},
            "(cp311-cp311-a cp311-cp311-b, of 9.9)",
        ),
        (
            {
                "WHEEL": "Tag: cp311-cp311-a\n",
                "INSTALLER": "pip\n",
                "direct_url": '{"dir_info": {"editable": true}, "url": "file:///x"}',
            },
            {"editable": True, "wheel": [], "installer": "pip"},
            "(editable, of 9.9)",
        ),
        (
            {"direct_url": '{"archive_info": {}, "url": "file:///x.whl"}'},
            {"editable": False, "wheel": [], "installer": None},
            "(from no wheel, of 9.9)",
        ),
    ],
    ids=["wheel", "editable", "neither"],
)
def test_the_installation(
    files: dict[str, str],
    expected: dict[str, Any],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "fastws.cli.info.Distribution.from_name", lambda name: Distribution(**files), raising=True
    )
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["installation"]
    assert {key: found[key] for key in expected} == expected
    assert found["version"] == "9.9"
    assert Path(found["location"]).name == "fastws"
    assert main(["info"]) == 0
    assert f"{fastws.__version__} {line}" in capsys.readouterr().out


# Another project with the same import name ------------------------------------------------

CONFLICT = (
    "the distribution fastws 0.1.7 is installed too, which is another project: it and fastws-codec "
    "both use the import name fastws, and overwrite each other's files; uninstall both, then "
    "install the one that you want"
)


def distribution(
    folder: Path, name: str, version: str, scripts: str = "", egg: bool = False
) -> str:
    """Make a directory look like a distribution; return code that puts it first in sys.path."""
    info = folder / (f"{name}.egg-info" if egg else f"{name}-{version}.dist-info")
    info.mkdir()
    (info / ("PKG-INFO" if egg else "METADATA")).write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    if scripts:
        (info / "entry_points.txt").write_text(f"[console_scripts]\n{scripts}\n")
    return f"sys.path.insert(0, {str(folder)!r})"


def test_no_other_distribution() -> None:
    assert info()["warnings"] == []


@pytest.mark.parametrize("scripts", ["", "fastws = fastws.application:main"])
@pytest.mark.parametrize("name", ["fastws", "FastWS"])
def test_the_other_distribution(tmp_path: Path, name: str, scripts: str) -> None:
    before = distribution(tmp_path, name, "0.1.7", scripts)
    assert info(before)["warnings"] == [CONFLICT]
    # sys.path may contain the same directory twice.
    assert info(f"{before}; {before}")["warnings"] == [CONFLICT]
    result = run(sys.executable, "-c", CODE, before, "info")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"\nwarning      {CONFLICT}\n" in result.stdout


@pytest.mark.parametrize("egg", [False, True], ids=["dist-info", "egg-info"])
def test_ours_by_its_earlier_name_is_no_other(tmp_path: Path, egg: bool) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    before = distribution(ours, "fastws", "0.1.0", "fastws = fastws.cli:main", egg)
    assert info(before)["warnings"] == []
    # It hides nothing.
    before += f"; {distribution(tmp_path, 'fastws', '0.1.7')}"
    assert info(before)["warnings"] == [CONFLICT]
    before += "; sys.path.reverse()"
    assert info(before)["warnings"] == [CONFLICT]


def test_what_the_other_distribution_left_behind(tmp_path: Path) -> None:
    (tmp_path / "fastws-0.1.7.dist-info").mkdir()
    assert info(f"sys.path.insert(0, {str(tmp_path)!r})")["warnings"] == []


def test_the_other_distribution_over_ours(tmp_path: Path) -> None:
    """Whichever is installed last has the file `__init__.py`."""
    shutil.copytree(
        Path(fastws.__file__).parent,
        tmp_path / "fastws",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"),
    )
    (tmp_path / "fastws" / "__init__.py").write_text('__version__ = "0.1.7"\n')
    found = info(distribution(tmp_path, "fastws", "0.1.7"))
    assert found["installation"]["location"] == str(tmp_path / "fastws")
    assert found["warnings"] == [CONFLICT]


# What is nobody's business ----------------------------------------------------------------


def test_no_home_is_told(tmp_path: Path) -> None:
    home = str(tmp_path / "jane")
    found = info(
        HOME=home,
        USERPROFILE=home,
        FASTWS_INTEGRATIONS_PREFIX=f"{home}/venv",
        FASTWS_A=home,
        FASTWS_B=f"{home}.old:{home}:/mnt{home}",
        OTHER=home,
    )
    assert found["environment"] == {
        "FASTWS_A": "~",
        "FASTWS_B": f"{home}.old:~:/mnt{home}",
        "FASTWS_INTEGRATIONS_PREFIX": "~/venv",
    }


def test_a_location_in_a_home() -> None:
    home = Path(fastws.__file__).parents[1]
    found = info(HOME=str(home), USERPROFILE=str(home))
    assert found["installation"]["location"] == str(Path("~") / "fastws")


@pytest.mark.parametrize("home", ["/", ""])
def test_a_home_that_says_nothing(home: str) -> None:
    found = info(HOME=home, USERPROFILE=home, FASTWS_A="/a/b")
    assert found["environment"] == {"FASTWS_A": "/a/b"}


# For people -------------------------------------------------------------------------------


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines if not line.startswith(" "))
    assert told["fastws"].startswith(f"{fastws.__version__} (")
    assert told["twin"].startswith(f"{fastws.implementation}: ")
    assert told["kernel"].split()[0] == fastws.kernel
    assert told["python"].startswith(
        f"{platform.python_implementation()} {platform.python_version()} ("
    )
    assert told["platform"] == platform.platform()
    assert f"h11 {version('h11')}" in told["with"]
    assert f"websockets {version('websockets')}" in told["hosts"].split(", ")


def test_text_of_what_is_odd(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = command.collect("1.0")
    found |= {"extension": None, "extension_error": "ImportError: why", "integrations": {}}
    found["installation"]["version"] = None
    found["installation"]["editable"] = False
    found["python"] |= {"compiler": "", "free_threaded": True, "gil_enabled": False}
    found["platform"]["libc"] = None
    found["dependencies"]["uvloop"] = None
    found["environment"] = {"FASTWS_A": "1", "FASTWS_B": "2"}
    monkeypatch.setattr("fastws.cli.info.collect", lambda version: found)
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for part in (
        "1.0 (not installed)",
        f"{found['twin_reason']} (ImportError: why)\n",
        "unknown compiler, no GIL, free-threaded\n",
        "-endian\n",
        "uvloop not installed",
        "hosts        none\n",
        "environment  FASTWS_A=1, FASTWS_B=2\n",
    ):
        assert part in text
    assert "built with" not in text


def test_every_key_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "bug-reports.md").read_text("utf-8")
    documented = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert documented == list(command.collect(fastws.__version__))
