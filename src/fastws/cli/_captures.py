"""Captured bytes: as they are, in hexadecimal, or as packets in a file of pcap or pcapng.

This module knows these formats, and how to put TCP segments in order. It does not know what the
bytes mean. Wireshark's tshark does the same for packets if it is installed; only it can read TLS.
"""

from __future__ import annotations

import ast
import re
import struct
import subprocess
import warnings
from shutil import which
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Chunk", "Flow", "find_format", "from_hex", "from_packets", "from_tshark", "has_tshark"]

_PCAP: Final = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\x4d\x3c\xb2\xa1": "<",
}
_PCAPNG: Final = b"\x0a\x0d\x0d\x0a"
# How far ahead of a missing segment we look, in segments, before we believe that it was not
# captured.
_MAX_AHEAD: Final = 4096

_HEX: Final = re.compile(r"(?:0x|\\x|[\s:,])*((?:[0-9A-Fa-f]{2}(?:0x|\\x|[\s:,])*)*)")
# A line that xxd, `hexdump -C` or Wireshark print: an offset, bytes, and the bytes as text.
_DUMP: Final = re.compile(r"\s*([0-9A-Fa-f]{4,16})(?::?\s+(.*))?")


class Chunk(NamedTuple):
    """Bytes of a connection.

    Attributes:
        from_first: whether the end that spoke first sent them.
        data: the bytes; none if some were not captured, after which nothing more follows.
    """

    from_first: bool
    data: bytes


class Flow(NamedTuple):
    """A TCP connection.

    Attributes:
        first: the address of the end that opened the connection, or spoke first.
        second: the address of the other.
        chunks: what they sent, in order.
    """

    first: str
    second: str
    chunks: list[Chunk]


def find_format(data: bytes) -> str:
    """Return "pcap", "hex" or "raw"."""
    if data[:4] in _PCAP or data[:4] == _PCAPNG:
        return "pcap"
    try:
        from_hex(data.decode("ascii"))
    except ValueError:
        return "raw"
    return "hex"


# Hexadecimal ----------------------------------------------------------------------------


def from_hex(text: str) -> bytes:
    r"""Return the bytes of `81 85…`, `0x81, 0x85`, `\x81\x85`, of a literal such as `b"\x81\x85"`
    or of a dump by xxd, `hexdump -C` or Wireshark.

    Raises:
        ValueError: if it is something else, or nothing.
    """
    text = text.strip()
    if re.match(r"[bB]['\"]", text):
        try:
            with warnings.catch_warnings(action="ignore"):
                literal = ast.literal_eval(text)
        except (SyntaxError, ValueError, MemoryError, RecursionError):  # nested too deeply
            raise ValueError("not a literal of bytes") from None
        if isinstance(literal, bytes) and literal:
            return literal
    dump = _from_dump([line for line in text.splitlines() if line.strip()])
    if dump:
        return dump
    match = _HEX.fullmatch(text)
    if match is None or not match[1]:
        raise ValueError("not hexadecimal")
    return bytes.fromhex(re.sub(r"0x|\\x|[\s:,]", "", match[1]))


def _from_dump(lines: list[str]) -> bytes | None:
    """Return the bytes of a dump, in which each line begins with the number of bytes before it;
    None if this is not one."""
    data = b""
    for line in lines:
        match = _DUMP.fullmatch(line)
        if match is None or int(match[1], 16) != len(data):
            return None
        octets = match[2] or ""
        # The text is between bars, or after two spaces.
        bars = re.fullmatch(r"(.*?)\s+\|.{,16}\|", octets)
        octets = bars[1] if bars else re.split(r"\s{2}", octets)[0]
        try:
            data += bytes.fromhex(octets)
        except ValueError:
            return None
    return data


# Packets --------------------------------------------------------------------------------


def from_packets(data: bytes, on_cut: Callable[[], object] | None = None) -> list[Flow]:
    """Return the TCP connections in a file of pcap or pcapng.

    Args:
        data: the file.
        on_cut: called if the file ends in the middle of a packet, and there are others before.

    Raises:
        ValueError: if the file is malformed, or its packets are of an unknown kind.
    """
    connections: list[_Connection] = []
    current: dict[tuple[bytes, bytes], _Connection] = {}
    count = 0
    try:
        for link, packet in _packets(data):
            count += 1
            segment = _segment(link, packet)
            if segment is None:
                continue
            key = (segment.source, segment.target)
            if segment.opens:  # perhaps on the ports of a connection that has ended
                current.pop(key, None)
                current.pop(key[::-1], None)
            connection = current.get(key) or current.get(key[::-1])
            if connection is None:
                if not segment.opens and not segment.data:
                    continue
                connection = current[key] = _Connection(segment.source, segment.target)
                connections.append(connection)
            connection.add(segment)
    except (struct.error, IndexError, _CutError) as exc:
        if not count or not isinstance(exc, _CutError):
            raise ValueError("the capture is damaged, or ends too early") from None
        if on_cut is not None:
            on_cut()
    flows = [connection.flow() for connection in connections]
    return [flow for flow in flows if flow.chunks]


class _CutError(Exception):
    """The file ends in the middle of something."""


class _Segment(NamedTuple):
    source: bytes  # address and port
    target: bytes
    sequence: int
    opens: bool  # SYN without ACK
    is_syn: bool
    data: bytes


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type of the link, and the packet.

    Raises:
        _CutError: if the file ends in the middle of a packet.
    """
    if data[:4] != _PCAPNG:
        order = _PCAP[data[:4]]
        link = struct.unpack_from(order + "I", data, 20)[0] & 0x0FFF_FFFF
        position = 24
        while position < len(data):
            if position + 16 > len(data):
                raise _CutError
            (size,) = struct.unpack_from(order + "I", data, position + 8)
            position += 16
            if position + size > len(data):
                raise _CutError
            yield link, data[position : position + size]
            position += size
        return
    position, order, links = 0, "<", list[int]()
    while position < len(data):
        if data[position : position + 4] == _PCAPNG:  # a section
            order = ">" if data[position + 8 : position + 12] == b"\x1a\x2b\x3c\x4d" else "<"
            links = []
        if position + 12 > len(data):
            raise _CutError
        kind, size = struct.unpack_from(order + "II", data, position)
        if size < 12:
            raise IndexError
        if position + size > len(data):
            raise _CutError
        block = data[position + 8 : position + size - 4]
        if kind == 1:  # an interface
            links.append(struct.unpack_from(order + "H", block)[0])
        elif kind == 6:  # a packet
            interface, _, _, captured = struct.unpack_from(order + "IIII", block)
            yield links[interface], block[20 : 20 + captured]
        elif kind == 3:  # a packet of the first interface, without a time
            yield links[0], block[4:]
        position += size


def _segment(link: int, packet: bytes) -> _Segment | None:
    """Return what a packet contains of TCP; None if it is something else."""
    ip = _network_layer(link, packet)
    if not ip:
        return None
    match ip[0] >> 4:
        case 4:
            if ip[9] != 6 or int.from_bytes(ip[6:8], "big") & 0x1FFF:
                return None
            # The size is 0 if the network card divides the packet later.
            end = int.from_bytes(ip[2:4], "big") or len(ip)
            addresses, tcp = (ip[12:16], ip[16:20]), ip[(ip[0] & 15) * 4 : end]
        case 6:
            if ip[6] != 6:  # extension headers are rare, and tshark knows them
                return None
            size = int.from_bytes(ip[4:6], "big")
            addresses, tcp = (ip[8:24], ip[24:40]), ip[40 : 40 + size] if size else ip[40:]
        case _:
            return None
    flags = tcp[13]
    return _Segment(
        addresses[0] + tcp[0:2],
        addresses[1] + tcp[2:4],
        int.from_bytes(tcp[4:8], "big"),
        flags & 0x12 == 0x02,
        flags & 0x02 != 0,
        tcp[(tcp[12] >> 4) * 4 :],
    )


def _network_layer(link: int, packet: bytes) -> bytes:
    """Return the IP packet; nothing if it is something else."""
    match link:
        case 0 | 108:  # loopback of BSD
            return packet[4:]
        case 1:  # Ethernet
            position = 12
            while packet[position : position + 2] in (b"\x81\x00", b"\x88\xa8"):  # VLAN
                position += 4
            is_ip = packet[position : position + 2] in (b"\x08\x00", b"\x86\xdd")
            return packet[position + 2 :] if is_ip else b""
        case 12 | 14 | 101 | 228 | 229:  # IP
            return packet
        case 113:  # Linux, any interface
            return packet[16:] if packet[14:16] in (b"\x08\x00", b"\x86\xdd") else b""
        case 276:
            return packet[20:] if packet[0:2] in (b"\x08\x00", b"\x86\xdd") else b""
        case _:
            raise ValueError(f"packets of link type {link}, which only tshark can read")


class _Connection:
    """The segments of a connection, put in order."""

    def __init__(self, first: bytes, second: bytes) -> None:
        self._ends = first, second
        self._chunks: list[Chunk] = []
        self._next: dict[bytes, int] = {}
        self._ahead: dict[bytes, dict[int, bytes]] = {first: {}, second: {}}
        self._lost: set[bytes] = set()

    def add(self, segment: _Segment) -> None:
        source = segment.source
        if segment.is_syn:
            self._next[source] = (segment.sequence + 1) % 2**32
            return
        if not segment.data or source in self._lost:
            return
        self._next.setdefault(source, segment.sequence)
        ahead = self._ahead[source]
        if len(segment.data) > len(ahead.get(segment.sequence, b"")):
            ahead[segment.sequence] = segment.data
        if self._distance(source, segment.sequence) <= 0:
            self._take(source)
        elif len(ahead) > _MAX_AHEAD:
            self._lose(source)

    def _take(self, source: bytes) -> None:
        """Take what is in order."""
        ahead = self._ahead[source]
        again = True
        while again:
            again = False
            for sequence in sorted(ahead, key=lambda number: self._distance(source, number)):
                distance = self._distance(source, sequence)
                if distance > 0:
                    break
                data = ahead.pop(sequence)[-distance:] if distance else ahead.pop(sequence)
                if data:
                    self._chunks.append(Chunk(source == self._ends[0], data))
                    self._next[source] = (self._next[source] + len(data)) % 2**32
                    again = True

    def _distance(self, source: bytes, sequence: int) -> int:
        """Return how far a segment is ahead; it is negative if it came before."""
        return (sequence - self._next[source] + 2**31) % 2**32 - 2**31

    def _lose(self, source: bytes) -> None:
        self._ahead[source].clear()
        self._lost.add(source)
        self._chunks.append(Chunk(source == self._ends[0], b""))

    def flow(self) -> Flow:
        for source in self._ends:
            if source not in self._lost:
                self._take(source)
                if self._ahead[source]:
                    self._lose(source)
        first, second = map(_address, self._ends)
        return Flow(first, second, self._chunks)


def _address(end: bytes) -> str:
    from ipaddress import ip_address

    address, port = ip_address(end[:-2]), int.from_bytes(end[-2:], "big")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


# tshark ---------------------------------------------------------------------------------


def has_tshark() -> bool:
    """Return whether tshark is installed."""
    return which("tshark") is not None


def from_tshark(
    path: str, keys: str | None = None, on_cut: Callable[[], object] | None = None
) -> list[Flow]:
    """Return the connections in a file, as tshark finds them.

    Args:
        path: a file of any format that tshark can read.
        keys: a file with TLS keys, as SSLKEYLOGFILE names it.
        on_cut: called if the file ends in the middle of a packet, and there are others before.

    Raises:
        OSError: if tshark cannot be run.
        ValueError: if it cannot read the file.
    """
    command = ["tshark", "-n", "-r", path]
    if keys is not None:
        command += ["-o", f"tls.keylog_file:{keys}"]
    fields = [*command, "-Y", "tcp", "-T", "fields", "-e", "tcp.stream"]
    listing, is_cut = _tshark(fields)
    if is_cut and on_cut is not None:
        on_cut()
    flows = []
    for number in sorted({int(line) for line in listing.split()}):
        layer = "tcp" if keys is None else "tls"
        output, _ = _tshark([*command, "-q", "-z", f"follow,{layer},raw,{number}"])
        flow = _followed(output)
        if flow.chunks:
            flows.append(flow)
    return flows


def _tshark(command: list[str]) -> tuple[str, bool]:
    """Return what tshark prints, and whether the file ends in the middle of a packet."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - no shell
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        if done.stdout.strip() and lines and "cut short in the middle of a packet" in lines[-1]:
            return done.stdout, True
        raise ValueError(lines[-1] if lines else f"tshark ended with status {done.returncode}")
    return done.stdout, False


def _followed(output: str) -> Flow:
    """Parse what `tshark -z follow,tcp,raw,N` prints: bytes in hexadecimal, a chunk on each line;
    the chunks of the second end begin with a tab."""
    ends = ["", ""]
    chunks = []
    for line in output.splitlines():
        if match := re.match(r"Node ([01]): (.*)", line):
            ends[int(match[1])] = match[2]
        elif match := re.fullmatch(r"(\t?)((?:[0-9a-f]{2})+)", line):
            chunks.append(Chunk(not match[1], bytes.fromhex(match[2])))
    return Flow(ends[0], ends[1], chunks)
