"""Set before any other import: telemetry off, Ctrl-C quick.

Every stage, command and worker imports it first, through `thaw` itself.
"""

import os
import signal
import sys

# OpenVINO reports conversions, and keeps an identity in $HOME, unless the
# package that does so can't be imported; it then uses its own stub.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TFDS may use it

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
