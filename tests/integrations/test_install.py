"""What all integrations share, tested with a made-up host."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from importlib import import_module
from types import ModuleType

import pytest

from fastws import integrations
from fastws.integrations._install import Host, Installation, IntegrationError, UntestedHostWarning

from ..tools import TIMEOUT, run


class Codec:
    def mask(self) -> str:
        return "theirs"

    @staticmethod
    def name() -> str:
        return "theirs"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("anyhost")
    module.mask = lambda: "theirs"
    monkeypatch.setattr("fastws.integrations._install.version", lambda name: "2.4.1rc1")
    return module


HOST = Host("any-host", ("2.0", "3"), module="anyhost")


def fine() -> None:
    pass


def test_installs_and_uninstalls(module: ModuleType) -> None:
    theirs = module.mask
    checked = []
    handle = HOST.install(lambda to: to.replace(module, "mask", ours), lambda: checked.append(1))
    assert checked == [1]
    assert handle.active
    assert integrations.installed() == ["any-host"]
    assert repr(handle) == "<fastws in any-host 2.4.1rc1, active>"
    assert module.mask() == "ours"
    handle.uninstall()
    assert module.mask is theirs
    assert not handle.active
    assert integrations.installed() == []
    handle.uninstall()


def ours(*_: object) -> str:
    return "ours"


def test_is_idempotent(module: ModuleType) -> None:
    def patch(to: Installation) -> None:
        assert to.replace(module, "mask", ours) is not ours

    with HOST.install(patch, fine) as handle:
        assert HOST.install(patch, fine) is handle
    assert module.mask() == "theirs"
    # ... and can be installed again.
    with HOST.install(patch, fine) as again:
        assert again is not handle
        handle.uninstall()
        assert module.mask() == "ours"


# Several users at a time ----------------------------------------------------------------


def put(module: ModuleType) -> Installation:
    return HOST.install(lambda to: to.replace(module, "mask", ours), fine)


def test_an_inner_block_leaves_the_outer_one_alone(module: ModuleType) -> None:
    with put(module) as outer:
        for _ in range(2):
            with put(module) as inner:
                assert module.mask() == "ours"
                with put(module):
                    pass
                assert inner.active
            assert outer.active
            assert module.mask() == "ours"
            assert integrations.installed() == ["any-host"]
    assert not outer.active
    assert module.mask() == "theirs"
    assert integrations.installed() == []


def test_a_block_leaves_alone_what_was_installed_before(module: ModuleType) -> None:
    handle = put(module)
    with put(module):
        pass
    assert module.mask() == "ours"
    with pytest.raises(ZeroDivisionError), put(module):
        raise ZeroDivisionError
    assert module.mask() == "ours"
    handle.uninstall()
    assert module.mask() == "theirs"


def test_a_handle_may_be_entered_twice(module: ModuleType) -> None:
    handle = put(module)
    with handle:
        with handle:
            pass
        assert module.mask() == "ours"
    assert module.mask() == "theirs"


def test_each_uninstall_takes_back_one_install(module: ModuleType) -> None:
    outer, inner = put(module), put(module)
    inner.uninstall()
    assert module.mask() == "ours"
    assert outer.active
    outer.uninstall()
    assert module.mask() == "theirs"
    for handle in (outer, inner):
        handle.uninstall()
        assert not handle.active
    with put(module):
        inner.uninstall()  # from before
        put(module).uninstall()
        assert module.mask() == "ours"
    assert module.mask() == "theirs"


def test_blocks_may_end_in_any_order(module: ModuleType) -> None:
    first, second = ExitStack(), ExitStack()
    first.enter_context(put(module))
    second.enter_context(put(module))
    first.close()
    assert module.mask() == "ours"
    second.close()
    assert module.mask() == "theirs"


def test_blocks_may_begin_in_any_order(module: ModuleType) -> None:
    # As in threads, where another thread may run between `install` and the block.
    first, second = put(module), put(module)
    with second:
        with first:
            pass
        assert module.mask() == "ours"
    assert module.mask() == "theirs"
    first, second = put(module), put(module)
    with second:
        pass
    assert module.mask() == "ours"
    with first:
        pass
    assert module.mask() == "theirs"


def test_a_block_may_uninstall_what_is_its_own(module: ModuleType) -> None:
    with put(module) as handle:
        handle.uninstall()
        assert module.mask() == "theirs"
        with put(module) as other:
            pass
        assert not other.active
    with put(module) as outer:
        with put(module) as inner:
            inner.uninstall()
        assert outer.active
    assert module.mask() == "theirs"


def test_blocks_in_threads(module: ModuleType) -> None:
    seen: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait(TIMEOUT)
        for _ in range(200):
            with put(module):
                seen.append(module.mask())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert seen == ["ours"] * 800
    assert module.mask() == "theirs"
    assert integrations.installed() == []


def test_what_is_released_stays_until_somebody_uninstalls_it(module: ModuleType) -> None:
    put(module).release()
    assert integrations.installed() == ["any-host"]
    put(module).uninstall()
    assert module.mask() == "theirs"


def test_tells_what_is_replaced(module: ModuleType) -> None:
    def patch(to: Installation) -> None:
        to.replace(module, "mask", ours)
        to.replace(Codec, "name", staticmethod(ours))

    with HOST.install(patch, fine) as handle:
        assert handle.replaced == ["anyhost.mask", f"{__name__}.Codec.name"]
    assert handle.replaced == []


def test_undoes_everything_if_it_is_interrupted(module: ModuleType) -> None:
    def check() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HOST.install(lambda to: to.replace(module, "mask", ours), check)
    assert module.mask() == "theirs"
    assert integrations.installed() == []


@pytest.mark.parametrize(
    "name",
    ["aiohttp", "autobahn", "gunicorn", "tornado", "websocket_client", "websockets", "wsproto"],
)
def test_blocks_nest_in_every_host(name: str) -> None:
    integration = import_module(f"fastws.integrations.{name}")
    with integration.install() as outer:
        replaced = outer.replaced
        with integration.install():
            pass
        assert outer.active
        assert outer.replaced == replaced
    assert integrations.installed() == []


# What is replaced -------------------------------------------------------------------------


def test_replaces_methods_as_they_are(module: ModuleType) -> None:
    with HOST.install(lambda to: to.replace(Codec, "name", staticmethod(ours)), fine):
        assert Codec.name() == Codec().name() == "ours"
    assert isinstance(vars(Codec)["name"], staticmethod)


def test_does_not_replace_what_is_inherited(module: ModuleType) -> None:
    class Child(Codec):
        pass

    with pytest.raises(IntegrationError, match="has no mask"):
        HOST.install(lambda to: to.replace(Child, "mask", ours), fine)


def test_undoes_everything_if_the_check_fails(module: ModuleType) -> None:
    def patch(to: Installation) -> None:
        to.replace(module, "mask", ours)
        to.replace(Codec, "mask", ours)

    def check() -> None:
        raise AssertionError("it is wrong")

    message = r"fastws does not work in any-host 2\.4\.1rc1: AssertionError\('it is wrong'\)"
    with pytest.raises(IntegrationError, match=message):
        HOST.install(patch, check)
    assert module.mask() == Codec().mask() == "theirs"
    assert integrations.installed() == []


def test_leaves_the_patches_of_others(module: ModuleType) -> None:
    handle = HOST.install(lambda to: to.replace(module, "mask", ours), fine)
    module.mask = lambda: "somebody's"
    with pytest.warns(RuntimeWarning, match="is left alone"):
        handle.uninstall()
    assert module.mask() == "somebody's"


@pytest.mark.parametrize("found", ["1.9.9", "3", "3.0.0", "10.1", "unknown"])
def test_refuses_what_was_not_tested(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr("fastws.integrations._install.version", lambda name: found)
    with pytest.warns(UntestedHostWarning, match=rf"any-host {found}, .* 2\.0 .* 3"):
        handle = HOST.install(lambda to: to.replace(module, "mask", ours), fine)
    assert not handle.active
    assert module.mask() == "theirs"
    handle.uninstall()
    with pytest.warns(UntestedHostWarning):
        handle = HOST.install(lambda to: to.replace(module, "mask", ours), fine, untested=True)
    assert handle.active
    assert module.mask() == "ours"
    handle.uninstall()


@pytest.mark.parametrize("found", ["2", "2.0", "2.0.0", "2.99.1", "2.5.dev1"])
def test_takes_what_was_tested(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    monkeypatch.setattr("fastws.integrations._install.version", lambda name: found)
    with HOST.install(lambda to: None, fine) as handle:
        assert handle.active


def test_says_that_the_host_is_missing() -> None:
    with pytest.raises(ImportError, match=r"integrations\.anyhost needs any-host, which is not"):
        HOST.install(lambda to: None, fine)


@pytest.mark.parametrize(
    ("module", "host", "distribution"),
    [
        ("aiohttp", "aiohttp", "aiohttp"),
        ("autobahn", "autobahn", "autobahn"),
        ("gunicorn", "gunicorn", "gunicorn"),
        ("tornado", "tornado", "tornado"),
        ("uvicorn", "uvicorn", "uvicorn"),
        ("websocket_client", "websocket", "websocket-client"),
        ("websockets", "websockets", "websockets"),
        ("wsproto", "wsproto", "wsproto"),
    ],
)
def test_each_says_that_its_host_is_missing(module: str, host: str, distribution: str) -> None:
    script = f"import sys; sys.modules[{host!r}] = None; import fastws.integrations.{module}"
    ran = run(sys.executable, "-c", script)
    message = f"fastws.integrations.{module} needs {distribution}, which is not installed"
    assert ran.stderr.splitlines()[-1] == f"ImportError: {message}"


def test_import_patches_and_imports_nothing() -> None:
    hosts = "websockets wsproto uvicorn gunicorn websocket autobahn tornado aiohttp"
    script = (
        "import sys, fastws, fastws.integrations\n"
        f"assert not sys.modules.keys() & set({hosts!r}.split())"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
