"""What is published: how it is configured, and that tools/check.py tells good files from bad."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import fastws

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERSION = fastws.__version__

spec = importlib.util.spec_from_file_location("check", ROOT / "tools" / "check.py")
assert spec is not None
assert spec.loader is not None
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

pytestmark = pytest.mark.timeout(300)


def workflow(name: str) -> Any:
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))


# The configuration -----------------------------------------------------------------------------


def test_cibuildwheel_builds_for_what_a_release_has() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    found = set()
    for platform in ("linux", "macos", "windows"):
        options = ["--platform", platform, "--archs", "all", "--print-build-identifiers"]
        result = subprocess.run(
            [sys.executable, "-m", "cibuildwheel", *options, ROOT],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        found |= set(result.stdout.split())
    assert found == {f"{python}-{name}" for python in check.PYTHONS for name in check.PLATFORMS}


def test_the_release_has_a_job_for_each_platform() -> None:
    jobs = workflow("release.yml")["jobs"]
    matrix = jobs["wheels"]["strategy"]["matrix"]["include"]
    assert [row["platform"] for row in matrix] == list(check.PLATFORMS)
    for row in matrix:
        cpu = row["platform"].removeprefix("manylinux_").removeprefix("musllinux_")
        # cibuildwheel must be told to build for a CPU that is not the machine's.
        assert row.get("archs") == (cpu if cpu in check.OTHER_CPUS else None)
        # An x86-64 CPU needs no emulator for i686.
        assert row.get("emulated", False) == (cpu in check.OTHER_CPUS and cpu != "i686")
    assert jobs["check"]["needs"] == ["pure", "wheels"]
    assert jobs["publish"]["needs"] == "check"


def test_what_is_run_with_the_wheels_for_other_cpus() -> None:
    (override,) = (
        override
        for override in CONFIGURATION["tool"]["cibuildwheel"]["overrides"]
        if all(cpu in override["select"] for cpu in check.OTHER_CPUS)
    )
    smoke, codec = override["test-command"]
    named = [word for word in f"{smoke} {codec}".split() if word.endswith(".py")]
    assert len(named) > 5
    for name in named:
        assert (ROOT / name.removeprefix("{project}/")).is_file()
    # Nothing that must be compiled first.
    assert override["test-extras"] == []


def test_cibuildwheel_copies_all_that_the_tests_read() -> None:
    tools = ROOT / "tools"
    code = "import json, test; print(json.dumps(test.SOURCES))"
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=tools, capture_output=True, check=True
    )
    assert CONFIGURATION["tool"]["cibuildwheel"]["test-sources"] == json.loads(printed.stdout)


def test_the_workflow_installs_pinned_tools_only() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8")
    commands = re.findall(r"pip install (.*)", text)
    assert len(commands) == 3
    installed = set()
    for command in commands:
        options, file, *names = shlex.split(command)
        assert (options, file) == ("--constraint", "tools/release.txt")
        installed |= {name.partition("[")[0] for name in names}
    assert installed <= pins("release.txt").keys()
    recipes = (ROOT / "Makefile").read_text("utf-8")
    assert "-r tools/release.txt" in recipes


def test_only_publishing_may_do_more_than_read() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "docs.yml", "release.yml"]
    publishing = {
        "docs.yml": {"pages": "write", "id-token": "write"},
        "release.yml": {"id-token": "write"},
    }
    for path in WORKFLOWS:
        content = workflow(path.name)
        assert content["permissions"] == {}, path.name
        for name, job in content["jobs"].items():
            allowed = publishing[path.name] if name == "publish" else {"contents": "read"}
            assert job["permissions"] == allowed, f"{path.name}: {name}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned(path: Path) -> None:
    text = path.read_text("utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_builds_are_of_pinned_tools() -> None:
    wanted = {"cython", "setuptools"}
    lines = (ROOT / "tools" / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert {line.partition("==")[0] for line in pinned} == wanted
    required = CONFIGURATION["build-system"]["requires"]
    assert {re.split(r"[>=]", line)[0] for line in required} == wanted
    environment = CONFIGURATION["tool"]["cibuildwheel"]["environment"]
    assert (ROOT / environment["PIP_CONSTRAINT"]).is_file()


def pins(name: str) -> dict[str, str]:
    """Read the versions from a file of constraints in tools/."""
    lines = (ROOT / "tools" / name).read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return dict(pairs)


def test_hooks_and_make_lint_use_the_same_versions() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    pinned = pins("lint.txt")
    used = {}
    for hook in [hook for repo in config["repos"] for hook in repo["hooks"]]:
        name = hook["entry"].split()[0]
        if hook["language"] == "system":
            # What `make lint` installed.
            used[name.removeprefix(".venv/bin/")] = None
        elif name != "python":
            (dependency,) = hook["additional_dependencies"]
            assert dependency == f"{name}=={pinned[name]}"
            used[name] = pinned[name]
    assert used == pinned | {"mypy": None}
    recipes = (ROOT / "Makefile").read_text("utf-8")
    assert "--constraint tools/lint.txt -e '.[dev]'" in recipes


def test_pinned_tools_are_dependencies() -> None:
    extras = CONFIGURATION["project"]["optional-dependencies"]
    bounds = {re.split(r"[>=;\[ ]", line)[0] for line in (*extras["dev"], *extras["wheels"])}
    assert pins("lint.txt").keys() | pins("release.txt").keys() <= bounds


def test_a_bug_report_needs_what_fastws_info_prints() -> None:
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml"
    fields = {field.get("id"): field for field in yaml.safe_load(path.read_text("utf-8"))["body"]}
    assert "`fastws info --json`" in fields["info"]["attributes"]["label"]
    assert fields["info"]["validations"] == {"required": True}


def test_no_classifier_is_listed_twice() -> None:
    classifiers = CONFIGURATION["project"]["classifiers"]
    assert len(set(classifiers)) == len(classifiers)


# A set of files --------------------------------------------------------------------------------


def release() -> list[Path]:
    """Return the names of all files of a release."""
    tags = {
        "manylinux_x86_64": "manylinux2014_x86_64.manylinux_2_17_x86_64",
        "manylinux_aarch64": "manylinux_2_17_aarch64.manylinux2014_aarch64",
        # auditwheel adds the tags of the oldest glibc that a wheel fits.
        "manylinux_i686": "manylinux1_i686.manylinux2014_i686.manylinux_2_17_i686",
        "manylinux_armv7l": "manylinux2014_armv7l.manylinux_2_17_armv7l.manylinux_2_31_armv7l",
        "manylinux_riscv64": "manylinux_2_31_riscv64.manylinux_2_39_riscv64",
        "macosx_x86_64": "macosx_10_13_x86_64",
        "macosx_arm64": "macosx_11_0_arm64",
        "win_amd64": "win_amd64",
        "win_arm64": "win_arm64",
    }
    names = [f"fastws_codec-{VERSION}.tar.gz", f"fastws_codec-{VERSION}-py3-none-any.whl"]
    for platform in check.PLATFORMS:
        libc, _, cpu = platform.partition("_")
        usual = {"musllinux": f"musllinux_1_2_{cpu}"}
        usual["manylinux"] = f"manylinux2014_{cpu}.manylinux_2_17_{cpu}"
        tag = tags.get(platform) or usual[libc]
        names += [
            f"fastws_codec-{VERSION}-{abi.removesuffix('t')}-{abi}-{tag}.whl"
            for abi in check.PYTHONS
        ]
    return [Path(name) for name in names]


def test_a_release_is_complete() -> None:
    assert len(release()) == 128
    check.check_complete(release())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files[1:], "missing: sdist"),
        (lambda files: [*files[:1], *files[2:]], "missing: pure"),
        (lambda files: files[:-1], "missing: cp315t-musllinux_riscv64"),
        (lambda files: [*files, files[2]], "there twice: cp311-manylinux_x86_64"),
        (
            lambda files: [*files, Path(f"fastws_codec-{VERSION}-cp310-cp310-win_amd64.whl")],
            "not wanted: cp310-win_amd64",
        ),
        (
            lambda files: [*files, Path(f"fastws_codec-{VERSION}-cp312-cp312-linux_x86_64.whl")],
            "not a platform that is built for",
        ),
        (
            lambda files: [
                *files,
                Path(f"fastws_codec-{VERSION}-cp312-cp312-manylinux_2_34_x86_64.whl"),
            ],
            "not a platform that is built for",
        ),
        (
            lambda files: [
                *files,
                Path(f"fastws_codec-{VERSION}-cp312-cp312-manylinux_2_17_loongarch64.whl"),
            ],
            "not a platform that is built for",
        ),
    ],
)
def test_what_is_missing_or_too_much_is_named(
    change: Callable[[list[Path]], list[Path]], message: str
) -> None:
    with pytest.raises(check.BadFile, match=message):
        check.check_complete(change(release()))


@pytest.mark.parametrize(
    "name", ["fastws-1.0-py3-none-any.whl", "fastws-1.0.tar.gz", "fastws-codec-1.0.tar.gz"]
)
def test_the_name_is_ours(tmp_path: Path, name: str) -> None:
    with pytest.raises(check.BadFile, match=f"{name}: not a name that begins with fastws_codec-"):
        check.check([tmp_path / name])


def test_the_name_is_that_of_pyproject() -> None:
    assert CONFIGURATION["project"]["name"] == check.NAME == "fastws-codec"


def test_versions_are_not_mixed(tmp_path: Path) -> None:
    files = [tmp_path / "fastws_codec-1.0-py3-none-any.whl", tmp_path / "fastws_codec-1.1.tar.gz"]
    with pytest.raises(check.BadFile, match=r"more than one version: 1\.0, 1\.1"):
        check.check(files)


# A wheel ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pure wheel, built from a copy of the sources."""
    place = tmp_path_factory.mktemp("pure")
    tree = place / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    ignore = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.egg-info")
    for name in ("src", "tools"):
        shutil.copytree(ROOT / name, tree / name, ignore=ignore)
    code = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env=os.environ | {"FASTWS_EXT": "no"},
        capture_output=True,
        check=True,
    )
    (wheel,) = place.glob("*.whl")
    return wheel


def changed(wheel: Path, name: str, change: Callable[[zipfile.ZipFile], object]) -> Path:
    copy = wheel.parent / "changed" / name
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(wheel, copy)
    with zipfile.ZipFile(copy, "a") as archive:
        change(archive)
    return copy


def test_a_good_wheel_is_good(pure: Path) -> None:
    check.check([pure])


def test_a_wheel_says_what_is_in_it(pure: Path) -> None:
    with zipfile.ZipFile(pure) as archive:
        bill = json.loads(
            archive.read(f"fastws_codec-{VERSION}.dist-info/sboms/fastws-codec.cdx.json")
        )
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    component = bill["metadata"]["component"]
    assert component["name"] == "fastws-codec"
    assert component["purl"] == f"pkg:pypi/fastws-codec@{VERSION}"
    assert component["licenses"] == [{"license": {"id": "MIT"}}]
    assert bill["components"] == []  # only what we wrote


def test_a_pure_wheel_has_no_extension(pure: Path) -> None:
    wheel = changed(pure, pure.name, lambda archive: archive.writestr("fastws/_c/wire.so", b""))
    with pytest.raises(check.BadFile, match=r"has fastws/_c/wire\.so"):
        check.check_wheel(wheel)


def test_a_wheel_for_a_platform_has_the_extension(pure: Path) -> None:
    name = f"fastws_codec-{VERSION}-cp312-cp312-win_amd64.whl"
    with pytest.raises(check.BadFile, match="has no extension"):
        check.check_wheel(changed(pure, name, lambda _: None))


def test_a_wheel_is_small(pure: Path) -> None:
    wheel = changed(
        pure, pure.name, lambda archive: archive.writestr("fastws/a", os.urandom(check.MAX_SIZE))
    )
    with pytest.raises(check.BadFile, match=f"{check.MAX_SIZE:,} are allowed"):
        check.check_wheel(wheel)


@pytest.mark.skipif(sys.platform != "linux", reason="makes libraries for Linux")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], None),
        (["-g"], "debugging information"),
        (["-Wl,-rpath,/opt/python/lib"], "looks for libraries in its own places"),
        (["-Wl,--no-as-needed", "-ldl", "-lpthread", "-lz"], "needs libz"),
    ],
    ids=["good", "debug", "rpath", "library"],
)
def test_libraries_tell_nothing_of_where_they_were_made(
    tmp_path: Path, options: list[str], message: str | None
) -> None:
    source, library = tmp_path / "a.c", tmp_path / "a.so"
    source.write_text("int one(void) { return 1; }\n")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library, *options], check=True)
    if message is None:
        check.check_elf("a.so", library.read_bytes())
    else:
        with pytest.raises(check.BadFile, match=message):
            check.check_elf("a.so", library.read_bytes())
