"""Where the payloads of `pub` and `rr` come from: an argument, a file or standard input."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from holdfast.cli.client_run import is_open
from holdfast.errors import UsageError

__all__ = ["PAYLOAD_BYTES_MAX", "PayloadOptions", "input_lines", "single_payload"]

PAYLOAD_BYTES_MAX: Final = 268_435_455  # no packet is longer
READ_BYTES: Final = 65_536
PANEL: Final = "Message"


@dataclass(frozen=True, slots=True)
class PayloadOptions:
    """What the payload is; exactly one of them."""

    message: Annotated[
        str | None,
        typer.Option(
            *("-m", "--message"), metavar="TEXT", rich_help_panel=PANEL, help="The payload."
        ),
    ] = None
    file: Annotated[
        str | None,
        typer.Option(
            *("-f", "--file"),
            metavar="FILE",
            rich_help_panel=PANEL,
            help="The payload is the content of this file; - is standard input.",
        ),
    ] = None
    stdin_file: Annotated[
        bool,
        typer.Option(
            *("-s", "--stdin-file"),
            rich_help_panel=PANEL,
            help="The payload is all of standard input.",
            show_default=False,
        ),
    ] = False
    null_message: Annotated[
        bool,
        typer.Option(
            *("-n", "--null-message"),
            rich_help_panel=PANEL,
            help="An empty payload; with -r it removes the retained message.",
            show_default=False,
        ),
    ] = False

    @property
    def count(self) -> int:
        """How many of them are given."""
        is_text, is_file = self.message is not None, self.file is not None
        return is_text + is_file + self.stdin_file + self.null_message


def single_payload(options: PayloadOptions) -> bytes:
    """The payload of one message. Raises UsageError for a file that cannot be read."""
    if options.message is not None:
        return os.fsencode(options.message)
    if options.null_message:
        return b""
    if options.stdin_file or options.file == "-":
        payload = is_open(sys.stdin, "input").buffer.read(PAYLOAD_BYTES_MAX + 1)
        name = "standard input"
    else:
        assert options.file is not None
        name = options.file
        try:
            with open(options.file, "rb") as file:
                payload = file.read(PAYLOAD_BYTES_MAX + 1)
        except OSError as error:
            raise UsageError(f"-f {options.file}: cannot be read: {error.strerror}") from None
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise UsageError(f"{name}: expected at most {PAYLOAD_BYTES_MAX} bytes for one message")
    return payload


def input_lines() -> AsyncIterator[list[bytes]]:
    """The lines of standard input without their ends: at a time, those that are there.

    The last one counts without an end too. Raises UsageError if there is no standard input.
    """
    return _lines(is_open(sys.stdin, "input").fileno())


async def _lines(descriptor: int) -> AsyncIterator[list[bytes]]:
    begun: list[bytes] = []  # of the line that has no end yet
    size = 0
    while chunk := await _read(descriptor):
        first, *lines = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if size > PAYLOAD_BYTES_MAX:
            raise UsageError(f"expected lines of at most {PAYLOAD_BYTES_MAX} bytes")
        if lines:
            rest = lines.pop()
            yield [b"".join(begun), *lines]
            begun, size = [rest], len(rest)
    if size > 0:
        yield [b"".join(begun)]


async def _read(descriptor: int) -> bytes:
    """The next bytes of a file, a pipe or a terminal, of which only the last two are waited for.

    No thread reads: one that waits for a terminal would hold up the end of the process.
    """
    loop = asyncio.get_running_loop()
    is_ready = asyncio.Event()
    try:
        loop.add_reader(descriptor, is_ready.set)
    except PermissionError:  # a file is always ready, and cannot be watched
        await asyncio.sleep(0)
    else:
        try:
            await is_ready.wait()
        finally:
            loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)
