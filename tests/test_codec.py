"""Tests how `codec` chooses a twin (twins.md), each time in a fresh interpreter."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from fastws import Role, codec

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace

COMPILED = find_spec("fastws._c.messages") is not None

# Like a source distribution without its extension.
HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("fastws._c."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
"""
CHOICE = """
from fastws import Role, codec
print(codec.implementation, codec.kernel)
"""


def python(
    code: str, impl: str | None, kernel: str | None = None
) -> subprocess.CompletedProcess[str]:
    environ = dict(os.environ)
    for name, value in (("FASTWS_IMPL", impl), ("FASTWS_KERNEL", kernel)):
        environ.pop(name, None)
        if value is not None:
            environ[name] = value
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )


def choice(code: str, impl: str | None, kernel: str | None = None) -> str:
    run = python(code, impl, kernel)
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


def refusal(code: str, impl: str, kernel: str | None = None) -> str:
    run = python(code, impl, kernel)
    assert run.returncode == 1
    assert run.stdout == ""
    return run.stderr.strip().splitlines()[-1]


def test_twin_that_is_asked_for_is_taken(twin: SimpleNamespace) -> None:
    assert choice(CHOICE, twin.name).split()[0] == twin.name


def test_pure_python_says_that_it_is_the_kernel() -> None:
    assert choice(CHOICE, "py") == "py python"


@pytest.mark.parametrize("impl", [None, ""], ids=["unset", "empty"])
def test_accelerated_twin_is_taken_if_it_is_there(impl: str | None) -> None:
    assert choice(CHOICE, impl).split()[0] == ("c" if COMPILED else "py")


@pytest.mark.parametrize("impl", [None, "", "py"], ids=["unset", "empty", "py"])
def test_without_the_extension_pure_python_is_taken(impl: str | None) -> None:
    assert choice(HIDE + CHOICE, impl) == "py python"


def test_extension_that_is_asked_for_and_missing_is_an_error() -> None:
    words = "ImportError: FASTWS_IMPL=c, but fastws._c is not compiled"
    assert refusal(HIDE + CHOICE, "c") == words


def test_extension_that_is_asked_for_and_refuses_is_an_error_that_says_why() -> None:
    refuse = HIDE.replace(
        'ModuleNotFoundError(f"No module named {name!r}", name=name)',
        'ImportError("wrong ELF class", name=name)',
    )
    assert refuse != HIDE
    assert choice(refuse + CHOICE, None) == "py python"
    words = "ImportError: FASTWS_IMPL=c, but fastws._c cannot be imported: wrong ELF class"
    assert refusal(refuse + CHOICE, "c") == words


def test_kernel_that_is_asked_for_is_taken() -> None:
    assert choice(CHOICE, "py", "python") == "py python"
    if COMPILED:
        names = import_module("fastws._c.kernel").available()
        assert names[-1] == "scalar"
        assert choice(CHOICE, "c", "") == choice(CHOICE, "c", None) == f"c {names[0]}"
        for name in names:
            assert choice(CHOICE, "c", name) == choice(CHOICE, None, name) == f"c {name}"


def test_kernel_that_is_not_there_is_an_error() -> None:
    words = "ImportError: FASTWS_KERNEL='avx2', but this is the pure-Python twin"
    assert refusal(CHOICE, "py", "avx2") == words
    if COMPILED:
        names = ", ".join(import_module("fastws._c.kernel").available())
        words = f"ImportError: FASTWS_KERNEL: kernel must be one of {names}, not 'mmx'"
        assert refusal(CHOICE, "c", "mmx") == words


@pytest.mark.parametrize("impl", ["C", "python", "1"])
def test_unknown_twin_is_an_error(impl: str) -> None:
    assert refusal(CHOICE, impl) == f"ImportError: FASTWS_IMPL must be c or py, not {impl!r}"


def test_all_names_come_from_the_twin_that_was_taken() -> None:
    names = set(codec.__all__) - {"implementation", "kernel"}
    modules = [
        import_module(f"fastws._{codec.implementation}.{name}")
        for name in ("masking", "utf8", "frames", "messages")
    ]
    assert names == {name for module in modules for name in module.__all__}
    for module in modules:
        for name in module.__all__:
            assert getattr(codec, name) is getattr(module, name)


@pytest.mark.parametrize("protocol", ["0", "pickle.HIGHEST_PROTOCOL"])
def test_frame_pickled_under_one_twin_is_loaded_under_the_other(
    twin: SimpleNamespace, protocol: str
) -> None:
    dump = f"""
import pickle
from fastws.codec import Frame
frame = Frame(2, bytes(9), False, rsv2=True)
print(pickle.dumps(frame, {protocol}).hex())
"""
    load = """
import pickle
from fastws.codec import Frame, implementation
frame = pickle.loads(bytes.fromhex("{}"))
assert type(frame) is Frame and Frame.__module__ == f"fastws._{{implementation}}.frames"
print(implementation, frame)
"""
    for source, target in (("py", twin.name), (twin.name, "py")):
        loaded = choice(load.format(choice(dump, source)), target)
        text = f"Frame(Opcode.BINARY, {bytes(9)!r}, fin=False, rsv2=True)"
        assert loaded == f"{target} {text}"


IO_MODULES = ("asyncio", "ssl", "socket", "logging", "random")
LOADED = f"""
import sys
print(*sorted({{*{IO_MODULES}}} & set(sys.modules)))
"""
# The package's __init__ imports everything: leave it out to see what a module itself needs.
PACKAGE_ONLY = """
import importlib.util, sys
spec = importlib.util.find_spec("fastws")
sys.modules["fastws"] = importlib.util.module_from_spec(spec)
"""


def test_importing_the_codec_brings_neither_asyncio_nor_ssl(twin: SimpleNamespace) -> None:
    loaded = choice("import fastws.codec" + LOADED, twin.name).split()
    assert not {"asyncio", "ssl"} & set(loaded)


def test_codec_by_itself_needs_no_module_that_does_io(twin: SimpleNamespace) -> None:
    assert choice(PACKAGE_ONLY + "import fastws.codec" + LOADED, twin.name) == ""


def test_cython_is_for_building_only(twin: SimpleNamespace) -> None:
    """Even of a source that is compiled and interpreted, and has a statement to import it."""
    seen = "import sys, fastws.connection; print({'cython', 'Cython'} & set(sys.modules))"
    assert choice(seen, twin.name) == "set()"


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, pickle.dumps])
@pytest.mark.parametrize(
    "make",
    [
        lambda twin: twin.MessageDecoder(masked=True),
        lambda twin: twin.MessageEncoder(),
        lambda twin: twin.FrameDecoder(masked=True),
        lambda twin: twin.Utf8Validator(),
        lambda twin: twin.Connection(Role.SERVER, twin.MessageDecoder(masked=True)),
    ],
    ids=[
        "MessageDecoder",
        "MessageEncoder",
        "FrameDecoder",
        "Utf8Validator",
        "Connection",
    ],
)
def test_what_is_in_the_middle_of_a_stream_is_not_copied(
    twin: SimpleNamespace, make: Callable[[SimpleNamespace], object], copier: Callable[..., object]
) -> None:
    with pytest.raises(TypeError, match=r"cannot copy or pickle '\w+' object: it has state"):
        copier(make(twin))
