"""`push`: all that this clone has computed, for others to reuse.

DVC reuses an entry of the run-cache only where it has all files that the entry
names. `dvc push --run-cache` sends the entries, but only those of their files
that the current dvc.lock names, and no metrics, because these are in Git.
"""

import logging

from thaw.errors import InputError
from thaw.run.console import say


def main() -> None:
    """Pushes as `dvc push`, then the run-cache and all files that it names.

    Raises:
        InputError: where there is no remote, or nothing can be written to it.
    """
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo() as repo:
            sent = repo.push()
            runs = repo.stage_cache.push(remote=None)
            for files in repo.stage_cache.get_used_objs(runs).values():
                result = repo.cloud.push(files)
                sent += len(result.transferred)
                if result.failed:
                    raise InputError(f"{len(result.failed)} files failed")
    except Exception as error:  # each kind of remote has its own
        raise InputError(str(error)) from error
    say(f"{sent} files sent; {len(runs)} runs of stages are there to be reused")
