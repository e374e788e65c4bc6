"""Which files DVC watches, and which Git would commit."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from thaw.errors import InputError


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
