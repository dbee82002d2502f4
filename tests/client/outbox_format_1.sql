-- An outbox of format 1, as the version that brought this format wrote it. Never changed.
PRAGMA auto_vacuum = incremental;
PRAGMA journal_mode = wal;
CREATE TABLE session (
    number INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    has_session INTEGER NOT NULL,
    next_seq INTEGER NOT NULL,
    next_delivery_id INTEGER NOT NULL,
    sent_below INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE outgoing (
    seq INTEGER PRIMARY KEY,
    queued_at_ms INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    options INTEGER NOT NULL,
    topic TEXT NOT NULL,
    properties BLOB NOT NULL,
    payload BLOB NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE released (
    seq INTEGER PRIMARY KEY,
    queued_at_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE TABLE incoming (
    packet_id INTEGER PRIMARY KEY,
    delivery_id INTEGER NOT NULL,
    is_handed INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
INSERT INTO session VALUES (1, '007', 1, 9, 9, 5, 4132652013);
INSERT INTO outgoing VALUES (3, 2199023255552, 0, 1, '007', X'', X'00676F6E65FF', 2569181627);
INSERT INTO outgoing VALUES (6, 2199023255553, 4398046511104, 6, 'a/é', X'2600016B000176', X'3432', 858035641);
INSERT INTO released VALUES (4, 5, 825680112);
INSERT INTO incoming VALUES (1, 4, 1, 3062860591);
INSERT INTO incoming VALUES (65535, 7, 0, 3280685751);
PRAGMA application_id = 0x484F5558;
PRAGMA user_version = 1;
