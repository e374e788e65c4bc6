"""What every export is: the names of its input and output, and its record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.network.backend import keras
from thaw.network.model_info import ModelInfo

INPUT, OUTPUT = "images", "probabilities"

# Images (n, height, width, 3) uint8 to probabilities (n, classes) float32.
Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Format:
    """One export format: how to write a model in it, and how to run that.

    An export is complete. It takes RGB images of any size in [0, 255], crops
    them where `info.fit` is "crop", resizes them with antialiasing as far as
    its runtime can, and gives calibrated probabilities. It carries the
    `ModelInfo`. The same model gives the same bytes.

    Attributes:
        path: where the export lies in models/export: the name of a file, or
            of a folder of files.
        write: writes a model, as in models/finetuned.keras, to a path.
        open_runtime: opens an export in the runtime that it is for.
        caveat: writes the lines of the model card that say what a user of the
            export must know; None where there is nothing to say.
    """

    path: str
    write: Callable[[Path, keras.Model, ModelInfo], None]
    open_runtime: Callable[[Path], Predict]
    caveat: Callable[[ModelInfo], str] | None = None
