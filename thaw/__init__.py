"""What the stages call. It imports none of them."""

import sys


def report_interrupt(kind, error, traceback) -> None:
    """Python's own report, but one line for Ctrl-C: importing takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("thaw: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = report_interrupt
