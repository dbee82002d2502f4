"""The file of a Unix socket: made with its permissions, never in the place of what is in use."""

import errno
import os
import socket
import stat
from typing import Final, final

PROBE_TIMEOUT_S: Final = 1.0  # for a look whether somebody answers on a socket


@final
class UnixSocketFile:
    """A bound socket, not yet listening, and the file it has made."""

    def __init__(self, path: str, mode: int) -> None:
        """Bind to ``path`` with permissions ``mode``.

        The socket of a broker that is dead is replaced. Raises OSError if the path is in use, by
        a live one or by another kind of file, or cannot be made.
        """
        self.path: Final = path
        _remove_stale(path)
        self.socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # bind makes the file with all permissions that the mask leaves, so they are right from
        # the first moment. The mask is the process's, hence no wait between these lines.
        mask = os.umask(0o777 & ~mode)
        try:
            self.socket.bind(path)
        except BaseException:
            self.socket.close()
            raise
        finally:
            os.umask(mask)
        self._identity = _identity(path)

    def remove(self) -> None:
        """Remove the file, if it still is the one that was made here."""
        try:
            if _identity(self.path) == self._identity:
                os.unlink(self.path)
        except FileNotFoundError:
            pass


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EADDRINUSE, "there is another kind of file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except (TimeoutError, BlockingIOError):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    # Between the look and here another broker may have made it anew.
    if _identity(path) == (found.st_dev, found.st_ino):
        os.unlink(path)
