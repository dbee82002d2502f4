"""Holdfast: an MQTT broker and client whose persistent sessions hold.

Importing this package loads no server-side library, and the client only when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

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

if TYPE_CHECKING:
    from holdfast.client.authentication import Authentication, Exchange, Scram, Token
    from holdfast.client.client import Client
    from holdfast.client.incoming import ReceivedMessage
    from holdfast.client.options import OutboxLimits, Reconnect, Will
    from holdfast.client.receipt import OutboxState, Receipt
    from holdfast.client.subscription import Stream, Subscription
    from holdfast.client.sync import SyncClient
    from holdfast.client.sync_parts import SyncReceipt, SyncStream, SyncSubscription
    from holdfast.client.tls import TlsOptions
    from holdfast.embedded import Server, SyncServer

__version__ = "0.1.0"

# What is imported when it is first asked for, and from where.
_LAZY: Final = {
    "Authentication": "holdfast.client.authentication",
    "Client": "holdfast.client.client",
    "Exchange": "holdfast.client.authentication",
    "OutboxLimits": "holdfast.client.options",
    "OutboxState": "holdfast.client.receipt",
    "Receipt": "holdfast.client.receipt",
    "ReceivedMessage": "holdfast.client.incoming",
    "Reconnect": "holdfast.client.options",
    "Scram": "holdfast.client.authentication",
    "Server": "holdfast.embedded",
    "Stream": "holdfast.client.subscription",
    "Subscription": "holdfast.client.subscription",
    "SyncClient": "holdfast.client.sync",
    "SyncReceipt": "holdfast.client.sync_parts",
    "SyncStream": "holdfast.client.sync_parts",
    "SyncSubscription": "holdfast.client.sync_parts",
    "SyncServer": "holdfast.embedded",
    "TlsOptions": "holdfast.client.tls",
    "Token": "holdfast.client.authentication",
    "Will": "holdfast.client.options",
}

__all__ = [
    "Authentication",
    "AuthenticatorUnavailable",
    "Client",
    "ConfigError",
    "ConnectionLost",
    "Exchange",
    "HoldfastError",
    "LimitExceeded",
    "OutboxLimits",
    "OutboxState",
    "ProtocolError",
    "Receipt",
    "ReceivedMessage",
    "Reconnect",
    "Refused",
    "Scram",
    "Server",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreTooNew",
    "Stream",
    "Subscription",
    "SyncClient",
    "SyncReceipt",
    "SyncServer",
    "SyncStream",
    "SyncSubscription",
    "TlsOptions",
    "Token",
    "UsageError",
    "Will",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
