"""Transfer learning with EfficientNet. docs/architecture.md draws the rooms."""

import thaw.run.start  # noqa: F401 (before any library)

__version__ = "0.1.0"
