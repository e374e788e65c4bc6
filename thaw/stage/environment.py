"""Names what computed a result, to explain a difference between machines."""

import json
import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from thaw.data.efficientnet import find_keras_home
from thaw.files.threads import count_cores

CPUINFO = Path("/proc/cpuinfo")

# Those whose version may change a digit; with those of another backend.
PACKAGES = (
    "keras",
    "tensorflow",
    "openvino",
    "numpy",
    "scipy",
    "scikit-learn",
    "opencv-python-headless",
    "pillow",
    "pillow-heif",
    "tensorflow-datasets",
)


def describe_environment() -> str:
    """Versions, processor, threads, in one line."""
    parts = [f"Python {platform.python_version()}"]
    backend = find_backend()
    used = [backend] if backend in ("jax", "torch") else []
    for package in [*PACKAGES, *used]:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    if backend != "tensorflow":
        parts.append(f"Keras on {backend}")
    return ", ".join(
        [*parts, get_processor(), f"{count_cores()} threads", platform.system()]
    )


def find_backend() -> str:
    """The backend that Keras would choose, without importing Keras."""
    chosen = None
    with suppress(OSError, ValueError, AttributeError, RuntimeError):
        text = (find_keras_home() / "keras.json").read_text()
        chosen = json.loads(text).get("backend")
    return os.environ.get("KERAS_BACKEND") or chosen or "tensorflow"


def get_processor() -> str:
    """The name that its maker gave it."""
    name = read_processor().get("model name")
    return name or platform.processor() or platform.machine()


def read_processor() -> dict[str, str]:
    """What Linux tells of the first processor; nothing on other systems."""
    if not CPUINFO.exists():
        return {}
    first, _, _ = CPUINFO.read_text().partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
