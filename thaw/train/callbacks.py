"""What happens after each epoch: scores, a line, all that resuming takes."""

import json
import math
import zipfile
import zlib

import numpy as np

from thaw.files.atomic import new_file
from thaw.files.rank import is_first
from thaw.linear.temperature import score_logits
from thaw.network.backend import keras
from thaw.run.console import progress, say
from thaw.stage.checkpoints import Checkpoint
from thaw.train.batches import Batches, feed
from thaw.train.distribution import share_file

KEPT = "training.npz"


class Validation(keras.callbacks.Callback):
    """Scores epochs on the validation images; ends a lost training.

    Args:
        batches: the validation images.
        patience: epochs in a row that may end beyond `highest_loss`, but for
            the last one.

    Attributes:
        highest_loss: training ends when the calibrated validation loss stays
            beyond this: not the loss as it is, which a few wrong predictions of
            great confidence may double in an epoch from which training
            recovers.
        beyond: epochs in a row that ended there.
        scores: those of the last epoch, by `score_logits`.
        logits: what they were measured on, (n, classes); None where this run
            measured nothing.
        lost: whether training ended there, or the last epoch's loss no longer
            was a number.
    """

    def __init__(self, batches: Batches, patience: int):
        super().__init__()
        self.batches, self.patience = batches, patience
        self.highest_loss = math.inf
        self.scores: dict[str, float] = {}
        self.logits: np.ndarray | None = None
        self.beyond = 0
        self.lost = False

    def predict(self) -> np.ndarray:
        """Logits (n, classes) of the validation images."""
        return self.model.predict(feed(self.batches), verbose=0)

    def measure(self) -> dict[str, float]:
        self.logits = self.predict()
        return score_logits(self.logits, self.batches.labels)

    def on_epoch_end(self, epoch, logs=None):
        self.scores = self.measure()
        logs.update({f"val_{key}": x for key, x in self.scores.items()})
        finite = math.isfinite(self.scores["loss"])
        far = self.scores["calibrated_loss"] > self.highest_loss
        self.beyond = self.beyond + 1 if far else 0
        last = epoch + 1 == self.params["epochs"]
        self.lost = not finite or self.beyond > (0 if last else self.patience)
        self.model.stop_training = self.lost


def list_state(
    model: keras.Model, layers: list[keras.Layer]
) -> list[keras.Variable]:
    """All that training changes in a model: weights, and seeds of its drops.

    Args:
        model: whose weights.
        layers: of it, with those that draw.
    """
    seeds = [
        layer.seed_generator.state
        for layer in layers
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0
    ]
    return [*model.weights, *seeds]


class Keeper(keras.callbacks.Callback):
    """Keeps after every epoch all that the next ones depend on.

    That is the model's weights, the seed states of its drop layers, which
    Keras saves nowhere, and the optimizer's variables. Batches follow from
    their step.

    Args:
        checkpoint: where it is kept.
        validation: what scores the epochs.
        layers: of the model, with those that draw.

    Attributes:
        start: validation scores before the first epoch, or None.
        curves: losses and accuracies, a row an epoch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        validation: Validation,
        layers: list[keras.Layer],
    ):
        super().__init__()
        self.path, self.layers = checkpoint.folder / KEPT, layers
        self.validation = validation
        self.start: dict[str, float] | None = None
        self.curves: list[dict] = []

    def list_variables(self) -> list[keras.Variable]:
        state = list_state(self.model, self.layers)
        return [*state, *self.model.optimizer.variables]

    def on_epoch_end(self, epoch, logs=None):
        self.curves.append({"epoch": epoch + 1, **logs})
        if not is_first():
            return
        about = {
            "start": self.start,
            "curves": self.curves,
            "scores": self.validation.scores,
            "beyond": self.validation.beyond,
            "lost": self.validation.lost,
        }
        variables = [variable.numpy() for variable in self.list_variables()]
        with new_file(self.path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, json.dumps(about), *variables)

    def restore(self, about: dict, arrays: list[np.ndarray]) -> None:
        """Goes back to what `load_kept` found."""
        for variable, value in zip(self.list_variables(), arrays, strict=True):
            variable.assign(value)
        self.start, self.curves = about["start"], about["curves"]
        self.validation.scores = about["scores"]
        self.validation.beyond = about["beyond"]
        self.validation.lost = about["lost"]


def load_kept(checkpoint: Checkpoint) -> tuple[dict, list[np.ndarray]] | None:
    """What a `Keeper` kept in a run that was cut off, if it is whole."""
    file = share_file(checkpoint.folder / KEPT)
    if not file:
        return None
    try:
        with np.load(file, allow_pickle=False) as kept:
            about, *arrays = kept.values()
        return json.loads(str(about)), arrays
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        say(f"an earlier run left a broken {KEPT}: training starts again")
        return None


class Narrator(keras.callbacks.Callback):
    """Progress over all steps, and a line for each epoch."""

    def __init__(self, epochs: int, steps: int, done: int):
        super().__init__()
        self.epochs, self.steps, self.done = epochs, steps, done

    def on_train_begin(self, logs=None):
        total, done = (n * self.steps for n in (self.epochs, self.done))
        self.context = progress(total, "training", "batches", done)
        self.bar = self.context.__enter__()

    def on_train_batch_end(self, batch, logs=None):
        self.bar.update()

    def on_train_end(self, logs=None):
        self.context.__exit__(None, None, None)

    def on_epoch_end(self, epoch, logs=None):
        self.bar.clear()
        say(
            f"epoch {epoch + 1:2d}/{self.epochs}: loss {logs['loss']:.4f}, "
            f"accuracy {logs['accuracy']:.4f}; validation loss "
            f"{logs['val_loss']:.4f} ({logs['val_calibrated_loss']:.4f} after "
            f"temperature), accuracy {logs['val_accuracy']:.4f}"
        )
