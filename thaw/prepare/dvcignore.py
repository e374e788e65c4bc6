"""Which files DVC does not see."""

import os
from collections.abc import Callable
from pathlib import Path


def open_dvcignore(folder: str | Path) -> Callable[[str], bool] | None:
    """Whether .dvcignore hides a file; None where it does not apply."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter
    from dvc.repo import Repo

    try:
        root = Repo.find_root()
    except NotDvcRepoError:
        return None
    absolute = os.path.normpath(Path(folder).absolute())
    inside = Path(absolute).is_relative_to(root)
    # A Repo would open databases, which want room on the disk.
    return DvcIgnoreFilter(localfs, root).is_ignored_file if inside else None
