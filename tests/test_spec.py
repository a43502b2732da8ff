"""Tests `fastws.spec` against RFC 6455 §5.2, §7.4 and the documented defaults."""

from __future__ import annotations

import pytest

from fastws import spec
from fastws.spec import CloseCode, Opcode, Role, may_travel


def test_opcodes_are_those_of_rfc_6455() -> None:
    assert {opcode.name: opcode.value for opcode in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


def test_close_codes_are_those_of_the_registry() -> None:
    assert {code.name: code.value for code in CloseCode} == {
        "NORMAL_CLOSURE": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "UNSUPPORTED_DATA": 1003,
        "NO_STATUS_RCVD": 1005,
        "ABNORMAL_CLOSURE": 1006,
        "INVALID_PAYLOAD": 1007,
        "POLICY_VIOLATION": 1008,
        "MESSAGE_TOO_BIG": 1009,
        "MANDATORY_EXTENSION": 1010,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
        "BAD_GATEWAY": 1014,
        "TLS_HANDSHAKE": 1015,
    }


def test_there_are_two_roles() -> None:
    assert [role.name for role in Role] == ["SERVER", "CLIENT"]
    assert Role.SERVER != Role.CLIENT


def test_the_first_header_byte_is_made_of_fin_rsv_and_opcode() -> None:
    bits = [spec.FIN, spec.RSV1, spec.RSV2, spec.RSV3, spec.OPCODE_BITS]
    assert bits == [0x80, 0x40, 0x20, 0x10, 0x0F]
    assert spec.RSV_BITS == 0x70
    assert [op for op in Opcode if op & spec.CONTROL_BIT] == [0x8, 0x9, 0xA]


def test_the_second_header_byte_is_made_of_mask_and_length() -> None:
    assert (spec.MASK, spec.LENGTH_BITS) == (0x80, 0x7F)
    assert (spec.LENGTH_16, spec.LENGTH_64) == (126, 127)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MASK_KEY_SIZE", 4),
        ("MAX_CONTROL_PAYLOAD", 125),
        ("MAX_CLOSE_REASON", 123),
        ("MAX_16_BIT_LENGTH", 65535),
        ("MAX_PAYLOAD", 2**63 - 1),
        ("DEFAULT_MAX_MESSAGE_SIZE", 1024 * 1024),
        ("DEFAULT_MAX_FRAGMENTS", 4096),
        ("DEFAULT_MAX_HEADER_SIZE", 16 * 1024),
        ("DEFAULT_OPEN_TIMEOUT", 10),
        ("DEFAULT_CLOSE_TIMEOUT", 10),
        ("DEFAULT_PING_INTERVAL", 20),
        ("DEFAULT_PING_TIMEOUT", 20),
    ],
)
def test_size_or_default(name: str, value: float) -> None:
    assert getattr(spec, name) == value


def test_which_close_codes_may_travel() -> None:
    refused = {*range(1000), 1004, 1005, 1006, *range(1015, 3000), *range(5000, 65536)}
    assert {code for code in range(65536) if not may_travel(code)} == refused


@pytest.mark.parametrize("code", [-1, 2**16 + 1000, 2**70])
def test_a_close_code_that_has_not_16_bits_may_not_travel(code: int) -> None:
    assert not may_travel(code)


def test_normal_close_codes() -> None:
    assert sorted(spec.NORMAL_CLOSE_CODES) == [1000, 1001, 1005]
