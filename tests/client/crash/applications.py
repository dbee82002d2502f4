"""The applications under test, each the whole of a process that may be killed at any moment.

The publisher numbers its messages per QoS and notes each before ``publish`` and after; the
subscribers note what they process. A file named ``stop`` asks the publisher to see all of it out
and to say so by two last messages, with which a subscriber ends.
"""

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from holdfast.client.client import Client
from holdfast.client.incoming import ReceivedMessage
from holdfast.client.options import OutboxLimits, Reconnect
from holdfast.client.outbox import OutboxFile
from holdfast.client.records import Record
from tests.client.crash.journal import Journal, read_journal

QUEUE_MAX: Final = 200  # messages in the outbox, so that the publisher is never far ahead
PACE_S: Final = 0.002
LAST: Final = b"last"
QOS: Final = (1, 2)
KEEP_ALIVE_S: Final = 2

Kind = Literal["pub", "auto", "manual"]


class Assignment(NamedTuple):
    """What a process is to do. ``dies_at`` is a record's class and when: before or after."""

    kind: Kind
    url: str
    version: Literal["5.0", "3.1.1"]
    folder: Path
    dies_at: tuple[str, str] = ("", "")


def work(assignment: Assignment) -> None:
    """The process."""
    path = assignment.folder / f"{assignment.kind}.log"
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _prepare_death(*assignment.dies_at)
    applications: dict[Kind, Callable[[Assignment, Journal], object]] = {
        "pub": publish,
        "auto": take,
        "manual": take_in_transactions,
    }
    journal = Journal(assignment.folder / f"{assignment.kind}.journal")
    asyncio.run(applications[assignment.kind](assignment, journal))  # type: ignore[arg-type]


def _prepare_death(name: str, when: str) -> None:
    """Die by ``kill -9`` at the first commit that has a record of this class."""
    if not name:
        return
    commit = OutboxFile.commit

    def deadly(self: OutboxFile, records: list[Record]) -> None:
        is_it = any(type(record).__name__ == name for record in records)
        if is_it and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self, records)
        if is_it:
            os.kill(os.getpid(), signal.SIGKILL)

    OutboxFile.commit = deadly  # type: ignore[method-assign]  # in this process alone


def _client(assignment: Assignment) -> Client:
    return Client(
        assignment.url,
        client_id=assignment.kind,
        outbox=assignment.folder / f"{assignment.kind}.db",
        version=assignment.version,
        manual_ack=assignment.kind == "manual",
        keep_alive_s=KEEP_ALIVE_S,
        receive_maximum=20,
        outbox_limits=OutboxLimits(messages_max=QUEUE_MAX),
        reconnect=Reconnect(delay_min_s=0.01, delay_max_s=0.1),
        connect_timeout_s=2,
    )


async def publish(assignment: Assignment, journal: Journal) -> None:
    folder = assignment.folder
    tried = [line for line in read_journal(folder / "pub.journal") if line[0] == "try"]
    numbers = {qos: sum(line[1] == str(qos) for line in tried) for qos in QOS}
    stop = folder / "stop"
    async with _client(assignment) as client:
        qos = 1
        while not stop.exists():
            qos = 3 - qos
            numbers[qos] += 1
            number = numbers[qos]
            journal.note("try", qos, number)
            receipt = await client.publish(f"load/q{qos}", number, qos)
            journal.note("kept", qos, number)
            receipt.add_done_callback(
                lambda done, qos=qos, number=number: journal.note("done", qos, number)  # type: ignore[misc]
            )
            await asyncio.sleep(PACE_S)
        await client.drain()
        for qos in QOS:
            await (await client.publish(f"load/q{qos}", LAST, qos))
    journal.note("out")


class _Last:
    """Whether the last message of each QoS has come."""

    def __init__(self) -> None:
        self._missing = {f"load/q{qos}" for qos in QOS}

    def is_it(self, message: ReceivedMessage) -> bool:
        if message.payload == LAST:
            self._missing.discard(message.topic)
        return not self._missing


async def take(assignment: Assignment, journal: Journal) -> None:
    """Process each message in the body of the loop."""
    last = _Last()
    async with _client(assignment) as client:
        async for message in client.subscribe("load/#", qos=2):
            journal.note("got", message.qos, message.text, message.delivery_id)
            if last.is_it(message):
                break
    journal.note("end")


async def take_in_transactions(assignment: Assignment, journal: Journal) -> None:
    """Process each message in a transaction of a database, and acknowledge it then."""
    base = sqlite3.connect(assignment.folder / "base.db", isolation_level=None)
    base.execute("PRAGMA journal_mode = WAL")
    base.execute(
        "CREATE TABLE IF NOT EXISTS got"
        " (place INTEGER PRIMARY KEY, qos INTEGER, number TEXT, delivery_id INTEGER UNIQUE)"
    )
    last = _Last()
    async with _client(assignment) as client:
        async for message in client.subscribe("load/#", qos=2):
            # One that is there already has come again after a crash: it was processed.
            base.execute(
                "INSERT OR IGNORE INTO got (qos, number, delivery_id) VALUES (?, ?, ?)",
                (message.qos, message.text, message.delivery_id or None),
            )
            await message.ack()
            if last.is_it(message):
                break
    journal.note("end")
    base.close()
