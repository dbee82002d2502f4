"""Queries that answer in one row: numbers and names as JSON.

Whoever reads shares the interpreter with a busy event loop and may lose it at every step of a
statement, for as long as the switch interval. A row per step made a read of 256 messages up to
twenty times as long.
"""

import json
from typing import final

import apsw

Argument = int | str | bytes | bytearray


@final
class Queries:
    """A connection, for statements that give one value."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._cursor = connection.cursor()

    def value(self, sql: str, *arguments: Argument) -> object:
        """The value that a statement gives; None if it gives no row."""
        rows = self._cursor.execute(sql, arguments).fetchall()
        return rows[0][0] if rows else None

    def number(self, sql: str, *arguments: Argument) -> int:
        """The number that a statement gives."""
        number = self.value(sql, *arguments)
        assert isinstance(number, int)
        return number

    def numbers(self, sql: str, *arguments: Argument) -> list[int]:
        """The JSON array of numbers that a statement gives."""
        found: list[int] = self._array(sql, *arguments)
        return found

    def names(self, sql: str, *arguments: Argument) -> list[str | None]:
        """The JSON array of names that a statement gives."""
        found: list[str | None] = self._array(sql, *arguments)
        return found

    def numbered_names(self, sql: str, *arguments: Argument) -> list[tuple[int, str]]:
        """The JSON array of pairs that a statement gives."""
        found: list[tuple[int, str]] = self._array(sql, *arguments)
        return found

    def checked_names(self, sql: str, *arguments: Argument) -> list[tuple[int, str, int]]:
        """The JSON array of numbers, names and checksums that a statement gives."""
        found: list[tuple[int, str, int]] = self._array(sql, *arguments)
        return found

    def found_names(self, sql: str, *arguments: Argument) -> list[tuple[int, str, int, int]]:
        """The JSON array of the same, each with one more number, that a statement gives."""
        found: list[tuple[int, str, int, int]] = self._array(sql, *arguments)
        return found

    def rows(self, sql: str, *arguments: Argument) -> list[list[int]]:
        """The JSON array of arrays of numbers that a statement gives."""
        found: list[list[int]] = self._array(sql, *arguments)
        return found

    def _array(self, sql: str, *arguments: Argument) -> list:  # type: ignore[type-arg]  # of JSON
        text = self.value(sql, *arguments)
        assert isinstance(text, str)
        found = json.loads(text)
        assert isinstance(found, list)
        return found


def as_json(values: object) -> str:
    """What ``json_each`` takes: a list of numbers, or of strings, or of lists of numbers."""
    return json.dumps(values, ensure_ascii=False)
