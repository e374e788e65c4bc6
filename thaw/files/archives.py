"""Zip archives that may come from anyone."""

import zipfile
from pathlib import Path, PureWindowsPath

from thaw.errors import InputError


def check_archive(path: str | Path) -> None:
    """Raises InputError for a zip archive with a path that leads out of it."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts = PureWindowsPath(name)  # takes / and \\ for separators
            if parts.anchor or ".." in parts.parts:
                raise InputError(f"it holds {name}, a path out of the archive")
