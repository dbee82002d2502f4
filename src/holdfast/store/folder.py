"""The data folder: what stands in it beside the store, and whose it is."""

import stat
from pathlib import Path
from typing import Final

# A file in the folder while a broker has the store open. A start that finds it knows that the end
# before was not clean, and wants the write-ahead log.
OPEN_MARK: Final = "holdfast.open"


def too_open(folder: Path, file: Path) -> list[str]:
    """What other users of the machine may do with the store of a folder, in words, if anything.

    What the broker makes is its user's alone; a folder or a file that was there before need not be.
    """
    found: list[str] = []
    inside = stat.S_IMODE(folder.stat().st_mode)
    # Where only owners rename their files (1777), anyone may still put the missing ones there.
    if inside & (stat.S_IWGRP | stat.S_IWOTH):
        found.append(f"{folder} has mode {inside:04o}, others can put files there; chmod 700")
    for path in (file, file.with_name(f"{file.name}-wal")):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
        if mode & 0o077 and inside & (stat.S_IXGRP | stat.S_IXOTH):
            found.append(f"{path} has mode {mode:04o}, others can read messages; chmod 600")
    return found
