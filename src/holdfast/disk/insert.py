"""Statements that put many rows at once."""

from collections.abc import Sequence
from typing import Final, final

import apsw

from holdfast.disk.checksums import Value

# Rows go into a table by statements of so many rows: a step per statement, and not per row. Few
# different statements, so that all stay prepared.
ROWS_PER_STATEMENT: Final = (64, 16, 4, 1)


@final
class Insert:
    """The statements that put rows of one table, for each of ROWS_PER_STATEMENT.

    ``columns`` counts those of the table, or names some, of which the last is the checksum. With
    ``is_new`` it is an error if a row is there, which can only be damage.
    """

    def __init__(self, table: str, columns: int | tuple[str, ...], *, is_new: bool = False) -> None:
        self.columns: Final = columns if isinstance(columns, int) else len(columns)
        names = "" if isinstance(columns, int) else f" ({', '.join(columns)})"
        verb = "INSERT" if is_new else "INSERT OR REPLACE"
        row = f"({', '.join('?' * self.columns)})"
        self._statements = [
            (count, f"{verb} INTO {table}{names} VALUES {', '.join([row] * count)}")
            for count in ROWS_PER_STATEMENT
        ]

    def run(self, cursor: apsw.Cursor, values: Sequence[Value]) -> None:
        """Put the rows whose values these are, one after the other; later ones replace earlier."""
        start = 0
        for count, statement in self._statements:
            size = count * self.columns
            while len(values) - start >= size:
                cursor.execute(statement, values[start : start + size])
                start += size
        assert start == len(values)
