"""Repair of a damaged store: what is sound goes into a new file, what was there is set aside.

``docs/internals/salvage.md`` says how rows are found, and what is made of what is missing.
"""

import os
import shutil
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import apsw

from holdfast.disk.file_format import store_error
from holdfast.disk.folder import give_to_owner, sync_folder
from holdfast.disk.page_image import PageImage
from holdfast.disk.page_trees import Trees
from holdfast.errors import StoreCorrupt, StoreError, StoreTooNew
from holdfast.store.folder import OPEN_MARK
from holdfast.store.repair_report import RepairReport
from holdfast.store.salvage_copy import Copy, has_proven_row, name_trees, read_unchecked
from holdfast.store.salvage_links import Links
from holdfast.store.salvage_rows import Shape, expect_checksums, read_shapes, usual_layout
from holdfast.store.schema import APPLICATION_ID, FORMAT, migrate

__all__ = ["RepairReport", "finish_repair", "is_ours", "repair"]

FILE_NAME: Final = "holdfast.db"
_ASIDE: Final = f"{FILE_NAME}.damaged-"
_FILE_MODE: Final = 0o600
_COPY_CACHE_KB: Final = 65_536  # of SQLite's page cache while the new file is made


def repair(
    data_dir: Path,
    *,
    now: datetime | None = None,
    findings: list[str] | None = None,
    is_wal_missing: bool = False,
) -> RepairReport:
    """Put a sound store in the place of a damaged one, and say what is gone.

    The caller holds the folder's ``DataLock`` and has no store open. The damaged files stay, whole,
    as ``holdfast.db.damaged-YYYYMMDDTHHMMSSZ``, with a report (JSON) beside them. The replacement
    is atomic: after a crash at any moment there is the old store or the new one, and the repair can
    be repeated. A store without damage comes out with the same content. ``findings`` is what was
    found wrong before, and ``is_wal_missing`` says that there was a write-ahead log, for the
    report.

    Raises StoreTooNew for a newer format, StoreCorrupt for a file that is no store of Holdfast,
    both left untouched, and StoreError if the new file cannot be written, with the old one left.
    """
    finish_repair(data_dir)
    path = data_dir / FILE_NAME
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    report = RepairReport(at=moment.isoformat(timespec="seconds"), store=str(path))
    report.findings += findings or []
    report.wal.is_missing = is_wal_missing
    new = data_dir / f"{FILE_NAME}.new"
    try:
        with PageImage(path) as image:
            shapes = read_shapes()
            trees = Trees(image, usual_layout())
            name_trees(image, trees, shapes)
            _refuse(image, trees, shapes)
            unchecked = read_unchecked(image, trees)
            if unchecked is not None:
                expect_checksums(shapes, unchecked)
            try:
                _salvage(image, trees, shapes, new, report)
            except BaseException:
                _remove(new)
                raise
        aside = _free_name(data_dir, moment)
        report.report_file = f"{aside}.json"
        report.set_aside = [
            f"{aside}{end}" for end in ("", "-wal") if (data_dir / f"{FILE_NAME}{end}").exists()
        ]
        _write(data_dir / report.report_file, report.to_text())
        for made in (new, data_dir / report.report_file):
            give_to_owner(made)
        _replace(data_dir, new, aside)
    except OSError as error:
        raise StoreError(f"{path}: cannot repair the store: {error}") from error
    except apsw.Error as error:
        raise store_error(new, "making a new store", error) from error
    return report


def finish_repair(data_dir: Path) -> None:
    """Finish a repair that a crash cut short between its last steps; else do nothing.

    The new file is in its place, but the write-ahead log of the old one lies beside it still.
    """
    path = data_dir / FILE_NAME
    wal = data_dir / f"{FILE_NAME}-wal"
    _remove(data_dir / f"{FILE_NAME}.new")
    if not wal.exists():
        return
    for other in data_dir.glob(f"{_ASIDE}*-wal"):
        if other.samefile(wal):
            aside = other.with_name(other.name.removesuffix("-wal"))
            if path.exists() and not (aside.exists() and aside.samefile(path)):
                _remove(wal)
                _remove(data_dir / OPEN_MARK)
                sync_folder(data_dir)
            return


def is_ours(path: Path) -> bool:
    """Whether a damaged file is a store of Holdfast, by what is left in it."""
    with PageImage(path) as image:
        trees, shapes = Trees(image, usual_layout()), read_shapes()
        name_trees(image, trees, shapes)
        return _is_ours(image, trees, shapes)


def _is_ours(image: PageImage, trees: Trees, shapes: dict[str, Shape]) -> bool:
    if (image.path.parent / OPEN_MARK).exists():
        return True  # whatever it looks like: it was open as one
    if image.has_magic and image.application_id == APPLICATION_ID:
        return True
    return any(
        tree.name in shapes and has_proven_row(image, tree.pages, shapes[tree.name])
        for tree in trees.by_root.values()
    )


def _refuse(image: PageImage, trees: Trees, shapes: dict[str, Shape]) -> None:
    """Raise StoreTooNew or StoreCorrupt for a file that is not for this program to repair."""
    if not _is_ours(image, trees, shapes):
        raise StoreCorrupt(
            f"{image.path} is not a store of Holdfast, or nothing is left to tell it by: it was "
            "left as it is. If it is one, move it away, and the broker begins with an empty store"
        )
    if image.has_magic and image.user_version > FORMAT:
        raise StoreTooNew(
            f"{image.path} was written by a newer Holdfast: its format is {image.user_version}, "
            f"this one knows up to {FORMAT}; it was left as it is"
        )


def _salvage(
    image: PageImage, trees: Trees, shapes: dict[str, Shape], new: Path, report: RepairReport
) -> None:
    """Make a new store of all that is sound, and flush it."""
    wal = image.wal
    report.wal.frames_used = wal.frames_used
    report.wal.frames_lost = wal.frames_lost
    report.wal.commits_lost = wal.commits_lost
    report.wal.is_damaged = wal.is_damaged
    for finding in looks(image) + trees.findings():
        if finding not in report.findings:
            report.findings.append(finding)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE))
    with closing(apsw.Connection(str(new), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        settings: list[tuple[str, str | int]] = [
            ("auto_vacuum", "incremental"),
            ("journal_mode", "off"),  # a copy that is cut short is made again
            ("synchronous", "off"),
            ("cache_size", -_COPY_CACHE_KB),
            ("temp_store", "memory"),
        ]
        for setting, value in settings:
            connection.pragma(setting, value)
        migrate(connection, 0)
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        ).fetchall()
        with connection:
            for name, _ in indexes:
                connection.execute(f"DROP INDEX {name}")  # in one go they are made sooner
            copy = Copy(image, trees, connection, shapes, report)
            copy.run()
            report.is_empty = not any(table.kept for table in report.tables.values())
            Links(connection, copy, report).run()
            for _, sql in indexes:
                connection.execute(str(sql))
    descriptor = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def looks(image: PageImage) -> list[str]:
    """What is wrong with a file at first sight: its header, its end, its write-ahead log."""
    found: list[str] = []
    name, wal = image.path.name, image.wal
    if wal.page_count == 0 and not image.has_magic:
        found.append(f"{name} does not begin like a SQLite file")
    if image.pages_claimed > image.page_count:
        missing = image.pages_claimed - image.page_count
        found.append(f"{name} is cut short: {missing} of {image.pages_claimed} pages are missing")
    if wal.is_header_damaged:
        found.append(f"the head of {wal.path.name} is damaged")
    elif wal.is_damaged:
        found.append(
            f"{wal.path.name} is damaged behind frame {wal.frames_used}, and {wal.commits_lost} "
            "commits follow, more than a power cut can have left there"
        )
    return found


def _free_name(data_dir: Path, moment: datetime) -> str:
    """A dated name for what is set aside, that nothing in the folder has."""
    dated = f"{_ASIDE}{moment:%Y%m%dT%H%M%SZ}"
    name, number = dated, 1
    while any((data_dir / f"{name}{end}").exists() for end in ("", "-wal", ".json")):
        number += 1
        name = f"{dated}-{number}"
    return name


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _replace(data_dir: Path, new: Path, aside: str) -> None:
    """Set the old files aside under second names, then put the new one in their place.

    Each step is durable before the next. ``finish_repair`` knows the write-ahead log of the old
    file by its second name, should the last step not be reached.
    """
    path, wal = data_dir / FILE_NAME, data_dir / f"{FILE_NAME}-wal"
    for old, name in ((path, aside), (wal, f"{aside}-wal")):
        if old.exists():
            _link(old, data_dir / name)
    sync_folder(data_dir)
    new.replace(path)
    sync_folder(data_dir)
    _remove(wal)
    _remove(data_dir / f"{FILE_NAME}-shm")
    _remove(data_dir / OPEN_MARK)  # it would stand for a log that is lost
    sync_folder(data_dir)


def _link(old: Path, name: Path) -> None:
    """Give a file a second name; where the file system has none, make a copy."""
    try:
        os.link(old, name)
    except OSError:
        shutil.copyfile(old, name)
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
