"""Hosts in URIs: names, IPv4 and IPv6 addresses, as browsers read them.

This module knows which host a browser looks up for what a URI says, and how it writes the host in
Host. It does not know URIs, and looks up no name.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final
from unicodedata import bidirectional

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["is_ipv4_like", "parse_ipv6", "parse_name"]

# At most 253 characters, and a dot (RFC 1035 §2.3.4).
_NAME = re.compile(r"(?=.{1,253}\.?$)[a-z0-9._-]+")
_DIGITS: Final = "0123456789abcdef"


def parse_name(name: str) -> str:
    """Return a host name in ASCII, or the IPv4 address that the name is.

    This is the host parser of browsers (https://url.spec.whatwg.org/#concept-host-parser), which
    reads 127.1 and 0x7f000001 as 127.0.0.1. Unlike it, this allows only letters, digits, "-", "_"
    and "." in a name, and the lengths that DNS allows. International names are converted as by
    UTS #46 if the library idna is there, otherwise by IDNA 2003.

    Args:
        name: the name, in Unicode or ASCII, not percent-encoded.

    Raises:
        ValueError: if this is not a host. The message does not quote it.
    """
    try:
        # The codec turns other names into those of IDNA 2003, and checks the labels of all.
        ascii_name = _to_idna_2008(name).encode("idna").decode("ascii").lower()
    except UnicodeError:  # which may quote the name
        raise ValueError("not a host name") from None
    # Check this last: normalisation turns some characters into a slash or a question mark.
    if not _NAME.fullmatch(ascii_name):
        raise ValueError("not a host name")
    return _parse_ipv4(ascii_name) if is_ipv4_like(ascii_name) else ascii_name


def parse_ipv6(text: str) -> str:
    """Return an IPv6 address in its shortest form (RFC 5952 §4), no part of it written as IPv4.

    Args:
        text: the address, without brackets and without a zone.

    Raises:
        ValueError: if this is not an IPv6 address.
    """
    address = IPv6Address(text)
    if address.ipv4_mapped is None:
        return address.compressed
    # Python 3.13 began to write the end of these as IPv4.
    high, low = divmod(int(address) & 0xFFFF_FFFF, 0x1_0000)
    return f"::ffff:{high:x}:{low:x}"


def is_ipv4_like(name: str) -> bool:
    """Return whether a name in lower case is an IPv4 address to browsers, or a wrong one.

    No other name ends in a number (https://url.spec.whatwg.org/#ends-in-a-number-checker).
    """
    last = name.removesuffix(".").rpartition(".")[2]
    return last.isdigit() or (last.startswith("0x") and not last[2:].strip(_DIGITS))


def _parse_ipv4(name: str) -> str:
    """https://url.spec.whatwg.org/#concept-ipv4-parser"""
    *numbers, last = map(_parse_number, name.removesuffix(".").split("."))
    free = 4 - len(numbers)  # the last number fills the bytes that remain
    if free < 1 or any(number > 255 for number in numbers) or last >= 256**free:
        raise ValueError("not an IPv4 address")
    return str(IPv4Address(bytes(numbers) + last.to_bytes(free, "big")))


def _parse_number(text: str) -> int:
    base = 10
    if text.startswith("0x"):
        base, text = 16, text[2:] or "0"
    elif text.startswith("0"):
        base = 8
    if text.strip(_DIGITS[:base]):
        raise ValueError("not an IPv4 address")
    return int(text, base)


def _to_idna_2008(name: str) -> str:
    """Return the name that browsers look up: UTS #46, not transitional, in ASCII.

    This needs the library idna; without it, and for names in ASCII that are not encoded, return
    the name unchanged.
    """
    if name.isascii() and "xn--" not in name.lower():
        return name
    try:
        import idna
    except ImportError:
        return name
    # https://url.spec.whatwg.org/#concept-domain-to-ascii. It allows more than IDNA 2008, such as
    # symbols, which idna.encode refuses.
    labels = idna.uts46_remap(name, std3_rules=False, transitional=False).split(".")
    _encode_labels(labels, idna)
    return ".".join(labels)


def _encode_labels(labels: list[str], idna: ModuleType) -> None:
    """Encode labels in place, and check them and those that are encoded already."""
    decoded = [_decode_label(label, idna) for label in labels]
    is_bidi = any(bidirectional(char) in ("R", "AL", "AN") for label in decoded for char in label)
    for index, label in enumerate(decoded):
        if is_bidi and label:
            idna.check_bidi(label, check_ltr=True)
        if label.isascii():
            continue
        idna.check_initial_combiner(label)
        for position, char in enumerate(label):
            if char in "\u200c\u200d" and not idna.valid_contextj(label, position):
                raise ValueError("not a host name")
        labels[index] = "xn--" + label.encode("punycode").decode("ascii")


def _decode_label(label: str, idna: ModuleType) -> str:
    if not label.startswith("xn--"):
        return label
    decoded = label[4:].encode("ascii").decode("punycode")
    # UTS #46 §4, step 4: a label that did not have to be encoded is wrong, too.
    if decoded.isascii() or idna.uts46_remap(decoded, std3_rules=False) != decoded:
        raise ValueError("not a host name")
    return decoded
