"""Which stretches of the log are lost. Its indexes know the blocks that their table has lost."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, cast, final

import apsw

from holdfast.store.blocks import BLOCK_ENTRIES_MAX
from holdfast.store.salvage_copy import Copy
from holdfast.store.salvage_rows import LSN_MAX

_INDEXES: Final = ("log_topic", "log_target")

Span = tuple[int, int]  # from an lsn until another, exclusive


@final
class LostRun:
    """A stretch of the log that is lost, wholly or in parts.

    ``topic`` is "" and ``target`` 0 where they are not known. ``is_known``: an index names it.
    """

    def __init__(
        self,
        from_lsn: int,
        until_lsn: int,
        topic: str = "",
        target: int = 0,
        is_known: bool = False,
    ) -> None:
        self.from_lsn = from_lsn
        self.until_lsn = until_lsn
        self.topic = topic
        self.target = target
        self.is_known = is_known

    @property
    def count(self) -> int:
        """How many messages are known to be lost with it."""
        return self.until_lsn - self.from_lsn if self.is_known else 0

    def touches(self, from_lsn: int, until_lsn: int) -> bool:
        return self.from_lsn < until_lsn and from_lsn < self.until_lsn


@final
class LostLog:
    """All that is lost of the log, ascending."""

    def __init__(self, runs: list[LostRun], is_tail_open: bool) -> None:
        self.runs = sorted(runs, key=lambda run: run.from_lsn)
        self.is_tail_open = is_tail_open  # more may be lost at its end than is known
        self.count = 0  # lsns in the runs, as far as they are known to have been given out
        self._starts = [run.from_lsn for run in self.runs]

    @property
    def tail_lsn(self) -> int:
        """Where the last run begins."""
        return self.runs[-1].from_lsn

    def end_at(self, seen_lsn: int, next_lsn: int) -> None:
        """Say up to which lsn there may have been entries, and up to which there were."""
        for run in self.runs:
            run.until_lsn = min(run.until_lsn, next_lsn)
            self.count += max(0, min(run.until_lsn, seen_lsn) - run.from_lsn)
        self.runs = [run for run in self.runs if run.from_lsn < run.until_lsn]
        self._starts = [run.from_lsn for run in self.runs]

    def holds(self, lsn: int) -> bool:
        """Whether an lsn lies in what is lost."""
        index = bisect_right(self._starts, lsn)
        return any(lsn < run.until_lsn for run in self.runs[max(0, index - 2) : index])


def find_lost_log(cursor: apsw.Cursor, copy: Copy, is_tail_open: bool) -> LostLog:
    """What the log has lost, by its own tree and by its indexes, in a copy that has the rest."""
    spans = [(lsn, last + 1) for lsn, last in copy.lost_blocks]
    for page in copy.lost_pages["log"]:
        low = 1 if page.low is None else max(1, page.low)
        spans.append((low, LSN_MAX if page.high is None else page.high + BLOCK_ENTRIES_MAX))
    spans += [(lsn, lsn + BLOCK_ENTRIES_MAX) for lsn in copy.lost_keys["log"] if lsn > 0]
    spans = _merged(spans)
    runs: list[LostRun] = []
    if all(copy.is_index_whole(name) for name in _INDEXES):
        # They may know of more than the table does: a page can be lost without a trace in it.
        runs = _known_runs(cursor, _listed_blocks(cursor, copy))
    else:
        is_tail_open = is_tail_open or (bool(spans) and spans[-1][1] >= LSN_MAX)
        runs = [LostRun(*hole) for hole in _holes(cursor, spans)]
    if is_tail_open:
        last = _numbers(cursor, "SELECT ifnull(max(last_lsn), 0) FROM log")[0]
        if not runs or runs[-1].until_lsn < LSN_MAX:
            runs.append(LostRun(max([last + 1, *(run.until_lsn for run in runs)]), LSN_MAX))
    return LostLog(runs, is_tail_open)


def _listed_blocks(cursor: apsw.Cursor, copy: Copy) -> list[tuple[int, str, int]]:
    """The blocks that an index lists and the copy lacks: lsn, topic, target."""
    topics = cursor.execute("SELECT number, name FROM topics").fetchall()
    names = dict(cast(list[tuple[int, str]], topics))
    found: list[tuple[int, str, int]] = []
    for index in _INDEXES:
        for values in copy.index_rows(index):
            if len(values) != 2:
                continue
            key, lsn = values
            if not isinstance(key, int) or not isinstance(lsn, int) or not 0 < lsn <= LSN_MAX:
                continue
            if cursor.execute("SELECT 1 FROM log WHERE lsn = ?1", (lsn,)).fetchall():
                continue
            name = names.get(key, "") if index == "log_topic" else ""
            found.append((lsn, name, key if index == "log_target" else 0))
    return sorted(found)


def _known_runs(cursor: apsw.Cursor, listed: list[tuple[int, str, int]]) -> list[LostRun]:
    """Each lost block with where it ends: at the next one, or where none can reach."""
    runs: list[LostRun] = []
    for index, (lsn, topic, target) in enumerate(listed):
        end = lsn + BLOCK_ENTRIES_MAX
        if index + 1 < len(listed):
            end = min(end, listed[index + 1][0])
        (following,) = _numbers(
            cursor, "SELECT ifnull((SELECT min(lsn) FROM log WHERE lsn > ?1), ?2)", lsn, end
        )
        runs.append(LostRun(lsn, min(end, following), topic, target, True))
    return runs


def _holes(cursor: apsw.Cursor, spans: list[Span]) -> list[Span]:
    """What these spans leave between the blocks that the copy has."""
    holes: list[Span] = []
    for low, high in spans:
        start = low
        blocks = cursor.execute(
            "SELECT lsn, last_lsn FROM log WHERE last_lsn >= ?1 AND lsn >= ?1 - 127 AND lsn < ?2"
            " ORDER BY lsn",
            (low, high),
        )
        for lsn, last_lsn in cast(Iterator[tuple[int, int]], blocks):
            if lsn > start:
                holes.append((start, lsn))
            start = max(start, last_lsn + 1)
        if start < high:
            holes.append((start, high))
    return _merged(holes)


def _numbers(cursor: apsw.Cursor, sql: str, *arguments: int) -> list[int]:
    rows = cast(list[tuple[int]], cursor.execute(sql, arguments).fetchall())
    return [number for (number,) in rows]


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
