"""Promises 1 and 2 for a process that is killed while it commits."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from holdfast.store.sqlite import open_store

BATCH: Final = 7  # entries
KILLS: Final = 6

# Commits batches of BATCH entries, whose number is in all they write, and prints each when it is
# committed.
COMMITTER: Final = f"""
import sys
from pathlib import Path
from holdfast.message import Message
from holdfast.store import sqlite, sqlite_upkeep
from holdfast.store.records import Batch, LogEntry, RetainedRecord, StateRecord

sqlite_upkeep.CHECKPOINT_FRAMES = 40
store = sqlite.open_store(Path(sys.argv[1]))
number = (store.load().next_lsn - 1) // {BATCH}
print("ready", flush=True)
while True:
    batch = Batch()
    for index in range({BATCH}):
        lsn = number * {BATCH} + index + 1
        message = Message(f"t/{{lsn % 5}}", b"%d" % lsn, 1, False)
        batch.entries.append(LogEntry(lsn, message))
    batch.states = [StateRecord(1, number, b"", b"")]
    batch.retained = [RetainedRecord("r", Message("r", b"%d" % number, 1, True))]
    store.commit(batch)
    print(number, flush=True)
    if number % 20 == 19:
        store.trim((number - 10) * {BATCH})
    number += 1
"""


@pytest.mark.spec("MQTT5-4.1.0-1")
def test_what_was_committed_survives_kill_9(tmp_path: Path) -> None:
    committed = -1
    for kill in range(KILLS):
        printed = _run_and_kill(tmp_path, lines=10 + 37 * kill)
        committed = max(committed, *printed)
        store = open_store(tmp_path)
        found = store.load()
        last = (found.next_lsn - 1) // BATCH - 1
        assert (found.next_lsn - 1) % BATCH == 0
        assert last in {committed, committed + 1}  # one may have been on its way to be printed
        assert [record.cursor for record in found.states] == [last]
        assert found.retained[0].message is not None
        assert found.retained[0].message.payload == b"%d" % last
        lsns = list(range(max(1, (last - 10) * BATCH), found.next_lsn))
        entries = store.fetch(lsns)
        assert [entry.lsn for entry in entries] == lsns
        assert [entry.message.payload for entry in entries] == [b"%d" % lsn for lsn in lsns]
        store.close()
        committed = last


def _run_and_kill(folder: Path, lines: int) -> list[int]:
    """Run the committer, kill it after so many lines, and return the numbers it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", COMMITTER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as committer:
        assert committer.stdout is not None
        assert committer.stdout.readline() == "ready\n"
        printed = [int(committer.stdout.readline()) for _ in range(lines)]
        committer.send_signal(signal.SIGKILL)
        rest = committer.stdout.read().split("\n")
    # The last line may be cut short.
    return printed + [int(line) for line in rest[:-1]]
