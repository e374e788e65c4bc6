"""What computed a result, so that a difference has an explanation."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thaw.threads import count_cores

# Those whose version may change a digit; with KERAS_BACKEND.
PACKAGES = (
    "keras",
    "tensorflow",
    "openvino",
    "numpy",
    "opencv-python-headless",
    "pillow",
)


def describe_environment() -> str:
    """Versions, processor, threads, in one line."""
    parts = [f"Python {platform.python_version()}"]
    backend = os.environ.get("KERAS_BACKEND")
    used = [backend] if backend in ("jax", "torch") else []
    for package in [*PACKAGES, *used]:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if backend:
        parts.append(f"KERAS_BACKEND={backend}")
    return ", ".join(
        [*parts, get_processor(), f"{count_cores()} threads", platform.system()]
    )


def get_processor() -> str:
    """The name that its maker gave it."""
    about = Path("/proc/cpuinfo")
    if about.exists():
        for line in about.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
