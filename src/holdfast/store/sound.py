"""Opens a store so that damage neither stops the start nor goes unseen.

A file in the folder says that a broker has the store open; one that finds it knows that the one
before did not end cleanly, and looks at the store more closely.
"""

import time
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final

from holdfast.disk.folder import make_file, make_folder, sync_folder
from holdfast.errors import StoreCorrupt, StoreTooNew
from holdfast.logs import get_logger
from holdfast.store.folder import OPEN_MARK
from holdfast.store.quick_verify import Verification, quick_verify
from holdfast.store.repair_report import RepairReport
from holdfast.store.salvage import finish_repair, is_ours, repair
from holdfast.store.schema import check_file
from holdfast.store.sqlite import FILE_NAME, SqliteStore, open_store

__all__ = ["mark_closed", "open_sound"]

_WAL: Final = f"{FILE_NAME}-wal"
# After a clean end a store of up to this size is looked at all the same: it takes no time.
CHECKED_ALWAYS_BYTES: Final = 4 * 1024 * 1024
_SLOW_LOOK_S: Final = 1.0  # a look that takes longer is logged

_log = get_logger(__name__)


def open_sound(
    data_dir: Path, *, strict: bool = False, distrust: bool = False, vfs: str | None = None
) -> tuple[SqliteStore, RepairReport | None]:
    """Open the store in a folder; if it is damaged, repair it first, and log what that means.

    The caller holds the folder's ``DataLock`` and calls ``mark_closed`` after a clean end. With
    ``distrust`` all of it is looked at, whatever time that takes: damage was met in it. With
    ``strict`` a damaged store is refused.

    Raises StoreTooNew for a newer format, StoreCorrupt for a damaged store with ``strict`` and for
    what is no store of Holdfast, all left untouched, and StoreError for all else.
    """
    make_folder(data_dir)
    finish_repair(data_dir)
    was_open = (data_dir / OPEN_MARK).exists()
    report: RepairReport | None = None
    findings = _find_damage(data_dir, distrust=distrust, was_open=was_open, vfs=vfs)
    if findings:
        is_wal_missing = was_open and not (data_dir / _WAL).exists()
        report = _repair(data_dir, findings, strict, is_wal_missing)
    try:
        store = open_store(data_dir, vfs)
    except StoreTooNew:
        raise
    except StoreCorrupt as error:
        if report is not None:
            raise
        report = _repair(data_dir, [str(error)], strict, False)
        store = open_store(data_dir, vfs)
    try:
        make_file(data_dir / OPEN_MARK)
    except BaseException:
        store.close()
        raise
    return store, report


def mark_closed(data_dir: Path) -> None:
    """Note that the store was closed cleanly: with nothing open, and nothing that had failed."""
    with suppress(FileNotFoundError):
        (data_dir / OPEN_MARK).unlink()
        sync_folder(data_dir)


def _find_damage(data_dir: Path, *, distrust: bool, was_open: bool, vfs: str | None) -> list[str]:
    """What is wrong with the store; raises StoreError for what is not to be touched."""
    path = data_dir / FILE_NAME
    wal = data_dir / _WAL
    if not path.exists() and not wal.exists():
        if was_open:
            _log.error("the store is gone, though it was in use: an empty one begins", file=path)
        return []
    try:
        # Without SQLite: it would drop what is behind a damaged part of the write-ahead log.
        if check_file(path, vfs) == 0:
            return []
    except StoreTooNew:
        raise
    except StoreCorrupt as error:
        if is_ours(path):
            return [str(error)]
        raise
    if was_open and not wal.exists():
        _log.warning(
            "the store was not closed, and its write-ahead log is not there: if someone has "
            "removed it, the last commits are lost",
            file=wal,
        )
    if not (distrust or was_open) and path.stat().st_size > CHECKED_ALWAYS_BYTES:
        return []
    started_s = time.monotonic()
    if distrust:
        found = quick_verify(path, whole_bytes_max=inf, budget_s=inf)
    else:
        found = quick_verify(path)
    took_s = time.monotonic() - started_s
    if took_s > _SLOW_LOOK_S or found.skipped:
        _log.info("looked for damage", seconds=round(took_s, 1), **_skipped(found))
    return found.findings


def _skipped(found: Verification) -> dict[str, object]:
    return {"not_looked_at": ",".join(found.skipped)} if found.skipped else {}


def _repair(
    data_dir: Path, findings: list[str], strict: bool, is_wal_missing: bool
) -> RepairReport:
    path = data_dir / FILE_NAME
    if strict:
        raise StoreCorrupt(
            f"{path} is damaged, and was left as it is (store_strict): {findings[0]}"
            + (f" and {len(findings) - 1} more" if len(findings) > 1 else "")
            + f"; to repair it: holdfast store repair {data_dir}"
        )
    for finding in findings:
        _log.error("the store is damaged", found=finding)
    report = repair(data_dir, findings=findings, is_wal_missing=is_wal_missing)
    for line in report.lines()[len(findings) :]:
        _log.error(f"store repaired: {line}")
    return report
