"""Changes of a password file: each is there whole after a power cut, or not at all."""

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from holdfast.auth.password_file import FILE_BYTES_MAX, parse, parse_line, read_text
from holdfast.errors import LimitExceeded

_NEW_MODE: Final = 0o600


@contextmanager
def editing(path: Path) -> Iterator[None]:
    """Keep other editors out until the end: each is to see what the one before has written.

    Raises OSError.
    """
    # The file itself is replaced, so the lock is on its folder.
    folder = os.open(_real(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def read_for_edit(path: Path) -> str:
    """The text of a file, "" for one that is not there. Raises ConfigError for a wrong one."""
    if not _real(path).exists():
        return ""
    text = read_text(path)
    parse(text, str(path))
    return text


def with_user(text: str, user: str, credentials: Sequence[str]) -> str:
    """A text in which these are all credentials of a user; none remove it.

    The lines of others, comments too, stay as they are. Of the user's lines the first is where the
    new ones go.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    own = [f"{user}:{credential}" for credential in credentials]
    kept: list[str] = []
    for line in lines:
        entry = parse_line(line)
        if entry is None or entry[0] != user:
            kept.append(line)
        else:
            kept += own
            own = []
    return "".join(f"{line}\n" for line in kept + own)


def write(path: Path, text: str) -> None:
    """Put a text in the place of a file: durable, with the mode and owner that the file had.

    A new file may be read by its owner alone; made by root, it belongs to the folder's owner.
    Raises OSError, and LimitExceeded for a text that nobody would read again.
    """
    content = text.encode()
    if len(content) > FILE_BYTES_MAX:
        raise LimitExceeded(f"{path}: expected at most {FILE_BYTES_MAX} bytes")
    real = _real(path)
    part = real.parent / f".{real.name}.{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(part, flags, _NEW_MODE)
    try:
        try:
            _own(descriptor, real)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(part, real)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(real.parent)


def _real(path: Path) -> Path:
    """Where a symbolic link leads: the link is to stay."""
    return Path(os.path.realpath(path))


def _own(descriptor: int, real: Path) -> None:
    """Give the new file the owner and the mode of the one it is for."""
    try:
        before = real.stat()
        mode = before.st_mode & 0o7777
    except FileNotFoundError:
        before = real.parent.stat() if os.geteuid() == 0 else os.fstat(descriptor)
        mode = _NEW_MODE
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, mode)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
