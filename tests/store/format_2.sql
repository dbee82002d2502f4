-- A store of format 2 with one of each, as the broker of that format made it. Never changed.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE topics (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE log (
    lsn INTEGER PRIMARY KEY, -- of the block's first message
    last_lsn INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    target INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX log_topic ON log (topic) WHERE target = 0;
CREATE INDEX log_target ON log (target) WHERE target <> 0;
CREATE INDEX log_target_topic ON log (topic) WHERE target <> 0;
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    expiry_s INTEGER NOT NULL,
    disconnected_at_ms INTEGER NOT NULL,
    will_topic TEXT,
    will BLOB,
    will_delay_s INTEGER NOT NULL,
    will_due_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE states (
    session INTEGER PRIMARY KEY,
    cursor INTEGER NOT NULL,
    in_flight BLOB NOT NULL,
    received BLOB NOT NULL
) STRICT;
CREATE TABLE subscriptions (
    session INTEGER NOT NULL,
    topic_filter TEXT NOT NULL,
    from_lsn INTEGER NOT NULL,
    until_lsn INTEGER NOT NULL,
    options INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    PRIMARY KEY (session, topic_filter, from_lsn)
) STRICT, WITHOUT ROWID;
CREATE TABLE retained (
    topic INTEGER PRIMARY KEY,
    message BLOB NOT NULL
) STRICT;
CREATE TABLE shared_groups (
    number INTEGER PRIMARY KEY,
    topic_filter TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    returned BLOB NOT NULL
) STRICT;
CREATE TABLE delayed (
    number INTEGER PRIMARY KEY,
    due_ms INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    topic INTEGER NOT NULL,
    message BLOB NOT NULL
) STRICT;
CREATE INDEX delayed_topic ON delayed (topic);

INSERT INTO meta VALUES ('next_lsn', 1);
INSERT INTO meta VALUES ('next_session', 4);
INSERT INTO meta VALUES ('topics_forgotten', 0);
INSERT INTO topics VALUES (1, 'a');
INSERT INTO topics VALUES (2, 'b/c');
INSERT INTO topics VALUES (3, '7');
INSERT INTO topics VALUES (4, 'later');
INSERT INTO log VALUES (1, 2, 1, 0, X'01013121056D657465720132');
INSERT INTO log VALUES (3, 3, 2, 0, X'010133');
INSERT INTO log VALUES (4, 4, 2, 2, X'010134');
INSERT INTO sessions VALUES (1, '007', 5, 1, 3600, 0, '007', X'3E0163808080808080010E2600016B0001312600016B0001320600676F6E65FF', 0, 0);
INSERT INTO sessions VALUES (2, 'é', 4, 3, 4294967295, 2199023255552, NULL, NULL, 0, 0);
INSERT INTO states VALUES (1, 2, X'0900070E06', X'0001');
INSERT INTO states VALUES (2, 1, X'', X'FF');
INSERT INTO subscriptions VALUES (1, 'a/+/#', 1, 0, 1, 0);
INSERT INTO subscriptions VALUES (2, '1e5', 3, 9, 255, 7);
INSERT INTO retained VALUES (3, X'01046B657074');
INSERT INTO shared_groups VALUES (3, '$share/g/a', 2, X'0F0004');
INSERT INTO delayed VALUES (1, 4398046511104, 60, 4, X'010477616974');

PRAGMA application_id = 0x484F4C44;
PRAGMA user_version = 2;
