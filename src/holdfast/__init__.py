"""Holdfast: an MQTT broker whose persistent sessions hold.

Importing this package loads no server-side library.
"""

from holdfast.errors import (
    AuthenticatorUnavailable,
    ConfigError,
    ConnectionLost,
    HoldfastError,
    LimitExceeded,
    ProtocolError,
    Refused,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreTooNew,
    UsageError,
)

__version__ = "0.1.0"

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
    "__version__",
]
