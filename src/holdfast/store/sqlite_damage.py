"""Looking for rows that are not as they were written: by their types, names and checksums."""

from collections.abc import Iterator, Sequence
from typing import Final

import apsw

from holdfast.disk.checksums import check_row
from holdfast.errors import StoreCorrupt
from holdfast.store.schema import ALWAYS_CHECKED

_KINDS: Final = {"INTEGER": "integer", "TEXT": "text", "BLOB": "blob"}


def find_damage(
    cursor: apsw.Cursor, tables: Sequence[str], may_be_unchecked: bool
) -> StoreCorrupt | None:
    """The first damaged row of these tables, as the error that names it."""
    for table in tables:
        for damage in damages(cursor, table, may_be_unchecked):
            return damage
    return None


def damages(cursor: apsw.Cursor, table: str, may_be_unchecked: bool) -> Iterator[StoreCorrupt]:
    """All damaged rows of a table, each as the error that names it; reads every row."""
    may_be_unchecked = may_be_unchecked and table not in ALWAYS_CHECKED
    info = cursor.execute(f"PRAGMA table_info({table})").fetchall()
    columns = [
        (str(name), str(kind), bool(not_null), key) for _, name, kind, not_null, _, key in info
    ]
    # A name may be no UTF-8, and a key too.
    values = [f"CAST({name} AS BLOB)" if kind == "TEXT" else name for name, kind, _, _ in columns]
    kinds = [f"typeof({name})" for name, _, _, _ in columns]
    for found in cursor.execute(f"SELECT {', '.join(values + kinds)} FROM {table}"):
        row = list(found[: len(columns)])
        at = [value for value, (_, _, _, key) in zip(row, columns, strict=True) if key]
        key = at[0] if len(at) == 1 else at
        damage = _damage_of(table, key, columns, row, found[len(row) :])
        if damage is None:
            try:
                check_row(table, key, row[:-1], row[-1], may_be_unchecked)
            except StoreCorrupt as error:
                damage = error
        if damage is not None:
            yield damage


def _damage_of(
    table: str,
    key: object,
    columns: list[tuple[str, str, bool, object]],
    row: list[object],
    kinds: Sequence[object],
) -> StoreCorrupt | None:
    """What is wrong with the types of a row; its names become text."""
    for index, (name, declared, is_not_null, is_key) in enumerate(columns):
        if kinds[index] == "null" and not is_not_null and not is_key:
            continue
        if kinds[index] != _KINDS[declared]:
            return StoreCorrupt(
                f"table {table}, row {key}: expected {_KINDS[declared]} in {name}, found"
                f" {kinds[index]}"
            )
        value = row[index]
        if declared == "TEXT" and isinstance(value, bytes):
            try:
                row[index] = value.decode()
            except UnicodeDecodeError:
                return StoreCorrupt(f"table {table}, row {key}: expected UTF-8 in {name}")
    return None
