"""Files that are read anew when they change, or on SIGHUP; wrong ones change nothing."""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, final

from holdfast.errors import ConfigError
from holdfast.logs import get_logger
from holdfast.worker import Worker

LOOK_INTERVAL_S: Final = 1.0

_log = get_logger(__name__)

# What tells one content of a file from another; None for one that is not there.
_Stamp = tuple[int, ...] | None


class Part(Protocol):
    """What goes by the content of files: an authenticator, for instance."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files whose change counts."""
        ...

    def reload(self) -> None:
        """Read all of it anew, or raise ConfigError and stay as it was; runs on a thread."""
        ...


@final
class Watcher:
    """Looks whether files have changed, and has their parts read them.

    A changed file counts when the next look finds it unchanged: whoever writes it in place has
    come to an end by then, as far as one can tell. Make it before the parts read their files for
    the first time. ``has_news`` says whether something else than a file has changed. ``stat`` is
    ``os.stat`` but in tests.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        has_news: Callable[[], bool] = lambda: False,
        stat: Callable[[Path], os.stat_result] = os.stat,
    ) -> None:
        self._has_news = has_news
        self._stat = stat
        self._parts = [_Watched(part, self._stamps(part)) for part in parts]

    @property
    def has_parts(self) -> bool:
        """Whether there is anything to look at."""
        return bool(self._parts)

    def look(self, *, is_forced: bool = False) -> bool:
        """Read what has changed, or everything: True if something is other than before."""
        has_changed = self._asked_for_news()
        for watched in self._parts:
            stamps = self._stamps(watched.part)
            is_settled = stamps == watched.seen
            watched.seen = stamps
            if is_forced or (is_settled and stamps != watched.read):
                watched.read = stamps
                has_changed |= _read(watched.part)
        return has_changed

    def _asked_for_news(self) -> bool:
        try:
            return self._has_news()
        # A plug-in may raise anything; files are looked at all the same.
        except Exception as error:
            _log.failure("the question for news failed", error)
            return False

    def _stamps(self, part: Part) -> tuple[_Stamp, ...]:
        return tuple(self._stamp(file) for file in part.files)

    def _stamp(self, file: Path) -> _Stamp:
        try:
            found = self._stat(file)
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)


@final
class _Watched:
    def __init__(self, part: Part, stamps: tuple[_Stamp, ...]) -> None:
        self.part = part
        self.seen = stamps  # at the last look
        self.read = stamps  # when it was read, whether it was right or not


def _read(part: Part) -> bool:
    files = ", ".join(str(file) for file in part.files)
    try:
        part.reload()
    except (ConfigError, OSError) as error:
        _log.error(f"{part.name}: what was read before stays: {error}")
        return False
    # A plug-in may raise anything; the broker goes on with what it had.
    except Exception as error:
        _log.failure(f"{part.name}: what was read before stays", error)
        return False
    if files:
        _log.info(f"{part.name}: read anew", files=files)
    return True


@final
class Reloader:
    """Looks each second, on a thread of its own; ``changed`` is called on the event loop."""

    def __init__(self, watcher: Watcher, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._watcher = watcher
        self._worker: Worker[bool] = Worker("holdfast-reload", self._loop)
        self._timer: asyncio.TimerHandle | None = None
        self._is_looking = False
        self._is_wanted = False  # a forced look, after the one under way
        self._is_stopped = False
        self._await_next()

    def reload(self) -> None:
        """Read everything anew, now."""
        self._is_wanted = True
        if not self._is_looking:
            self._look()

    def stop(self) -> None:
        """Look no more, without waiting for a look under way."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        self._worker.leave()

    def await_thread(self, patience_s: float) -> None:
        """Once it is stopped, wait so long for a look under way; from any thread."""
        self._worker.join(patience_s)

    def _await_next(self) -> None:
        self._timer = self._loop.call_later(LOOK_INTERVAL_S, self._look)

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        is_forced, self._is_wanted = self._is_wanted, False
        self._is_looking = True
        self._worker.submit(partial(self._watcher.look, is_forced=is_forced), self._looked)

    def _looked(self, has_changed: bool | None, error: BaseException | None) -> None:
        self._is_looking = False
        if self._is_stopped:
            return
        if error is not None:
            _log.failure("the look for changed files failed", error)
        if has_changed:
            self._changed()
        if self._is_wanted:
            self._look()
        else:
            self._await_next()
