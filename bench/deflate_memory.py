"""The memory cost of compression per connection: the table in docs/explanation/compression.md.

    python bench/deflate_memory.py [--connections N]

Each row is measured in a process of its own: N server connections that each have received and
sent enough compressed messages to fill their windows, minus the memory of N connections that
have done the same without compression.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from fastws import Connection, PerMessageDeflate, Role

ROWS = [
    (True, 15, 15, 8),
    (True, 12, 15, 5),  # the default
    (True, 12, 12, 8),
    (True, 12, 12, 5),
    (True, 10, 10, 4),
    (True, 9, 9, 1),
    (False, 15, 15, 8),
    (False, 12, 12, 5),
]


def rss() -> int:
    """Resident memory of this process, in bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def measure(count: int, config: PerMessageDeflate | None) -> float:
    """Bytes for each connection that has been used and is now idle."""
    words = [f"word{i} " for i in range(2000)]
    rng = random.Random(1)
    messages = ["".join(rng.choices(words, k=1000)) for _ in range(10)]
    client_agreed = server_agreed = None
    if config is not None:
        accepted = config.accept_offer(config.offers()[0])
        assert accepted is not None
        params, server_agreed = accepted
        client_agreed = config.accept_response(params)
    client = Connection(Role.CLIENT, deflate=client_agreed)
    for message in messages:
        client.send(message)
    stream = client.data_to_send()

    def use() -> Connection:
        server = Connection(Role.SERVER, deflate=server_agreed)
        events = server.receive_data(stream)
        while server.has_pending:
            events += server.receive_data(b"")
        assert events == messages
        for message in messages:
            server.send(message)
        server.data_to_send()
        return server

    use()
    gc.collect()
    before = rss()
    connections = [use() for _ in range(count)]
    gc.collect()
    return (rss() - before) / len(connections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row is not None:
        takeover, bits, peer_bits, level = json.loads(args.row)
        config = None
        if bits:
            config = PerMessageDeflate(
                context_takeover=takeover,
                peer_context_takeover=takeover,
                max_window_bits=bits,
                peer_max_window_bits=peer_bits,
                mem_level=level,
            )
        print(measure(args.connections, config))
        return

    def row(*values: object) -> float:
        command = [sys.executable, __file__, "--connections", str(args.connections)]
        return float(subprocess.check_output([*command, "--row", json.dumps(values)]))

    plain = row(False, 0, 0, 0)
    print("| context takeover | window bits | the peer's | mem_level | KiB for each connection |")
    print("|---|---|---|---|---|")
    for takeover, bits, peer_bits, level in ROWS:
        extra = (row(takeover, bits, peer_bits, level) - plain) / 1024
        kept = "yes" if takeover else "no"
        print(f"| {kept} | {bits} | {peer_bits} | {level} | {extra:.1f} |")


if __name__ == "__main__":
    main()
