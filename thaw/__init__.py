"""Transfer learning with EfficientNet. docs/architecture.md draws the rooms."""

import sys

# `python -m thaw` puts the current folder before all libraries: whatever
# numpy.py lies there would run. A library that is here to be imported, such as
# pathlib, may itself be in that folder. While Python looks for what it is to
# run, argv[0] is "-m".
CALLED = sys.argv[:1] == ["-m"] and not sys.flags.safe_path
if CALLED and not __file__.startswith(f"{sys.path[0]}/thaw/"):
    del sys.path[0]

import thaw.run.start  # noqa: F401, E402 (before any library)

__version__ = "0.1.0"
