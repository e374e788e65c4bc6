"""The recipe of the Keras guide, run as the guide runs it.

"Image classification via fine-tuning with EfficientNet": every epoch decodes,
resizes and augments every photograph and runs the whole network, frozen or
not. First a head at 1e-2, then the last block too at 1e-5, BatchNormalization
frozen.

    python -m benchmarks.guide DATA --weights FILE --image-size 224

DATA holds train, validation and test. Prints JSON: the seconds of each epoch
and of all the rest, and the accuracy on test. With fewer --timed epochs than
the recipe has, `seconds` is extrapolated from the median epoch.
"""

import argparse
import json
import time
from pathlib import Path

START = time.perf_counter()

import numpy as np  # noqa: E402

from thaw.backbone import build_backbone  # noqa: E402
from thaw.backend import keras, make_deterministic  # noqa: E402
from thaw.plan import apply_plan, make_plan  # noqa: E402


class Photographs(keras.utils.PyDataset):
    """Batches of photographs, decoded and resized one at a time."""

    def __init__(self, folder: Path, image_size: int, batch_size: int, seed):
        super().__init__()
        self.classes = sorted(d.name for d in folder.iterdir() if d.is_dir())
        self.files = [
            (file, label)
            for label, name in enumerate(self.classes)
            for file in sorted((folder / name).iterdir())
        ]
        self.size = (image_size, image_size)
        self.batch_size = batch_size
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        rows = np.arange(len(self.files))
        self.order = rows if self.rng is None else self.rng.permutation(rows)

    def __len__(self):
        return -(-len(self.files) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        images = [
            keras.utils.load_img(
                self.files[row][0],
                target_size=self.size,
                interpolation="bilinear",
            )
            for row in rows
        ]
        labels = np.array([self.files[row][1] for row in rows])
        return np.stack([np.asarray(x, "float32") for x in images]), labels


class EpochTimes(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def build_model(backbone: keras.Model, classes: int) -> keras.Model:
    """The guide's model: augmentation inside, in front of the backbone."""
    inputs = keras.Input(backbone.input_shape[1:])
    x = keras.layers.RandomRotation(0.15)(inputs)
    x = keras.layers.RandomTranslation(0.1, 0.1)(x)
    x = keras.layers.RandomFlip()(x)
    x = keras.layers.RandomContrast(0.1)(x)
    x = backbone(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(inputs, outputs)


def fit(model, train, validation, learning_rate: float, epochs: int):
    """Compiles and trains; the seconds of each epoch."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    times = EpochTimes()
    model.fit(
        train,
        validation_data=validation,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        callbacks=[times],
    )
    return times.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--head-epochs", type=int, default=25)
    parser.add_argument("--finetune-epochs", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--timed", type=int, help="epochs to run of each part")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    make_deterministic(options.seed)
    train, validation, test = (
        Photographs(
            options.data / split, options.image_size, options.batch_size, seed
        )
        for split, seed in [
            ("train", options.seed),
            ("validation", None),
            ("test", None),
        ]
    )
    backbone = build_backbone(
        "EfficientNetB0",
        "file" if options.weights else None,
        options.weights or "",
        options.image_size,
    )
    model = build_model(backbone, len(train.classes))
    parts = {}
    for part, blocks, rate, epochs in [
        ("head", 0, 1e-2, options.head_epochs),
        ("finetune", options.blocks, 1e-5, options.finetune_epochs),
    ]:
        plan = make_plan(backbone, blocks, tap_kept=False)
        apply_plan(backbone, plan, drop_connect_rate=0.2 if blocks else 0.0)
        run = min(options.timed or epochs, epochs)
        seconds = fit(model, train, validation, rate, run)
        # The first epoch traces the graph and is not like the others.
        rest = np.median(seconds[1:] or seconds) * (epochs - run)
        parts[part] = {"epochs": seconds, "all": sum(seconds) + float(rest)}
    accuracy = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    total = time.perf_counter() - START
    ran = sum(sum(part["epochs"]) for part in parts.values())
    seconds = total - ran + sum(part["all"] for part in parts.values())
    print(
        json.dumps(
            {
                "seconds": seconds,
                "extrapolated": bool(options.timed),
                "rest": total - ran,
                "parts": parts,
                "accuracy": accuracy,
            }
        )
    )


if __name__ == "__main__":
    main()
