"""The recipe of the Keras guide, run as the guide runs it.

"Image classification via fine-tuning with EfficientNet": every epoch resizes
and augments every photograph, on two threads, and runs the whole network,
frozen or not. First a head at 1e-2, then the last block too at 1e-5,
BatchNormalization frozen. One thing is changed: photographs are not turned
upside down, so that both sides see the same augmentation.

    python -m benchmarks.guide DATA --weights FILE --image-size 224

DATA holds train, validation and test. Prints JSON: the seconds of each epoch
and of all the rest, and the accuracy on test. With fewer --timed epochs than
the recipe has, `seconds` is extrapolated from the median epoch.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

START = time.perf_counter()

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.project import PARAMS, RECIPE  # noqa: E402
from thaw.network.backbone import build_backbone  # noqa: E402
from thaw.network.backend import keras, make_deterministic  # noqa: E402


class Photographs(keras.utils.PyDataset):
    """Photographs held in memory; every batch resizes and augments its own."""

    def __init__(
        self,
        folder: Path,
        augmentation: list[keras.Layer],
        image_size: int,
        batch_size: int,
        seed: int | None,
        **workers,
    ):
        super().__init__(**workers)
        self.classes = sorted(d.name for d in folder.iterdir() if d.is_dir())
        self.images, self.labels = [], []
        for label, name in enumerate(self.classes):
            for file in sorted((folder / name).iterdir()):
                with Image.open(file) as image:
                    self.images.append(np.array(image.convert("RGB")))
                self.labels.append(label)
        self.labels = np.array(self.labels)
        self.size, self.batch_size = (image_size, image_size), batch_size
        self.augmentation = augmentation
        self.order = np.arange(len(self.labels))
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.on_epoch_end()

    def on_epoch_end(self):
        if self.rng is not None:
            self.rng.shuffle(self.order)

    def __len__(self):
        return -(-len(self.labels) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        rows = self.order[start : start + self.batch_size]
        batch = np.stack([self.resize(self.images[row]) for row in rows])
        for layer in self.augmentation:
            batch = layer(batch)
        labels = keras.ops.one_hot(self.labels[rows], len(self.classes))
        return np.array(batch), np.array(labels)

    def resize(self, image: np.ndarray) -> np.ndarray:
        image = image.astype("float32")
        return np.array(keras.ops.image.resize(image, self.size))


class EpochTimes(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def build_model(backbone: keras.Model, classes: int) -> keras.Model:
    x = keras.layers.BatchNormalization()(backbone.output)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(classes, activation="softmax")(x)
    return keras.Model(backbone.input, outputs)


def thaw_last_block(backbone: keras.Model) -> None:
    """All layers of block 7a and after, but for BatchNormalization."""
    names = [layer.name for layer in backbone.layers]
    first = names.index("block7a_expand_conv")
    for layer in backbone.layers[first:]:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True


def fit(model, train, validation, learning_rate: float, epochs: int):
    """Compiles and trains; the seconds of each epoch."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
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
    parser.add_argument("--timed", type=int, help="epochs to run of each part")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    make_deterministic(options.seed)
    augment = PARAMS["augment"] | RECIPE["augment"]
    augmentation = [
        keras.layers.RandomRotation(augment["rotation"]),
        keras.layers.RandomTranslation(*[augment["translation"]] * 2),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomContrast(augment["contrast"]),
    ]
    photographs = partial(
        Photographs,
        image_size=options.image_size,
        batch_size=options.batch_size,
    )
    train = photographs(
        options.data / "train", augmentation, seed=options.seed, workers=2
    )
    validation, test = (
        photographs(options.data / split, [], seed=None)
        for split in ("validation", "test")
    )
    backbone = build_backbone(
        "EfficientNetB0",
        "file" if options.weights else None,
        options.weights or "",
        options.image_size,
    )
    model = build_model(backbone, len(train.classes))
    parts = {}
    backbone.trainable = False
    for part, rate, epochs in [
        ("head", 1e-2, options.head_epochs),
        ("finetune", 1e-5, options.finetune_epochs),
    ]:
        if part == "finetune":
            thaw_last_block(backbone)
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
