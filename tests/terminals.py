"""`fastws` commands on terminals of their own."""

from __future__ import annotations

import codecs
import os
import select
import struct
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from .tools import FASTWS, TIMEOUT

with suppress(ImportError):  # on Windows
    import fcntl
    import termios

# A shell with one job, which it resumes when a line is typed.
SHELL = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
settings = termios.tcgetattr(0)
def start():
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
job = subprocess.Popen(sys.argv[1:], preexec_fn=start)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpid())
print("STOPPED" if os.WIFSTOPPED(status) else status, flush=True)
sys.stdin.readline()
print("RESUMED", flush=True)
os.tcsetpgrp(0, job.pid)
os.kill(job.pid, signal.SIGCONT)
_, status = os.waitpid(job.pid, 0)
os.tcsetpgrp(0, os.getpid())
print("ENDED", status, flush=True)
"""


class Terminal:
    """A `fastws` command on a terminal of its own.

    Args:
        setup: what to do with the terminal before, in Python.
        shell: whether it is the job of a shell.
        kind: what the terminal can do, as TERM names it.
    """

    def __init__(
        self, *args: str, setup: str = "", shell: bool = False, kind: str = "dumb"
    ) -> None:
        self._seen = ""
        self.before = ""  # the output before the text that was expected last
        # Input and output may be interleaved in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._fd, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        # Keep it open, so that its settings can be read after the end.
        self._terminal = terminal
        # os.login_tty(), which PyPy does not have.
        code = (
            "import fcntl, os, signal, sys, termios, tty; os.setsid();"
            "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
            # Who runs the tests may ignore some, as nohup does.
            "[signal.signal(number, 0) for number in (1, 2, 3)];"
            f"{setup or 'pass'};"
            "os.dup2(0, 1); os.dup2(0, 2); os.execv(sys.executable, sys.argv[1:])"
        )
        command = [*FASTWS, *args]
        if shell:
            command = [sys.executable, "-c", SHELL, *command]
        environ = os.environ | {"PYTHONIOENCODING": "utf-8", "TERM": kind}
        # Nobody answers what it asks the terminal.
        environ["PROMPT_TOOLKIT_NO_CPR"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *command], stdin=terminal, env=environ
        )

    @property
    def settings(self) -> list[Any]:
        settings: list[Any] = termios.tcgetattr(self._terminal)
        return settings

    @property
    def is_canonical(self) -> bool:
        return bool(self.settings[3] & termios.ICANON)

    def expect_settings(self, *, canonical: bool) -> None:
        deadline = time.monotonic() + TIMEOUT
        while self.is_canonical is not canonical:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def type(self, text: str) -> None:
        """Type, and read the output meanwhile, as terminals do."""
        data = text.encode()
        while data:
            self._read_what_is_there()
            _, ready, _ = select.select([], [self._fd], [], 0.01)
            if ready:
                data = data[os.write(self._fd, data[:1024]) :]

    def type_blindly(self, text: str) -> None:
        """Type, and do not read the output."""
        data = text.encode()
        while data:
            data = data[os.write(self._fd, data) :]

    def _read_what_is_there(self) -> None:
        while select.select([self._fd], [], [], 0)[0]:
            self._seen += self._decoder.decode(os.read(self._fd, 4096))

    def expect(self, text: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while text not in self._seen:
            ready, _, _ = select.select([self._fd], [], [], max(0, deadline - time.monotonic()))
            assert ready, self._seen
            self._seen += self._decoder.decode(os.read(self._fd, 4096))
        self.before, _, self._seen = self._seen.partition(text)

    def expect_end(self) -> None:
        """Read the rest of the output into `before`."""
        self._read_what_is_there()
        self.before, self._seen = self._seen, ""

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(TIMEOUT)

    def hang_up(self) -> None:
        """Have the terminal go away."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        self._process.kill()
        self.wait()
        self.hang_up()
        os.close(self._terminal)
