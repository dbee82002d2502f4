"""A store made from what something else held: built apart, checked, and put in place as a whole."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from holdfast.errors import StoreCorrupt, StoreError
from holdfast.message import content_bytes
from holdfast.store.backup import Progress, held, holds_nothing, install, sync_file
from holdfast.store.reading import StoreView
from holdfast.store.records import (
    Batch,
    DelayedRecord,
    GroupRecord,
    LogEntry,
    LossRecord,
    RetainedRecord,
    SessionRecord,
    StateRecord,
    SubscriptionRecord,
    TimeMark,
)
from holdfast.store.sqlite import FILE_NAME, SqliteStore, open_store
from holdfast.store.verify import check

RECORDS_PER_COMMIT: Final = 4096
BYTES_PER_COMMIT: Final = 8 * 1024 * 1024


@dataclass(slots=True)
class Transferred:
    """How many records of each type went over, and what there is to say about it."""

    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def count(self, kind: str) -> None:
        self.counts[kind] = self.counts.get(kind, 0) + 1


@final
class Builder:
    """Takes the records of a new store, those of the log in the order of their lsn."""

    def __init__(self, store: SqliteStore) -> None:
        self.next_lsn = 1
        self.next_session = 1
        self._store = store
        self._batch = Batch()
        self._records = 0
        self._bytes = 0

    def session(self, record: SessionRecord) -> None:
        self.next_session = max(self.next_session, record.number + 1)
        self._batch.sessions.append(record)
        self._count(0)

    def state(self, record: StateRecord) -> None:
        self._batch.states.append(record)
        self._count(len(record.in_flight))

    def subscription(self, record: SubscriptionRecord) -> None:
        self._batch.subscriptions.append(record)
        self._count(len(record.topic_filter))

    def group(self, record: GroupRecord) -> None:
        self.next_session = max(self.next_session, record.number + 1)
        self._batch.groups.append(record)
        self._count(len(record.returned))

    def loss(self, record: LossRecord) -> None:
        self._batch.losses.append(record)
        self._count(0)

    def time_mark(self, mark: TimeMark) -> None:
        self._batch.time_marks.append(mark)
        self._count(0)

    def retained(self, record: RetainedRecord) -> None:
        assert record.message is not None
        self._batch.retained.append(record)
        self._count(content_bytes(record.message))

    def delayed(self, record: DelayedRecord) -> None:
        self._batch.delayed.append(record)
        self._count(content_bytes(record.message))

    def entry(self, entry: LogEntry) -> None:
        assert entry.lsn >= self.next_lsn
        self.next_lsn = entry.lsn + 1
        self._batch.entries.append(entry)
        self._count(content_bytes(entry.message))

    def flush(self) -> None:
        """Commit what has come."""
        batch, self._batch = self._batch, Batch()
        self._records = self._bytes = 0
        self._store.bring_in(batch, next_lsn=self.next_lsn, next_session=self.next_session)

    def _count(self, size: int) -> None:
        self._records += 1
        self._bytes += size
        if self._records >= RECORDS_PER_COMMIT or self._bytes >= BYTES_PER_COMMIT:
            self.flush()


def build(data_dir: Path, fill: Callable[[Builder], None], progress: Progress) -> Path:
    """Make the store of a data folder that has none, or an empty one, from what ``fill`` brings.

    Whatever fails, the folder has no store, or the one it had. Raises StoreError, StoreCorrupt if
    what was brought does not make a sound store, and what ``fill`` raises.
    """
    with held(data_dir):
        if not holds_nothing(data_dir):
            raise StoreError(
                f"{data_dir / FILE_NAME} exists: expected a data folder without a store, or with "
                "one that holds nothing"
            )
        folder = Path(tempfile.mkdtemp(prefix=f".{FILE_NAME}.", suffix=".part", dir=data_dir))
        try:
            store = open_store(folder)
            try:
                builder = Builder(store)
                fill(builder)
                builder.flush()
            finally:
                store.close()
            part = folder / FILE_NAME
            if Path(f"{part}-wal").exists():
                raise StoreError(f"{part}: the new store could not be closed: is the disk full?")
            with StoreView(part) as view:
                findings = check(view, progress).findings
            if findings:
                first = findings[0]
                raise StoreCorrupt(f"nothing was imported: {first.table} {first.key}: {first.text}")
            sync_file(part)
            install(part, data_dir, is_kept=False)
        finally:
            shutil.rmtree(folder)
    return data_dir / FILE_NAME
