"""A disk that fills up: put this folder on PYTHONPATH, and stages fail to write from their n-th write on.

DRILL_FULL_DISK is n; DRILL_FOLDER is where the disk is. Python loads this file by its name at start.
"""

import errno
import os
import sys

LIMIT = int(os.environ.get("DRILL_FULL_DISK", "0"))
FOLDER = os.environ.get("DRILL_FOLDER", "")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
count = 0


def fill(event: str, arguments: tuple) -> None:
    """Refuse what takes room on the disk once it is full."""
    global count
    if event == "os.mkdir" or (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
        target = arguments[0]
    else:
        return
    if isinstance(target, str | os.PathLike) and os.path.abspath(os.fsdecode(target)).startswith(FOLDER):  # noqa: PTH100
        count += 1
        if count >= LIMIT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(target))


if LIMIT and FOLDER and any(part.startswith("stages.") for part in sys.orig_argv):
    sys.addaudithook(fill)
