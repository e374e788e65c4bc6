"""Keras, quick to import and without TensorFlow's chatter; determinism.

Import Keras from here: `from thaw.network.backend import keras`. Which backend
runs is Keras's own affair (KERAS_BACKEND).
"""

import ctypes
import gc
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

from thaw.run.console import fail, say, without_chatter

# Keras imports these if they are installed, for wrappers and plots that Thaw
# does not use. They take a third of Keras's import time.
UNUSED = ("matplotlib", "sklearn")


@contextmanager
def import_quickly() -> Iterator[None]:
    """Hides `UNUSED` from Keras and turns the garbage collector off.

    Modules are not garbage: they are exempt from collection afterwards, which
    saves a second at the program's end.
    """
    hidden = [name for name in UNUSED if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        for name in hidden:
            del sys.modules[name]


# glibc's mallopt: a heap grows by TOP_PAD bytes more than asked, and keeps
# them.
M_TOP_PAD = -2
TOP_PAD = 128 * 2**20


def keep_memory() -> None:
    """Makes the C library keep freed memory.

    TensorFlow frees and allocates the same memory in every step. The kernel
    would clear it each time, which takes up to a third of the training time.
    """
    with suppress(OSError, AttributeError):  # other systems, other libraries
        ctypes.CDLL("libc.so.6").mallopt(M_TOP_PAD, TOP_PAD)


def use_onednn() -> None:
    """Has TensorFlow compute with oneDNN on any x86 processor.

    By itself TensorFlow does so only with AVX512-VNNI and newer. With AVX2
    alone thawed blocks train 1.3 to 1.9 times as fast: docs/benchmarks.md. The
    user's own TF_ENABLE_ONEDNN_OPTS goes first.
    """
    if platform.machine() == "x86_64":
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


keep_memory()
use_onednn()
with without_chatter(), import_quickly():
    try:
        import keras
    except ImportError as error:
        hint = "; `pip install --group jax`" if error.name == "jax" else ""
        fail(f"Keras's backend can't be imported: {error}{hint}")

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()


def undo_settings() -> None:
    """Undoes what keras.json and the environment change of every network.

    channels_first and float16 make other networks than the weights are of;
    KERAS_MAX_EPOCHS and KERAS_MAX_STEPS_PER_EPOCH cut a training short.
    """
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


undo_settings()


def has_accelerator() -> bool:
    """Whether Keras, on JAX or Torch, computes on anything but processors."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.is_available()
    return False


def sees_gpu() -> bool:
    """Whether TensorFlow, as the backend, computes on a GPU."""
    if keras.backend.backend() != "tensorflow":
        return False
    return bool(tensorflow.config.list_physical_devices("GPU"))


@cache
def warn_of_float32() -> None:
    """Says once that another backend would compute in bfloat16 on this GPU."""
    if sees_gpu():
        say(
            "TensorFlow sees a GPU and computes there in float32; bfloat16 "
            "takes KERAS_BACKEND=jax or torch"
        )


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and the backend, and has it repeat itself exactly."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        tensorflow.config.experimental.enable_op_determinism()
