"""The targets of fastws, and whether a run's results reach them.

This module knows the targets; each one describes what was measured for it. Figures are only
meaningful on a machine that does nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from .payloads import SIZES, size_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .results import Results

KIB, MIB = 1 << 10, 1 << 20
BEYOND_ASCII = ["latin", "cjk", "emoji", "json"]
PURE = "fastws-py"
CALLBACK, COROUTINE = "fastws-callback", "fastws-coroutine"
LOOPS = ["", "-uvloop"]


@dataclass(frozen=True)
class Check:
    """One figure and its target.

    Attributes:
        value: the figure; None if it was not measured.
        bound: the target, a minimum or a maximum.
        note: additional information.
    """

    text: str
    value: float | None
    bound: float
    unit: str = "x"
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        bound = f"{'≤' if self.at_most else '≥'} {self.bound:g} {self.unit}"
        value = "not measured" if self.value is None else f"{self.value:.3g} {self.unit}"
        verdict = {None: "-", True: "yes", False: "NO"}[self.met]
        return f"{self.text:<62}{bound:>12}{value:>15}  {verdict:<4}{self.note}".rstrip()


def checks(results: Results) -> Iterator[Check]:
    yield from _decode(results)
    yield from _utf8(results)
    yield from _mask(results)
    yield from _encode(results)
    yield from _echo(results)
    yield from _session(results)
    yield from _handshakes(results)
    yield from _fanout(results)
    yield from _contest(results)
    yield from _client(results)
    yield from _memory(results)
    yield from _pure(results)


def ratio(slower: float | None, faster: float | None) -> float | None:
    return slower / faster if slower and faster else None


def fastest(times: dict[str, float]) -> tuple[str, float | None]:
    return min(times.items(), key=lambda item: item[1]) if times else ("", None)


def _decode(results: Results) -> Iterator[Check]:
    def ns(size: int, who: str) -> float | None:
        return results.ns("decode", size, "binary", who)

    best = results.best
    yield Check("decode 16 B, masked", ns(16, best), 40, "ns", at_most=True)
    for peer, bound in (("picows", 10), ("websockets", 60), ("wsproto", 200)):
        yield Check(f"decode 16 B, to {peer}", ratio(ns(16, peer), ns(16, best)), bound)
    for size in (16 * KIB, MIB):
        who, peer = fastest(results.peers("decode", size, "binary"))
        name = f"decode {size_name(size)} binary"
        yield Check(f"{name}, to the best peer", ratio(peer, ns(size, best)), 5, note=who)
        share = ratio(ns(size, best), ns(size, "memcpy"))
        yield Check(f"{name}, to one memcpy", share, 1.3, at_most=True)
    for kind in BEYOND_ASCII:
        values = {
            size: ratio(
                results.ns("decode", size, kind, "unmask+bytes.decode"),
                results.ns("decode", size, kind, best),
            )
            for size in SIZES
            if size >= KIB
        }
        known = {size: value for size, value in values.items() if value}
        worst = min(known, key=known.__getitem__, default=None)
        yield Check(
            f"decode {kind} from 1 KiB on, to unmask and bytes.decode",
            known.get(worst),
            2.5,
            note=f"the least: {size_name(worst)}" if worst else "",
        )


def _utf8(results: Results) -> Iterator[Check]:
    for kind in ["ascii", *BEYOND_ASCII]:
        size = 64 * KIB
        ns = results.ns("validate", size, kind, results.best)
        name = f"validate {kind}, {size_name(size)}"
        speed = size / ns if ns else None  # bytes per ns are GB per s
        yield Check(name, speed, 40 if kind == "ascii" else 10, "GB/s")
        for peer in ("wsaccel", "nvx"):
            value = ratio(results.ns("validate", size, kind, peer), ns)
            yield Check(f"{name}, to {peer}", value, 25)


def _mask(results: Results) -> Iterator[Check]:
    def ns(size: int, who: str) -> float | None:
        return results.ns("mask in place", size, "", who)

    best = results.best
    yield Check("mask 8 B in place", ns(8, best), 45, "ns", at_most=True)
    # numpy makes a pass over memory in place. The cost of the call is not part of the pass, for
    # numpy or for us, and with 16 bytes there is little but the call.
    size = 64 * KIB
    passes: dict[str, float] = {}
    for who in ("numpy", best):
        whole, call = ns(size, who), ns(16, who)
        if whole and call:
            passes[who] = whole - call
    share = ratio(passes.get("numpy"), passes.get(best))
    with_calls = ratio(ns(size, "numpy"), ns(size, best))
    yield Check(
        "mask 64 KiB in place, to numpy.bitwise_xor(…, out=itself)",
        share and 100 * share,
        95,
        "%",
        note=f"with what the calls take {100 * with_calls:.0f} %" if with_calls else "",
    )


def _encode(results: Results) -> Iterator[Check]:
    for role, size, bound in (("server", 16, 40), ("client", 125, 70)):
        ns = results.ns(f"encode {role}", size, "binary", results.best)
        yield Check(f"encode {size} B as a {role}, in a batch", ns, bound, "ns", at_most=True)


def _echo(results: Results) -> Iterator[Check]:
    def loop_name(loop: str) -> str:
        return "uvloop" if loop else "asyncio"

    for workload, bound in (("50x16x32", 10), ("50x1x125", 1)):
        for loop, transports in product(LOOPS, ("", "-aiofastnet")):  # picows provides the latter
            value = ratio(
                results.rate(workload, CALLBACK + loop + transports),
                results.rate(workload, "picows" + loop),
            )
            name = f"echo {workload}, to picows, {loop_name(loop)}"
            needed = 1.05 if transports and bound == 1 else bound
            yield Check(f"{name}{transports.replace('-', ' and ')}", value, needed)
    for workload, loop in product(("4x2x1M", "4x2x1M-binary"), LOOPS):
        value = ratio(
            results.rate(workload, CALLBACK + loop), results.rate(workload, "picows" + loop)
        )
        yield Check(f"echo {workload}, to picows, {loop_name(loop)}", value, 1)
    value = ratio(
        results.rate("50x16x32", f"{CALLBACK}-uvloop-aiofastnet"),
        results.rate("50x16x32", "uwebsockets"),
    )
    yield Check("echo 50x16x32, to uWebSockets (C++), uvloop and aiofastnet", value, 0.8)
    for workload in ("10x4x16K", "4x2x1M-binary"):
        for loop in LOOPS:
            value = ratio(results.rate(workload, CALLBACK + loop), results.rate(workload, "beast"))
            yield Check(f"echo {workload}, to Beast (C++), {loop_name(loop)}", value, 1)


def _session(results: Results) -> Iterator[Check]:
    bounds = {"session": 1, "session of 16": 2.5}
    for (operation, bound), kind in product(bounds.items(), ("binary", "ascii")):
        value = ratio(
            results.ns(operation, 32, kind, "websockets"),
            results.ns(operation, 32, kind, results.best),
        )
        yield Check(f"{operation}, {kind}, to websockets", value, bound)


def _handshakes(results: Results) -> Iterator[Check]:
    for workload, loop in product(("handshakes-20", "tls-handshakes-20"), LOOPS):
        value = ratio(
            results.rate(workload, CALLBACK + loop), results.rate(workload, "picows" + loop)
        )
        yield Check(f"{workload}, to picows, {'uvloop' if loop else 'asyncio'}", value, 1)
    value = ratio(
        results.rate("handshakes-20", "fastws-uvicorn"),
        results.rate("handshakes-20", "uvicorn-websockets"),
    )
    yield Check("handshakes-20, in uvicorn to its own class", value, 1)


def _fanout(results: Results) -> Iterator[Check]:
    for workload, loop in product(("turns-1000x100", "rounds-1000x100"), LOOPS):
        name = f"{workload}, {'uvloop' if loop else 'asyncio'}, prepared"
        prepared = results.rate(workload, f"fastws-prepare{loop}")
        for who, peer, bound in (
            ("send", f"fastws-send{loop}", 0.97),  # not slower, but for noise
            ("picows", f"picows{loop}", 1),
            ("uWebSockets (C++)", "uwebsockets", 0.9),
        ):
            yield Check(f"{name} to {who}", ratio(prepared, results.rate(workload, peer)), bound)


def _contest(results: Results) -> Iterator[Check]:
    for workload in ("contest-8x2500", "contest-16x1000", "contest-32x500"):
        ours = results.rate(workload, "fastws-uvicorn-uvloop")
        for who, bound in (("uvicorn-websockets-uvloop", 2), ("granian-rsgi", 1)):
            value = ratio(ours, results.rate(workload, who))
            yield Check(f"{workload}, fastws in uvicorn to {who}", value, bound)


def _client(results: Results) -> Iterator[Check]:
    for size, loop in product((256, 8 * KIB, 100_000), LOOPS):
        rate = results.client_rate
        name = f"client {size} B, {'uvloop' if loop else 'asyncio'}"
        for transports in ("", "-aiofastnet"):
            value = ratio(rate(CALLBACK + loop + transports, size), rate("picows" + loop, size))
            yield Check(f"{name}{transports.replace('-', ' and ')}, callbacks to picows", value, 1)
        for peer in ("websockets", "aiohttp"):
            value = ratio(rate(COROUTINE + loop, size), rate(peer + loop, size))
            yield Check(f"{name}, coroutine to {peer}", value, 1.3)


def _memory(results: Results) -> Iterator[Check]:
    for who, bound in ((CALLBACK, 4), (COROUTINE, 6)):
        yield Check(f"idle {who}", results.memory(who), bound, "KiB", at_most=True)


def _pure(results: Results) -> Iterator[Check]:
    operations = [("decode", kind) for kind in ("binary", "ascii", "cjk")]
    operations += [(f"encode {role}", "binary") for role in ("server", "client")]
    operations += [("echo", kind) for kind in ("binary", "ascii")]
    for (operation, kind), peer in product(operations, ("websockets-py", "wsproto")):
        known = {
            size: value
            for size in SIZES
            if (
                value := ratio(
                    results.ns(operation, size, kind, peer),
                    results.ns(operation, size, kind, PURE),
                )
            )
        }
        worst = min(known, key=known.__getitem__, default=None)
        yield Check(
            f"pure Python, {operation} {kind}, to {peer}",
            known.get(worst),
            1,
            note=f"the least: {size_name(worst)}" if worst else "",
        )


def report(results: Results) -> str:
    found = list(checks(results))
    met = [check.met for check in found]
    summary = (
        f"{met.count(True)} of {len(met)} figures are as they should be, "
        f"{met.count(False)} are not, {met.count(None)} were not measured"
    )
    head = f"{'target':<62}{'':>12}{'measured':>15}"
    return "\n".join([head, *map(str, found), summary])
