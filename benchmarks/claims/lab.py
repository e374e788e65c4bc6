"""Photographs, frozen outputs and trainings that the experiments share.

Everything is the product's own: its stages prepare and extract, its head, its
thaw plan, its training loop. What an experiment changes is named in it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from benchmarks.project import Project
from thaw.data.activations import KeptViews
from thaw.data.dataset import Dataset, Gather
from thaw.data.efficientnet import IMAGE, LAST, LOGITS, POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import count_views
from thaw.data.views import gather_views
from thaw.files.arrays import create_array
from thaw.frozen.engines import freeze_model
from thaw.linear.ridge import fit_ridge
from thaw.linear.temperature import score_logits
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import (
    build_head,
    join_head,
    seed_dropout,
    set_head,
)
from thaw.network.parts import get_part
from thaw.network.pooling import pool_blocks
from thaw.network.thawing import apply_plan, make_plan
from thaw.run import params
from thaw.train.batches import Batches, feed
from thaw.train.inputs import stream
from thaw.train.recipe import L2FromStart, Recipe

SPLITS = ("train", "validation", "test")

# Of the fine-tuning runs, on every set alike, so that all of them fit into
# hours of 2 cores; all else is what params.yaml says.
EPOCHS = 6
VIEWS = 4


@dataclass(frozen=True)
class Photographs:
    """A set, and what params.yaml says of it.

    Attributes:
        name: for people, and of its folder below --data.
        near: whether it is like ImageNet.
        flip: whether left and right are alike.
        group: pattern of what stays together.
    """

    name: str
    near: bool
    flip: bool
    group: str | None = None


SETS = {
    "clothing": Photographs("clothing", near=True, flip=True),
    "sign-digits": Photographs("sign-digits", near=False, flip=True),
    "traffic-signs": Photographs(
        "traffic-signs", near=False, flip=False, group=r"([^/]+/\d+)_"
    ),
    "digits": Photographs("digits", near=False, flip=False),
}


class Lab:
    """One set at one size, through one backbone.

    Args:
        photographs: the set.
        data: the folder that holds the sets.
        weights: of EfficientNetB4; the digits take the bundled checkpoint.
        work: where prepared images and activations are kept.
        image_size: pixels a side.
    """

    def __init__(
        self,
        photographs: Photographs,
        data: Path,
        weights: Path,
        work: Path,
        image_size: int = 128,
    ):
        self.set, self.image_size = photographs, image_size
        self.folder = work / f"{photographs.name}-{image_size}"
        self.options = {
            "backbone": {"name": "EfficientNetB4", "file": str(weights)},
            "augment": {"horizontal_flip": photographs.flip},
            "prepare": {
                "source": "folder",
                "path": str(data / photographs.name),
                "image_size": image_size,
                "group": photographs.group,
            },
        }
        if photographs.name == "digits":
            self.image_size, self.options = 64, {}

    @cached_property
    def params(self) -> params.Params:
        assert self.dataset  # prepared
        return params.load(self.folder / "params.yaml")

    @cached_property
    def dataset(self) -> Dataset:
        """Prepared by the stage, once."""
        prepared = self.folder / "data" / "prepared"
        if not prepared.exists():
            project = Project.create(self.folder)
            project.set(self.options)
            project.repro("prepare")
        return Dataset(prepared)

    @property
    def classes(self) -> int:
        return len(self.dataset.classes)

    @cache  # noqa: B019 (one object a set)
    def open_labels(self, split: str) -> np.ndarray:
        return self.dataset.open_labels(split)

    def build_backbone(self) -> keras.Model:
        assert self.dataset.classes  # prepared
        return build_backbone(
            **self.params.backbone.model_dump(), image_size=self.image_size
        )

    def gather(
        self,
        layer: str,
        split: str,
        views: int,
        change: Callable[[np.ndarray], np.ndarray] | None = None,
        name: str = "",
        start: str = IMAGE,
    ) -> KeptViews:
        """The output of a layer for every view, run once and kept.

        Args:
            layer: of the backbone.
            split: of the data.
            views: of each image; 1 beside train.
            change: what is done to the images before.
            name: of that change.
            start: a layer before, whose kept output is run on from there.
        """
        folder = self.folder / "kept" / f"{layer}{name}"
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{split}-{view}.npy" for view in range(views)]
        if not all(path.exists() for path in paths):
            self._run(layer, split, paths, change or (lambda x: x), start)
        return KeptViews(paths)

    def gather_all(self, layer: str, views: int, **change) -> dict:
        """For every split what `gather` gives."""
        return {
            split: self.gather(
                layer, split, count_views(split, views), **change
            )
            for split in SPLITS
        }

    def stream(self, layer: str) -> dict[str, Gather]:
        """For every split what computes a layer's output, in 32 bits."""
        part = get_part(self.build_backbone(), IMAGE, layer)
        network = freeze_model(part, "auto", "uint8")
        augment = self.params.augment.model_dump()
        return {
            split: stream(
                network,
                gather_views(self.dataset, split, augment),
                network.get_precision(split),
            )
            for split in SPLITS
        }

    def _run(self, layer, split, paths, change, start) -> None:
        backbone = self.build_backbone()
        if layer == POOLED:
            backbone = keras.Model(backbone.input, pool_blocks(backbone))
        part = get_part(backbone, start, layer)
        network = freeze_model(part, "auto", "float32")
        precision = network.get_precision(split)
        inputs = (
            gather_views(self.dataset, split, self.params.augment.model_dump())
            if start == IMAGE
            else self.gather(start, split, len(paths))
        )
        count = len(self.open_labels(split))
        for view, path in enumerate(paths):
            if path.exists():
                continue

            def load(start: int, stop: int, view=view) -> np.ndarray:
                rows = np.arange(start, stop)
                batch = inputs(rows, np.full(len(rows), view))
                return change(batch.astype(np.float32))

            unfinished = path.with_suffix(".unfinished")
            dtype = "float32" if layer == LAST else "float16"
            out = create_array(unfinished, (count, *network.outputs[0]), dtype)
            network.run(load, count, [out], precision=precision)
            unfinished.rename(path)


@dataclass(frozen=True)
class EightBits:
    """Activations (n, ..., C) in 8 bits, with a scale for each channel.

    Attributes:
        low: (C,), what 0 stands for.
        step: (C,), from one number to the next.
    """

    low: np.ndarray
    step: np.ndarray

    @classmethod
    def fit(cls, activations: np.ndarray) -> "EightBits":
        axes = tuple(range(activations.ndim - 1))
        low, high = (
            find(activations, axis=axes).astype(np.float32)
            for find in (np.min, np.max)
        )
        return cls(low, np.maximum(high - low, 1e-6) / 255)

    def encode(self, activations: np.ndarray) -> np.ndarray:
        steps = (activations.astype(np.float32) - self.low) / self.step
        return np.clip(np.rint(steps), 0, 255).astype(np.uint8)

    def decode(self, steps: np.ndarray) -> np.ndarray:
        return self.low + self.step * steps.astype(np.float32)

    def round(self, gather: Gather) -> Gather:
        """What gathers activations as they come back from 8 bits."""
        return lambda rows, view_numbers: self.decode(
            self.encode(gather(rows, view_numbers))
        )


class Scores(keras.callbacks.Callback):
    """Validation and test scores before training and after each epoch."""

    def __init__(self, validation: Batches, test: Batches):
        super().__init__()
        self.parts = {"validation": validation, "test": test}
        self.rows = []

    def on_train_begin(self, logs=None):
        self.on_epoch_end(0)

    def on_epoch_end(self, epoch, logs=None):
        row = {}
        for split, batches in self.parts.items():
            logits = self.model.predict(feed(batches), verbose=0)
            scores = score_logits(logits, batches.labels)
            del scores["temperature"]
            row |= {f"{split}_{key}": round(x, 5) for key, x in scores.items()}
        self.rows.append(row)


def fit(
    lab: Lab,
    model: keras.Model,
    gather: dict,
    views: int,
    seed: int,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    warmup_epochs: int = 0,
    optimizer: Callable = keras.optimizers.Adam,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    l2: float = 0.0,
) -> dict:
    """Trains activations to logits, as `train_model` does.

    Args:
        lab, model: of the same set.
        gather: activations of each split.
        views: of a training image.
        seed: of their order.
        epochs, learning_rate, batch_size, warmup_epochs: as in params.yaml.
        optimizer: takes a schedule; one that averages weights is scored, and
            ends, with the average.
        smoothing: of the labels, the share that all classes have alike.
        mixup: both parameters of the Beta distribution that pairs of
            activations and their labels are mixed by (Zhang et al. 2018,
            arXiv:1710.09412); 0 mixes none.
        l2: of the last layer, by `L2FromStart`.

    Returns:
        Scores before the first epoch and after each, the number of test
        images, and seconds of all epochs, their scoring included.
    """
    train, validation, test = (
        Batches(
            gather[split],
            lab.open_labels(split),
            views if split == "train" else 1,
            batch_size,
            seed if split == "train" else None,
        )
        for split in SPLITS
    )
    recipe = Recipe("finetune", epochs, learning_rate, warmup_epochs)
    optimizer = optimizer(recipe.make_schedule(train.steps))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batches = feed(train)
    if smoothing or mixup:
        import tensorflow

        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=smoothing
        )
        batches = tensorflow.data.Dataset.zip(
            tensorflow.data.Dataset.random(seed), batches
        ).map(lambda number, batch: mix(lab.classes, mixup, number, *batch))
    if l2:
        kernel = model.layers[-1].kernel
        kernel.regularizer = L2FromStart(kernel, l2)
    model.compile(optimizer=optimizer, loss=loss)
    scores = Scores(validation, test)
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    start = time.perf_counter()
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=train.steps,
        shuffle=False,
        verbose=0,
        callbacks=[average, scores] if optimizer.use_ema else [scores],
    )
    return {
        "images": len(test.labels),
        "seconds": round(time.perf_counter() - start, 1),
        "scores": scores.rows,
    }


def mix(classes: int, strength: float, seed, x, labels):
    """A batch with one-hot labels; each row mixed with another one's."""
    import tensorflow

    labels = tensorflow.one_hot(labels, classes)
    if not strength:
        return x, labels
    one, other = tensorflow.unstack(
        tensorflow.random.stateless_gamma((2,), [seed, seed], strength)
    )
    share = one / (one + other)  # by the Beta distribution

    def blend(values):
        return share * values + (1 - share) * values[::-1]

    return blend(x), blend(labels)


def regress(lab: Lab) -> dict:
    """scikit-learn's logistic regression on what a head gets without views.

    The strength of its penalty is chosen in five folds that keep groups, of
    ten strengths, by accuracy.
    """
    import warnings

    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    gather = lab.gather_all(LAST, 1)
    x, test = (
        np.asarray(gather[split].arrays[0], np.float64)
        for split in ("train", "test")
    )
    groups = [
        row["group"] or row["id"] for row in lab.dataset.read_index("train")
    ]
    labels = lab.open_labels("train")
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    scaler = StandardScaler().fit(x)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that it renames
        model = LogisticRegressionCV(
            Cs=np.logspace(-5, 1, 10),
            cv=[*folds.split(x, labels, groups)],
            max_iter=300,
        ).fit(scaler.transform(x), labels)
    accuracy = model.score(scaler.transform(test), lab.open_labels("test"))
    return {
        "images": len(test),
        "seconds": round(time.perf_counter() - start, 1),
        "penalty": float(np.ravel(model.C_)[0]),
        "scores": [{"test_accuracy": round(float(accuracy), 5)}] * 2,
    }


def train_head(
    lab: Lab,
    seed: int,
    views: int = VIEWS,
    gather: dict | None = None,
    start: str = "random",
    **change,
) -> tuple[keras.Model, dict]:
    """A head by the recipe of params.yaml; its scores.

    Args:
        lab: the set.
        seed: of all that is drawn.
        views: of the training images.
        gather: features other than the set's own.
        start: of the dense layer: random, without head.l2; "discriminants", as
            the stage has it.
        change: of the recipe.
    """
    recipe = lab.params.head.model_dump(exclude={"class_weight"})
    recipe |= {"l2": 0.0} if start == "random" else {}
    recipe |= change
    dropout = recipe.pop("dropout")
    gather = gather or lab.gather_all(LAST, views)
    make_deterministic(seed)
    features = gather["train"].arrays[0].shape[1]
    head = build_head(features, lab.classes, dropout)
    views = gather["train"].arrays
    ridge = fit_ridge(
        views,
        slice(0, features),
        [features],
        lab.open_labels("train"),
        find_sets(lab.dataset.read_index("train")),
        lab.classes,
    )
    drawn = head.get_layer(LOGITS).get_weights()
    set_head(head, ridge, np.concatenate(views).var(axis=0))
    if start == "random":
        head.get_layer(LOGITS).set_weights(drawn)
    model = get_part(head, POOLED, LOGITS)
    return head, fit(lab, model, gather, views, seed, **recipe)


def thaw(
    lab: Lab,
    blocks: int | str,
    seed: int,
    head: keras.Model,
    views: int = VIEWS,
    prepare: Callable[[keras.Model], bool] = lambda model: True,
    bits: int = 16,
    **change,
) -> dict:
    """Fine-tunes by the recipe of params.yaml; scores.

    Args:
        lab: the set.
        blocks: as finetune.blocks.
        seed: of all that is drawn.
        head: what it starts from.
        views: of the training images.
        prepare: changes which layers train; whether BatchNormalization may
            still be folded.
        bits: that an activation at the cut is kept in, 16 or 8; 32: it is
            kept nowhere.
        change: of the recipe.
    """
    recipe = lab.params.finetune.model_dump(
        include={"learning_rate", "warmup_epochs", "batch_size"}
    )
    recipe |= {"epochs": EPOCHS} | change
    backbone = lab.build_backbone()
    plan = make_plan(backbone, blocks, tap_kept=False)
    apply_plan(backbone, plan, lab.params.finetune.drop_connect_rate)
    if bits == 32:
        gather = lab.stream(plan.cut)
    else:
        gather = lab.gather_all(plan.cut, views)
    if bits == 8:
        code = EightBits.fit(gather["train"].arrays[0])
        gather = {split: code.round(gather[split]) for split in gather}
    make_deterministic(seed)
    model = join_head(backbone, head)
    foldable = prepare(model)
    seed_dropout(model, seed)
    suffix = get_part(model, plan.cut, LOGITS)
    if foldable:
        suffix = fold_normalization(suffix)
    return fit(lab, suffix, gather, views, seed, **recipe)
