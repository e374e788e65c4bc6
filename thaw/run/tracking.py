"""What DVC can't read of a folder, and what Git would commit of it."""

import os
import stat
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from thaw.errors import InputError
from thaw.files.phrases import list_some


def check_untracked(path: str | Path) -> None:
    """Raises InputError for photographs that an experiment would commit to Git.

    An experiment commits whatever Git neither ignores nor has. What is under
    DVC is ignored by Git.
    """
    command = "git --literal-pathspecs ls-files --others --exclude-standard"
    command += " --directory --no-empty-directory"
    try:
        done = subprocess.run(
            [*command.split(), "--", os.path.realpath(path)],
            capture_output=True,
        )
    except FileNotFoundError:  # no Git
        return
    if done.returncode == 0 and done.stdout:
        raise InputError(
            f"prepare.path is {path}: Git neither ignores nor has all of it, "
            f"and an experiment would commit it; `dvc add {path}` and commit "
            f"{path}.dvc, or name it in .gitignore"
        )


# What a file is that DVC can't read, and what to do about it. DVC waits for a
# pipe and reads a device without end; at the others it stops, at a name that is
# not UTF-8 without saying which.
UNREADABLE = {
    "pipes, sockets or devices": "remove them",
    "links that point nowhere": "`dvc checkout` brings back what DVC's cache "
    "has of them; remove the others",
    "names that are not UTF-8": "rename them",
}


def check_readable(path: str | Path) -> None:
    """Raises InputError for files that DVC can't read, before it tries."""
    found = defaultdict(list)
    for file in walk_files(path):
        for fault in find_faults(file):
            found[fault].append(escape_name(file))
    if found:
        faults = [
            f"{fault}: {list_some(found[fault])} ({UNREADABLE[fault]})"
            for fault in UNREADABLE
            if fault in found
        ]
        raise InputError(f"prepare.path is {path}: {'; '.join(faults)}")


def walk_files(path: str | Path) -> Iterator[str]:
    """Yields all that lies below a folder, links not followed."""
    for folder, folders, files in os.walk(path):
        for name in [*sorted(folders), *sorted(files)]:
            yield f"{folder}/{name}"


def find_faults(file: str) -> Iterator[str]:
    """Yields keys of `UNREADABLE`."""
    try:
        file.encode()
    except UnicodeEncodeError:
        yield "names that are not UTF-8"
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        yield "links that point nowhere"
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        yield "pipes, sockets or devices"


def escape_name(name: str) -> str:
    """A name whose bytes may be any, as text."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
