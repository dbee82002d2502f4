"""The exit codes of ``holdfast``, and its errors as one line."""

from enum import IntEnum

__all__ = ["ExitCode", "one_line"]


class ExitCode(IntEnum):
    """What the exit codes of ``holdfast`` mean. Source: docs/reference/command-line.md."""

    STOPPED = 0  # stopped cleanly, as asked; for a tool: done
    FAILED = 1  # an internal failure
    USAGE = 2  # wrong usage or configuration
    LISTEN = 3  # an address is in use or cannot be bound
    STORE = 4  # the store or its folder cannot be used
    DAMAGE = 5  # a tool found damage in what it read
    CONNECTION = 6  # a client could not reach the server, or lost it for good
    REFUSED = 7  # the server refused a client, a message or a subscription
    KEPT = 8  # not all is acknowledged, and the rest is in the outbox file, for the next run
    TIMED_OUT = 27  # the time given by -W was over; the number is that of Mosquitto's clients


def one_line(error: Exception) -> str:
    """The message of ``error`` without a number that only a C programmer knows.

    Nothing is in it that a terminal would obey.
    """
    text = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        text = error.strerror
        if error.filename is not None:
            text = f"{error.filename}: {text}"
    # Paths and names are in it, which are whatever somebody has called them.
    text = " ".join(text.split())
    return "".join(character if character.isprintable() else "?" for character in text)
