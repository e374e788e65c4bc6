"""Everything that anyone has computed, to where others find it.

`dvc push --run-cache` sends the entries of the run-cache, but of the files
that they name only those of the current lock, and never metrics, which are in
Git. An entry serves only where all of its files are at hand.
"""

import logging

from thaw.errors import InputError
from thaw.run.console import say


def main() -> None:
    """`dvc push`, then the run-cache with all that it names.

    Raises:
        InputError: where there is no remote, or it can't be written.
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
