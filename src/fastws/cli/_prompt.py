"""Lines that are typed with history and editing, over prompt-toolkit.

This module knows prompt-toolkit. It does not know what the lines mean. What is printed meanwhile
appears above the line that is being typed.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["typed_lines"]


@contextmanager
def typed_lines() -> Iterator[AsyncIterator[str]]:
    """Provide the lines that are typed, until Ctrl-D."""
    with patch_stdout():
        yield _lines()


async def _lines() -> AsyncIterator[str]:
    # The history ends with the program: what is typed may be secret.
    session: PromptSession[str] = PromptSession("> ")
    while True:
        try:
            line = await session.prompt_async()
        except EOFError:
            return
        except KeyboardInterrupt:
            # The terminal sends no signal for Ctrl-C while a line is edited.
            signal.raise_signal(signal.SIGINT)
            return
        yield line
