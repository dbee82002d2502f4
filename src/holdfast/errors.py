"""Every exception that Holdfast raises on purpose, under one root.

Compiled by mypyc: keep it to plain classes with an explicit ``__init__``.
"""

__all__ = [
    "AuthenticatorUnavailable",
    "ConfigError",
    "ConnectionLost",
    "HoldfastError",
    "LimitExceeded",
    "ProtocolError",
    "Refused",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreTooNew",
    "UsageError",
]


class HoldfastError(Exception):
    """The root of all errors of Holdfast; catch it, but never raise it itself."""


class ProtocolError(HoldfastError):
    """The peer broke the specification; the connection closes with ``reason_code``.

    ``detail`` says what was expected and what came, without payloads or passwords.
    """

    def __init__(self, reason_code: int, detail: str) -> None:
        super().__init__(f"{detail} (reason code 0x{reason_code:02X})")
        self.reason_code = reason_code
        self.detail = detail


class Refused(HoldfastError):
    """The server said no, within the rules; ``reason_code`` is the one it gave.

    ``detail`` may go to the client, ``for_operator`` may not: it says more, but no secrets either.
    """

    def __init__(self, reason_code: int, detail: str, for_operator: str = "") -> None:
        super().__init__(f"{detail} (reason code 0x{reason_code:02X})")
        self.reason_code = reason_code
        self.detail = detail
        self.for_operator = for_operator


class ConnectionLost(HoldfastError):
    """The connection ended before what was asked of it was done."""


class AuthenticatorUnavailable(HoldfastError):
    """An authenticator cannot reach what it asks; the message says what, without secrets."""


class UsageError(HoldfastError):
    """Our caller's mistake: an argument or an order of calls that can never work."""


class LimitExceeded(HoldfastError):
    """A bound of ours was reached; the message names the limit and its number."""


class StoreError(HoldfastError):
    """The store cannot keep its promises: it cannot be opened, read or written.

    After one that comes from a commit there is no retry and no further acknowledgement.
    """


class StoreFull(StoreError):
    """The disk, or what the store may have of it, is full."""


class StoreLocked(StoreError):
    """Another broker holds the store; the message names the holder."""


class StoreTooNew(StoreError):
    """The store was written by a newer Holdfast; it was left untouched."""


class StoreCorrupt(StoreError):
    """The store holds something that no version of Holdfast wrote."""


class ConfigError(HoldfastError):
    """A setting is unknown or has an impossible value; the message is one clear line."""
