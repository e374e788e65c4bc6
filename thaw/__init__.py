"""What the stages call. It imports none of them."""

import os
import signal
import sys

# File descriptor 2 may be captured when there is something to say.
STDERR = os.dup(2)


def leave(number: int, frame: object) -> None:
    """Ends a stage that is still importing: seconds, with nothing to lose.

    An exception would do as well, if no library caught it.
    """
    os.write(STDERR, b"thaw: interrupted\n")
    os._exit(130)


if any(argument.startswith("stages.") for argument in sys.orig_argv):
    signal.signal(signal.SIGINT, leave)
