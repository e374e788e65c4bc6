"""Keras, without TensorFlow's start-up chatter; seeds and determinism.

Import Keras from here: `from thaw.backend import keras`. Which backend runs is
Keras's own affair (KERAS_BACKEND).
"""

from thaw.console import fail, without_chatter

with without_chatter():
    try:
        import keras
    except ImportError as error:
        fail(f"Keras's backend can't be imported: {error}")

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.list_physical_devices()


def make_deterministic(seed: int) -> None:
    """Seeds Python, NumPy and the backend, and has it repeat itself exactly."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        tensorflow.config.experimental.enable_op_determinism()
