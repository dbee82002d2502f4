"""Copies of a store: backup while the broker runs, restore, compaction, and the change of files.

A copy is made under a name of its own, flushed and checked before it gets the name that counts.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from holdfast.disk.file_format import BUSY_TIMEOUT_MS, rewrite_wal, store_error
from holdfast.disk.folder import give_to_owner, sync_folder
from holdfast.errors import StoreCorrupt, StoreError
from holdfast.store.folder import OPEN_MARK
from holdfast.store.lock import DataLock
from holdfast.store.reading import StoreView
from holdfast.store.schema import check_file
from holdfast.store.sqlite import FILE_NAME

__all__ = [
    "Compacted",
    "Copied",
    "Progress",
    "Restored",
    "back_up",
    "compact",
    "held",
    "holds_nothing",
    "install",
    "no_progress",
    "part_file",
    "restore",
    "sync_file",
]

PAGES_PER_STEP: Final = 1024  # 4 MiB between two looks at the progress
VACUUM_STEPS: Final = 100_000  # of SQLite's machine, between two looks at the progress
_FILE_MODE: Final = 0o600
_LOCK_NAME: Final = "holdfast.lock"

# What is being done, how far it is, and what it comes to; bytes, or 0 of 0 where nobody knows.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Copied:
    """A finished backup."""

    file: Path
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restore; ``set_aside`` is where the store that was there lies now."""

    file: Path
    file_bytes: int
    set_aside: Path | None


@dataclass(frozen=True, slots=True)
class Compacted:
    """A finished compaction."""

    file: Path
    before_bytes: int
    after_bytes: int


def no_progress(_doing: str, _done: int, _total: int) -> None:
    """Tell nobody."""


def back_up(
    source: Path,
    destination: Path,
    *,
    is_replacing: bool = False,
    progress: Progress = no_progress,
) -> Copied:
    """Copy a store as it is at one moment, at or after the call, broker running or not.

    ``destination`` is the new file, or a folder, where it gets a dated name. All that was durable
    when this was called is in the copy. It is durable itself, and checked, when this returns.
    Raises StoreError; then there is no new file, and an old one of this name is as it was.
    """
    if destination.is_dir():
        destination /= f"holdfast-{_date()}.db"
    if not is_replacing and destination.exists():
        raise StoreError(f"{destination} exists: expected a new name, or --force to replace it")
    if not destination.parent.is_dir():
        raise StoreError(f"{destination.parent}: expected a folder for the backup, there is none")
    with StoreView(source) as view, part_file(destination) as part:
        if os.path.exists(destination) and os.path.samefile(destination, view.path):
            raise StoreError(f"{destination} is the store itself: expected another file")
        _copy(view, part, progress)
        _check_copy(part, progress)
        os.replace(part, destination)
        sync_folder(destination.parent)
    return Copied(destination, destination.stat().st_size)


def restore(
    source: Path,
    data_dir: Path,
    *,
    is_replacing: bool = False,
    progress: Progress = no_progress,
) -> Restored:
    """Put a backup into a data folder that no broker uses.

    A store that holds anything is replaced only if ``is_replacing``, and then kept under a dated
    name. Raises StoreCorrupt for a damaged backup and StoreError for all else; then the folder
    holds what it held before, or after a power cut in the last moment a store that no broker
    starts with until this has been run again.
    """
    with StoreView(source) as view:
        _refuse_damage(view, progress)
        with held(data_dir):
            file = data_dir / FILE_NAME
            if file.exists() and os.path.samefile(file, view.path):
                raise StoreError(f"{source} is the store itself: expected a backup of it")
            is_empty = holds_nothing(data_dir)
            if not is_empty and not is_replacing:
                raise StoreError(
                    f"{file} exists: expected an empty data folder, or --force to set the store "
                    "that is there aside"
                )
            with part_file(file) as part:
                _copy(view, part, progress)
                _check_copy(part, progress)
                set_aside = install(part, data_dir, is_kept=not is_empty)
    return Restored(file, file.stat().st_size, set_aside)


def compact(data_dir: Path, *, progress: Progress = no_progress) -> Compacted:
    """Write the store of a stopped broker anew, without the free space in it.

    Raises StoreError; then the store is as it was.
    """
    file = data_dir / FILE_NAME
    if not file.is_file():
        raise StoreError(f"{data_dir}: expected a data folder with {FILE_NAME}")
    with held(data_dir):
        check_file(file)
        rewrite_wal(file)
        before_bytes = _size(file) + _size(Path(f"{file}-wal"))
        with part_file(file) as part:
            _vacuum_into(file, part, progress)
            sync_file(part)
            _check_copy(part, progress)
            # Everything was carried over from it, and nobody else has the file open.
            _remove_log(file)
            os.replace(part, file)
            sync_folder(data_dir)
    return Compacted(file, before_bytes, _size(file))


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Hold a data folder against brokers and other tools; raises StoreLocked if one has it."""
    lock = DataLock(data_dir)
    try:
        # An administrator's lock file must not keep the broker's own user out.
        give_to_owner(data_dir / _LOCK_NAME)
        # No other tool is at work here: these are of runs that were killed.
        for left in data_dir.glob(f".{FILE_NAME}.*.part*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        yield
    except OSError as error:
        raise StoreError(f"{error.filename or data_dir}: {error.strerror}") from error
    finally:
        lock.release()


@contextmanager
def part_file(destination: Path) -> Iterator[Path]:
    """An empty file beside the destination, which is gone in the end unless it was renamed.

    Raises StoreError for what the operating system refuses.
    """
    part = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        try:
            # In here, so that a signal right behind it finds it too.
            os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
            give_to_owner(part)
            yield part
        finally:
            for name in (part, f"{part}-journal", f"{part}-wal", f"{part}-shm"):
                Path(name).unlink(missing_ok=True)
    except OSError as error:
        # The name that the operator knows, and not that of the part.
        raise StoreError(f"{destination}: cannot be written: {error.strerror}") from error


def install(part: Path, data_dir: Path, *, is_kept: bool) -> Path | None:
    """Make a finished file the store of a folder that is held, and keep the old one if asked to.

    A crash on the way leaves the old store, the new one, or a file that says what happened and
    that no broker starts with: never one store with the write-ahead log of another, and never an
    empty store. Returns where the old one lies.
    """
    file = data_dir / FILE_NAME
    wal = Path(f"{file}-wal")
    give_to_owner(part, data_dir)
    set_aside: Path | None = None
    if file.exists() or _size(wal) > 0:
        if is_kept:
            set_aside = _free_name(data_dir / f"{FILE_NAME}.{_date()}")
            _keep(file, set_aside)
            _keep(wal, Path(f"{set_aside}-wal"))
            sync_folder(data_dir)
        with part_file(data_dir / f"{FILE_NAME}.mark") as mark:
            mark.write_text(
                "This is no store: its replacement was interrupted. Run the same command again."
                + (f" The store that was here is {set_aside.name}.\n" if set_aside else "\n")
            )
            sync_file(mark)
            os.replace(mark, file)
        sync_folder(data_dir)
    _remove_log(file)
    sync_folder(data_dir)
    os.replace(part, file)
    sync_folder(data_dir)
    return set_aside


def holds_nothing(data_dir: Path) -> bool:
    """Whether a folder has no store, or one that holds nothing."""
    file = data_dir / FILE_NAME
    if _size(file) == 0 and _size(Path(f"{file}-wal")) == 0:
        return True
    try:
        with StoreView(file) as view:
            return view.format == 0 or all(
                view.count(table) == 0
                for table in ("sessions", "log", "retained", "delayed", "shared_groups")
            )
    except (StoreError, OSError):
        return False  # not ours, or damaged: it holds something


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(view: StoreView, part: Path, progress: Progress) -> None:
    """Copy the pages of a view, which all belong to its one moment, and flush them."""
    page_bytes = view.pragma("page_size")
    try:
        target = apsw.Connection(str(part))
        try:
            # Nobody sees the file before it is complete and flushed.
            target.pragma("journal_mode", "off")
            target.pragma("synchronous", "off")
            with target.backup("main", view.connection, "main") as copying:
                while not copying.done:
                    copying.step(PAGES_PER_STEP)
                    done = copying.page_count - copying.remaining
                    progress("copying", done * page_bytes, copying.page_count * page_bytes)
        finally:
            target.close()
    except apsw.Error as error:
        raise store_error(view.path, f"copying to {part.parent}", error) from error
    sync_file(part)


def _check_copy(part: Path, progress: Progress) -> None:
    """Raise StoreCorrupt if a copy is damaged."""
    progress("checking", 0, 0)
    try:
        connection = apsw.Connection(
            f"{part.absolute().as_uri()}?immutable=1",
            flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        )
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(1)")]
        finally:
            connection.close()
    except apsw.Error as error:
        raise store_error(part, "checking the copy", error) from error
    if found != ["ok"]:
        raise StoreCorrupt(
            f"the copy is damaged, as the store it was made from may be ({found[0]}): "
            "`holdfast store check` tells more"
        )


def _refuse_damage(view: StoreView, progress: Progress) -> None:
    progress("checking the backup", 0, 0)
    found = [str(row[0]) for row in view.query("PRAGMA quick_check(1)")]
    if found != ["ok"]:
        raise StoreCorrupt(f"{view.path} is damaged ({found[0]}): nothing was restored")


def _vacuum_into(file: Path, part: Path, progress: Progress) -> None:
    try:
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.pragma("locking_mode", "exclusive")
            connection.pragma("trusted_schema", False)
            connection.execute("BEGIN IMMEDIATE")  # shows that nobody else reads it either
            connection.execute("COMMIT")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            # The log is empty, and goes when the file is closed.
            (file.parent / OPEN_MARK).unlink(missing_ok=True)
            expected = _used_bytes(connection)
            free = shutil.disk_usage(file.parent).free
            if expected > free:
                raise StoreError(
                    f"{file.parent}: expected {expected} bytes free for the new file, "
                    f"there are {free}"
                )

            def look() -> bool:
                progress("compacting", min(_size(part), expected), expected)
                return False

            connection.set_progress_handler(look, VACUUM_STEPS)
            connection.execute("VACUUM INTO ?", (str(part),))
            progress("compacting", expected, expected)
        finally:
            connection.close()
    except apsw.Error as error:
        raise store_error(file, "compacting", error) from error


def _used_bytes(connection: apsw.Connection) -> int:
    numbers = [connection.pragma(name) for name in ("page_count", "freelist_count", "page_size")]
    pages, free_pages, page_bytes = (int(str(number)) for number in numbers)
    return (pages - free_pages) * page_bytes


def _keep(file: Path, name: Path) -> None:
    """Give a file a second name, by which it stays when the first one goes."""
    if _size(file) == 0:
        return
    try:
        os.link(file, name)
    except OSError:  # some file systems have one name for a file
        shutil.copy2(file, name)
        sync_file(name)
        give_to_owner(name)


def _remove_log(file: Path) -> None:
    (file.parent / OPEN_MARK).unlink(missing_ok=True)
    for ending in ("-wal", "-shm"):
        Path(f"{file}{ending}").unlink(missing_ok=True)
    sync_folder(file.parent)


def _free_name(path: Path) -> Path:
    found, number = path, 1
    while found.exists() or Path(f"{found}-wal").exists():
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _date() -> str:
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
