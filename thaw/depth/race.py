"""The race: short trainings of several depths, judged by the same images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.data.activations import Features, gather_kept
from thaw.data.dataset import Dataset, Gather
from thaw.data.efficientnet import IMAGE, LOGITS, POOLED
from thaw.data.folds import find_sets
from thaw.data.splits import TRAINED
from thaw.data.views import gather_views
from thaw.depth.arms import SLOWER, WARMUP, count_epochs, keep_better
from thaw.depth.judge import Ranking, rank
from thaw.depth.rows import Fold, join_splits, make_folds, pick_rows
from thaw.depth.words import name_depth
from thaw.files.arrays import write_array
from thaw.frozen.backbone import take_frozen
from thaw.frozen.passes import FrozenPass
from thaw.network.backend import keras, make_deterministic
from thaw.network.folding import fold_normalization
from thaw.network.head import (
    build_head,
    join_head,
    seed_dropout,
    start_head,
)
from thaw.network.model_file import load_model
from thaw.network.parts import get_part
from thaw.network.plan import Plan
from thaw.network.temperature import (
    fit_temperature,
    measure_losses,
    score_logits,
)
from thaw.network.thawing import apply_plan, make_plan
from thaw.run.console import say
from thaw.run.params import Params
from thaw.stage.checkpoints import Checkpoint
from thaw.train.batches import Batches, feed
from thaw.train.choice import limit_loss
from thaw.train.loop import train_model, train_thawed
from thaw.train.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Result:
    """What a depth came to in the last rung that it ran in.

    Attributes:
        blocks: as `finetune.blocks`.
        epochs: of each training; 0 for the head alone.
        stayed: whether that was the last rung.
        losses: (n,), of the images that judge, by `measure_losses`.
        hits: (n,) bool, whether each is classified right.
        plan: what was thawed.
        learning_rate: of the trainings that ran in that rung; the lowest.
        seconds: of an epoch; None where none was run.
    """

    blocks: int | str
    epochs: int
    stayed: bool
    losses: np.ndarray
    hits: np.ndarray
    plan: Plan
    learning_rate: float
    seconds: float | None


class Race:
    """Depths of one network on one set of images.

    Args:
        p: the parameters.
        backbone: with the weights that all trainings start from.
        dataset, features: what lies in data/.
        head: file of the trained head.
        checkpoint: keeps what is done.
    """

    def __init__(
        self,
        p: Params,
        backbone: keras.Model,
        dataset: Dataset,
        features: Features,
        head: str | Path,
        checkpoint: Checkpoint,
    ):
        self.p, self.backbone = p, backbone
        self.loaded = backbone.get_weights()
        self.dataset, self.features = dataset, features
        self.head, self.checkpoint = head, checkpoint
        labels = {s: features.open_labels(s) for s in TRAINED}
        self.labels = np.concatenate([labels[s] for s in TRAINED])
        self.first = len(labels["train"])
        self.folds = make_folds(dataset, labels, p.seed)
        self.epochs = count_epochs(
            len(self.folds),
            min(len(fold.trained) for fold in self.folds),
            p.finetune.batch_size,
        )
        self.learning_rate = p.finetune.learning_rate / SLOWER
        self.views = min(features.views, max(self.epochs))
        self._heads: dict[int, keras.Model] = {}  # by first row that judges
        # Likewise, the loss at which a training that starts there is lost.
        self._highest_loss: dict[int, float] = {}

    def run(self, depths: Sequence[int | str]) -> list[Result]:
        """Races in two rungs; the worse half leaves after the first.

        Args:
            depths: 0, the head alone, first. It is not trained and stays.

        Returns:
            Each depth's last result, those of the second rung first.
        """
        head, *left = depths
        plans = {d: make_plan(self.backbone, d, tap_kept=False) for d in depths}
        gather = self.run_frozen_part([plans[depth] for depth in left])
        first, last = self.epochs
        alone = self.judge(head, plans[head], 0, gather, stays=True)
        ran = [  # one fold tells who leaves
            self.judge(depth, plans[depth], first, gather, stays=False)
            for depth in left
        ]
        order, stay = rank_results(ran).order, keep_better(len(ran))
        left = [left[i] for i in sorted(order[:stay])]
        final = [
            self.judge(depth, plans[depth], last, gather, stays=True)
            for depth in left
        ]
        gone = [ran[i] for i in order[stay:]]
        return [alone, *final, *gone]

    def run_frozen_part(self, plans: Sequence[Plan]) -> Mapping[str, Gather]:
        """Runs the images once up to all cuts.

        Returns:
            By cut, what gathers activations of both splits.
        """
        images = {
            split: gather_views(
                self.dataset, split, self.p.augment.model_dump()
            )
            for split in TRAINED
        }
        pooled = {
            split: self.features.gather(POOLED, split, self.views)
            for split in TRAINED
        }
        sources: dict[str, Mapping[str, Gather]]
        sources = {IMAGE: images, POOLED: pooled}
        names = [layer.name for layer in self.backbone.layers]
        cuts = sorted({plan.cut for plan in plans} - {IMAGE}, key=names.index)
        checkpoint = self.checkpoint.enter("activations")
        FrozenPass(
            take_frozen(self.features, IMAGE, *cuts),
            dict.fromkeys(cuts, "float16"),
            rows={s: len(self.features.open_labels(s)) for s in TRAINED},
            views=self.views,
            gather=images,
            label="running the frozen part",
        ).write(checkpoint)
        for cut in cuts:
            sources[cut] = {
                split: gather_kept(checkpoint.folder, cut, split, self.views)
                for split in TRAINED
            }
        return {
            cut: join_splits(source, self.first)
            for cut, source in sources.items()
        }

    def judge(
        self,
        blocks: int | str,
        plan: Plan,
        epochs: int,
        gather: Mapping[str, Gather],
        stays: bool,
    ) -> Result:
        """Trains a depth, and has the other images judge it.

        Args:
            blocks, plan: the depth.
            epochs: of each training; 0 trains nothing but the head.
            gather: by cut, from `run_frozen_part`.
            stays: whether this is the last rung, in all folds; else it is the
                first, in one of them.
        """
        losses, hits, rates, seconds = [], [], [], []
        folds = self.folds if stays else self.folds[:1]
        for number, fold in enumerate(folds):
            logits, note = self.get_logits(
                f"{blocks}-{epochs}-{number}", plan, epochs, fold, gather
            )
            labels = self.labels[fold.judged]
            if not epochs:
                self._highest_loss[int(fold.judged[0])] = limit_loss(
                    score_logits(logits, labels), len(self.features.classes)
                )
            temperature = fit_temperature(np.nan_to_num(logits), labels)
            losses.append(measure_losses(logits, labels, temperature))
            hits.append(logits.argmax(axis=1) == labels)
            rates.append(note.get("learning_rate", 0.0))
            seconds.append(note.get("seconds"))
        known = [spent for spent in seconds if spent]
        result = Result(
            blocks,
            epochs,
            stays,
            np.concatenate(losses),
            np.concatenate(hits),
            plan,
            min(rates),
            sum(known) / len(known) if known else None,
        )
        low = 0 < result.learning_rate < self.learning_rate
        at = f" at a rate of {result.learning_rate:g}" if low else ""
        say(
            f"{name_depth(blocks)}, {epochs} epochs{at}: loss "
            f"{result.losses.mean():.4f}, accuracy {result.hits.mean():.4f}"
        )
        return result

    def get_logits(
        self,
        name: str,
        plan: Plan,
        epochs: int,
        fold: Fold,
        gather: Mapping[str, Gather],
    ) -> tuple[np.ndarray, dict]:
        """Logits (n, classes) of the images that judge; what was noted.

        They are kept under a name: a race that was cut off goes on behind
        what it finished.
        """
        checkpoint = self.checkpoint.enter(name)
        path = checkpoint.folder / "logits.npy"
        if not path.exists():
            logits = self.train(plan, epochs, fold, gather, checkpoint)
            write_array(path, logits)
        return np.load(path), checkpoint.note

    def train(
        self,
        plan: Plan,
        epochs: int,
        fold: Fold,
        gather: Mapping[str, Gather],
        checkpoint: Checkpoint,
    ) -> np.ndarray:
        """Trains; gives logits (n, classes) of the images that judge."""
        head = self.get_head(fold, gather[POOLED])
        self.backbone.set_weights(self.loaded)
        finetune = self.p.finetune
        apply_plan(self.backbone, plan, finetune.drop_connect_rate)
        make_deterministic(self.p.seed)
        model = join_head(self.backbone, head)
        seed_dropout(model, self.p.seed)
        suffix = fold_normalization(get_part(model, plan.cut, LOGITS))
        trained, judged = self.open_batches(
            gather[plan.cut], fold, finetune.batch_size
        )
        if epochs:
            recipe = replace(
                Recipe.read_finetune(finetune),
                learning_rate=self.learning_rate,
                epochs=epochs,
                warmup_epochs=WARMUP * epochs,
                highest_loss=self._highest_loss[int(fold.judged[0])],
            )
            start = time.perf_counter()
            training = train_thawed(
                suffix, trained, judged, recipe, checkpoint, quiet=True
            )
            seconds = (time.perf_counter() - start) / epochs
            if training.learning_rate < recipe.learning_rate:
                seconds /= 2  # it ran twice
            checkpoint.write(
                learning_rate=training.learning_rate, seconds=seconds
            )
            return training.logits
        return suffix.predict(feed(judged), verbose=0)

    def get_head(self, fold: Fold, pooled: Gather) -> keras.Model:
        """The head, trained on nothing that judges."""
        features = self.features
        if fold.whole:
            return load_model(
                self.head, (features.size,), len(features.classes)
            )
        number = int(fold.judged[0])
        if number in self._heads:
            return self._heads[number]
        settings = self.p.head
        make_deterministic(self.p.seed)
        head = build_head(
            features.size, len(features.classes), settings.dropout
        )
        trained, judged = self.open_batches(pooled, fold, settings.batch_size)
        rows = np.arange(len(fold.trained))
        index = [
            row for split in TRAINED for row in self.dataset.read_index(split)
        ]
        start_head(
            head,
            [
                trained.gather(rows, np.full(len(rows), view))
                for view in range(self.views)
            ],
            trained.labels,
            find_sets(index)[fold.trained],
        )
        train_model(
            get_part(head, POOLED, LOGITS),
            trained,
            judged,
            Recipe.read("head", settings),
            self.checkpoint.enter(f"head-{number}"),
            quiet=True,
        )
        self._heads[number] = head
        return head

    def open_batches(
        self, gather: Gather, fold: Fold, batch_size: int
    ) -> tuple[Batches, Batches]:
        """Those that train, and those that judge."""
        rows = fold.trained, fold.judged
        trained, judged = (
            (pick_rows(gather, some), self.labels[some]) for some in rows
        )
        return (
            Batches(*trained, self.views, batch_size, self.p.seed),
            Batches(*judged, 1, batch_size, None),
        )


def rank_results(results: Sequence[Result]) -> Ranking:
    return rank([result.losses for result in results])


def pick_best(results: Sequence[Result]) -> int | str:
    """The depth of least loss among those that stayed."""
    final = [result for result in results if result.stayed]
    return final[rank_results(final).best].blocks
