"""``holdfast store stats`` for a person."""

from typing import Final

from holdfast.cli.output import size
from holdfast.store.report import Reader, Stats

__all__ = ["stats_lines"]

_HEADINGS: Final = ("WAITING", "BYTES", "SENT", "PINS", "OLDEST", "LOST", "", "WHO")
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


def stats_lines(found: Stats) -> list[str]:
    """The lines to print."""
    oldest = _age(found.oldest_at_ms, found.at_ms)
    sessions = (
        f"{found.sessions}: {found.sessions_online} online, {found.sessions_absent} absent, "
        f"{found.sessions_behind} with messages waiting; {found.subscriptions} subscriptions"
    )
    file = f"{size(found.file_bytes)}, {size(found.free_bytes)} of it free"
    lines = [
        f"{found.file}: format {found.format}",
        f"file       {file}; write-ahead log {size(found.wal_bytes)}",
        f"messages   {found.log_messages} in the log, {size(found.log_bytes)}"
        + (f"; the oldest {oldest}" if found.oldest_lsn is not None else ""),
        f"sessions   {sessions}",
        f"groups     {found.groups}, {found.groups_behind} with messages waiting",
        f"retained   {found.retained}, {size(found.retained_bytes)}",
        f"delayed    {found.delayed}, {size(found.delayed_bytes)}",
        f"lost       {found.lost_messages}, {size(found.lost_bytes)}, of the sessions there are",
    ]
    if found.readers:
        rows = [_HEADINGS, *(_cells(reader, found.at_ms) for reader in found.readers)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS) - 2)]
        lines.append("")
        for row in rows:
            cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*cells, row[-2].ljust(7), row[-1]]).rstrip())
    return lines


def _cells(reader: Reader, now_ms: int) -> tuple[str, ...]:
    return (
        str(reader.messages),
        size(reader.bytes),
        str(reader.in_flight),
        str(reader.pins_messages),
        _age(reader.oldest_at_ms, now_ms) if reader.oldest_lsn is not None else "-",
        str(reader.lost_messages),
        "online" if reader.is_online else "absent",
        # Client identifiers are whatever clients say, control characters of the terminal included.
        repr(reader.name) if reader.kind == "session" else f"group {reader.name!r}",
    )


def _age(at_ms: int | None, now_ms: int) -> str:
    """How long ago, roughly."""
    if at_ms is None:
        return "?"
    seconds = max(0, now_ms - at_ms) // 1000
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"
