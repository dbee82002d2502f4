"""The SQLite file of an outbox: its tables and its format number."""

from collections.abc import Callable
from typing import Final

import apsw

from holdfast.client.outbox_rows import SessionRow
from holdfast.disk.file_format import FileKind, run_script
from holdfast.disk.insert import Insert

FORMAT: Final = 1
KIND: Final = FileKind("an outbox", 0x484F5558, FORMAT)  # "HOUX"; tells our files from others

# Every row has a checksum, as ``disk.checksums`` defines it.
_CREATE: Final = """
-- One row: who the client is, and the numbers to go on with.
CREATE TABLE session (
    number INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    has_session INTEGER NOT NULL, -- 1 if the server may have one
    next_seq INTEGER NOT NULL,
    next_delivery_id INTEGER NOT NULL,
    sent_below INTEGER NOT NULL, -- no message from this number on was ever sent
    crc INTEGER NOT NULL
) STRICT;

-- Messages that have to go out. The packet identifier follows from seq.
CREATE TABLE outgoing (
    seq INTEGER PRIMARY KEY,
    queued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL, -- 0: never
    options INTEGER NOT NULL, -- the QoS; and 4 if retained
    topic TEXT NOT NULL,
    properties BLOB NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- QoS 2 messages whose PUBREC has come: PUBREL goes out until PUBCOMP comes.
CREATE TABLE released (
    seq INTEGER PRIMARY KEY,
    queued_at_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- Packet identifiers of QoS 2 messages that have come, until PUBREL does.
CREATE TABLE incoming (
    packet_id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL,
    is_handed INTEGER NOT NULL, -- 1 if the application has it
    crc INTEGER NOT NULL
) STRICT;
"""

SET_SESSION: Final = Insert("session", 7)
STORE_OUTGOING: Final = Insert("outgoing", 8)
RELEASE_OUTGOING: Final = Insert("released", 3)
HOLD_INCOMING: Final = Insert("incoming", 4)


def _create(connection: apsw.Connection) -> None:
    run_script(connection, _CREATE)
    SET_SESSION.run(connection.cursor(), SessionRow("", False, 1, 1, 1).values())


# The step at index n brings an outbox from format n to n + 1; format 0 is an empty file. Steps that
# were once released are never changed: there are files that need them.
MIGRATIONS: Final[list[Callable[[apsw.Connection], None]]] = [_create]
assert len(MIGRATIONS) == FORMAT
