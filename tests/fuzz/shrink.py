"""A shorter input that fails in the same way, by leaving bytes out and turning them into zeros."""

import traceback
from collections.abc import Callable
from typing import Final

TRIES_MAX: Final = 4000  # of one shrinking


def shrunk(target: Callable[[bytes], object], data: bytes) -> bytes:
    """The shortest input found; what raises at another place counts as another failure."""
    wanted = place(target, data)
    tries = 0
    size = len(data) // 2
    while size > 0:
        start = 0
        while start < len(data) and tries < TRIES_MAX:
            for shorter in (
                data[:start] + data[start + size :],
                data[:start] + b"\0" * len(data[start : start + size]) + data[start + size :],
            ):
                tries += 1
                if shorter != data and place(target, shorter) == wanted:
                    data = shorter
                    break
            else:
                start += size
        size //= 2
    return data


def place(target: Callable[[bytes], object], data: bytes) -> tuple[str, int] | None:
    """Where a target raises, as the innermost file and line; None if it does not."""
    try:
        target(data)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return frame.filename, frame.lineno or 0
    return None
