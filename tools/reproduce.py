"""Build the files of a directory again, from its sdist, and compare the bytes.

    python tools/reproduce.py [dist]

The second build happens in another directory, at another time, in a process with another umask,
hash seed, time zone and language. Every wheel must be the same to the last byte. The sdist is
packed again from the checkout, which must still be the same source.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import build

UNLIKE = {"PYTHONHASHSEED": "4711", "TZ": "Pacific/Auckland", "LC_ALL": "C"}


def main() -> int:
    # Python reads these variables when it starts.
    if any(os.environ.get(name) != value for name, value in UNLIKE.items()):
        os.umask(0o077)
        command = [sys.executable, *sys.argv]
        return subprocess.run(command, env=os.environ | UNLIKE, check=False).returncode
    dist = Path(sys.argv[1] if len(sys.argv) > 1 else build.ROOT / "dist")
    (sdist,) = dist.glob("*.tar.gz")
    tags = {wheel.name.split("-")[2] for wheel in dist.glob("*.whl")}
    pythons = [python for python in build.find_pythons() if build.tag_of(python) in tags]
    with tempfile.TemporaryDirectory(prefix="again-") as name:
        again = Path(name) / "in" / "another" / "place"
        build.build(sdist, again, pythons)
        packed = build.build_sdist(build.ROOT, Path(name))
        different = 0
        for old in sorted({*dist.glob("*.tar.gz"), *dist.glob("*.whl")}):
            new = packed if old == sdist else again / old.name
            same = digest(old) == digest(new)
            different += not same
            print(f"{'same' if same else 'DIFFERENT':9}  {digest(old)[:16]}  {old.name}")
        return different


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
