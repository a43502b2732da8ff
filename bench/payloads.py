"""The data of the cases: payloads of every kind and size, and streams of them.

Everything is derived from fixed seeds: two runs, of any revisions, read the same bytes.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module

READ = 64 << 10  # the size of one read from a socket
KEY = b"\x12\x34\x56\x78"
SIZES = [8, 16, 125, 1 << 10, 16 << 10, 64 << 10, 1 << 20, 16 << 20]
TEXTS = ["ascii", "latin", "cjk", "emoji", "json"]
KINDS = ["binary", *TEXTS]

VOLUME = 1 << 20  # bytes of payload that a case processes at once,
MOST = 4096  # but not more messages than this

_BLOCK = 256 << 10  # characters; more than a branch predictor can memorize

_ENGLISH = "the quick brown fox jumps over a lazy dog while we wait for it"
# Without the French letters outside Latin-1, which would make it another kind of text.
_FRENCH = (
    "le café où l'été dernier nous étions allés à pied était fermé ; la fenêtre, entrouverte, "
    "laissait voir un garçon naïf qui rêvait déjà de la forêt et des châteaux d'Anjou"
)
_CHINESE = "网络套接字编解码器消息帧的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出。"
_EMOJI = "😀😂🥰😎🤔🙈🚀🌍🔥💯🎉🧩🦊🐙🌶🍕"


def size_name(size: int) -> str:
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def count(size: int) -> int:
    """The number of messages of this size that a case processes at once."""
    return max(1, min(MOST, VOLUME // size))


@lru_cache(32)
def payload(kind: str, size: int, number: int = 0) -> bytes:
    """Return `size` bytes, different for each number; if text, complete characters padded with
    spaces."""
    if kind == "binary":
        return random.Random(size).randbytes(size)
    block = _block(kind)
    start = number * size % len(block)
    cut = (block[start:] + block * (size // len(block) + 1))[:size]
    return cut.decode(errors="ignore").encode().ljust(size)


@lru_cache
def _block(kind: str) -> bytes:
    rng = random.Random(kind)
    if kind == "ascii":
        text = " ".join(rng.choices(_ENGLISH.split(), k=_BLOCK // 4))
    elif kind == "latin":
        text = " ".join(rng.choices(_FRENCH.split(), k=_BLOCK // 4))
    elif kind == "cjk":
        text = "".join(rng.choices(_CHINESE, k=_BLOCK))
    elif kind == "emoji":
        text = "".join(rng.choices(_EMOJI, k=_BLOCK))
    else:
        text = json.dumps([_record(rng) for _ in range(_BLOCK // 128)], ensure_ascii=False)
    return text.encode()


def _record(rng: random.Random) -> dict[str, object]:
    """An entry of a chat log: keys in ASCII, values in any characters."""
    said = [" ".join(rng.choices(words.split(), k=6)) for words in (_ENGLISH, _FRENCH)]
    said += ["".join(rng.choices(letters, k=8)) for letters in (_CHINESE, _EMOJI)]
    return {
        "id": rng.randrange(1 << 32),
        "user": rng.choice(_ENGLISH.split()),
        "text": rng.choice([said[0], *said]),
        "score": round(rng.random(), 3),
        "seen": rng.random() < 0.5,
    }


@dataclass(frozen=True)
class Stream:
    """Messages as a client sends them, masked, in one frame each.

    Attributes:
        data: the whole stream.
        reads: the same stream as it is read, in pieces of 64 KiB.
        size: the size of each payload, in bytes.
        last: the last payload, unmasked. (Each text is different, because a CPU learns to
            predict what it reads repeatedly.)
        count: the number of messages.
        header: the number of bytes before each payload.
    """

    kind: str
    data: bytes
    reads: list[bytes]
    size: int
    last: bytes
    count: int
    header: int

    def ends(self) -> list[tuple[list[int], list[int]]]:
        """Return where payloads begin and end in the data, grouped by read."""
        size = self.size
        step = self.header + size
        starts = list(range(self.header, len(self.data) + 1, step))[: self.count]
        together = max(1, READ // step)
        groups = [starts[i : i + together] for i in range(0, len(starts), together)]
        return [(group, [start + size for start in group]) for group in groups]

    def cut(self, together: int) -> Stream:
        """Return the same stream, with so many messages in each read."""
        step = together * (self.header + self.size)
        reads = [self.data[i : i + step] for i in range(0, len(self.data), step)]
        return replace(self, reads=reads)


@lru_cache(4)
def stream(kind: str, size: int) -> Stream:
    spec = import_module("fastws.spec")
    encode_frame = import_module("fastws.codec").encode_frame
    opcode = spec.Opcode.BINARY if kind == "binary" else spec.Opcode.TEXT
    messages = count(size)
    contents = [payload(kind, size, number) for number in range(messages)]
    frames = [encode_frame(opcode, content, key=KEY) for content in contents]
    data = b"".join(frames)
    reads = [data[i : i + READ] for i in range(0, len(data), READ)]
    return Stream(kind, data, reads, size, contents[-1], messages, len(frames[0]) - size)
