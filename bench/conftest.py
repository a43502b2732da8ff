"""How the cases of the codec are measured, and which of them a short run includes."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest

from .contenders import BEST, PURE, use_kernel
from .payloads import size_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .contenders import Call, Contender

QUICK_SIZES = {8, 16, 125, 1 << 10, 16 << 10, 64 << 10, 1 << 20}
QUICK_KINDS = {"binary", "ascii", "cjk", "json"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastws")
    group.addoption(
        "--bench-seconds",
        type=float,
        default=0.1,
        help="Measure each case for so long, or once if once takes longer. Default: %(default)s",
    )
    group.addoption(
        "--bench-quick",
        action="store_true",
        help="Leave out some sizes, kinds of payload, and the kernels that are not the best.",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seconds = config.getoption("--bench-seconds")
    for item in items:
        item.add_marker(pytest.mark.benchmark(max_time=seconds, min_rounds=3))
    if not config.getoption("--bench-quick"):
        return
    left_out = [item for item in items if not _is_quick(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _is_quick(item: pytest.Item) -> bool:
    params = getattr(getattr(item, "callspec", None), "params", {})
    name = str(params.get("who", BEST))
    return (
        params.get("size", 16) in QUICK_SIZES
        and params.get("kind", "binary") in QUICK_KINDS
        and (not name.startswith("fastws-") or name in (BEST, PURE))
    )


@pytest.fixture(scope="session", autouse=True)
def kept_memory() -> list[bytes]:
    """Have CPython keep memory for small objects, of about 16 MiB.

    It gives an arena of 1 MiB back as soon as nothing is left in it. A case that needs one more
    than it has would get and lose it in each round, and take twice as long for that: which case
    this is depends on those before it.
    """
    return [bytes(400) for _ in range((16 << 20) // 448)][::1000]


@pytest.fixture(autouse=True)
def best_kernel() -> Iterator[None]:
    yield
    use_kernel()


@pytest.fixture
def made() -> Callable[..., Call]:
    """Creates a contender's call, or skips the case and says why."""

    def make(who: Contender, *args: Any) -> Call:
        if who.missing:
            pytest.skip(f"missing: {who.missing}")
        call = who.make(*args)
        if call is None:
            pytest.skip("not for this one")
        return call

    return make


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Measures a call, which processes several messages; returns its first result."""

    def run(
        operation: str, who: Contender, call: Call, *, messages: int, size: int, kind: str = ""
    ) -> Any:
        # Not earlier: skipped cases must not need it.
        benchmark = request.getfixturevalue("benchmark")
        words = [operation, size_name(size) if size else "", kind]
        benchmark.group = " ".join(filter(None, words))
        benchmark.extra_info.update(
            operation=operation,
            size=size,
            kind=kind,
            who=who.name,
            reference=who.reference,
            messages=messages,
        )
        begin = perf_counter()
        result = call()
        if perf_counter() - begin > request.config.getoption("--bench-seconds"):
            benchmark.pedantic(call, rounds=1)
        else:
            benchmark(call)
        if overhead := getattr(call, "overhead", None):
            benchmark.extra_info["overhead_ns"] = overhead()
        return result

    return run
