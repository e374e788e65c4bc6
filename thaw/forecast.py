"""What a change of parameters would thaw, run again and cost.

Nothing is run but trials on made-up inputs: the decoder, the frozen part and
the training step of these very parameters on this machine, a few batches each.
"""

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache, cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from thaw import params
from thaw.checkpoints import fill_in, get_value, read_yaml
from thaw.console import format_bytes, format_seconds, say
from thaw.dataset import Dataset
from thaw.decoding import decode
from thaw.errors import InputError
from thaw.sources import open_source
from thaw.splits import SPLITS
from thaw.threads import map_ahead

TRIAL = 32  # pictures

# Of each stage: Python's start, hashes, what is drawn and written; seconds.
OVERHEAD = 2


def set_params(values: list[str]) -> tuple[dict, params.Params]:
    """params.yaml as it would be with some values, as in `dvc exp run -S`.

    Raises:
        InputError: where `check` would refuse it.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        shutil.copyfile("params.yaml", path)
        try:
            if values:
                apply_overrides(path, values)
            return read_yaml(path), params.load(path)
        except InputError as error:
            raise InputError(str(error).replace(f"{path}", path.name)) from None
        except DvcException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise InputError(f"-S {' '.join(values)}: {reason}") from error


def list_reruns(values: dict) -> list[str]:
    """Stages that a change to these parameters would run again, in order.

    A stage runs again where what dvc.lock has of it is no more: a parameter, a
    file, an output; and where one before it does, which may turn out to write
    what it wrote before. `check` runs at any change and is left out.

    Args:
        values: of params.yaml.
    """
    stages = read_yaml("dvc.yaml")["stages"]
    lock = Path("dvc.lock")
    known = read_yaml(lock)["stages"] if lock.exists() else {}
    changed = find_changes()
    rerun, outs = [], []
    for name, stage in stages.items():
        wanted = {
            key: get_value(values, key) for key in stage.get("params", ())
        }
        locked = known.get(name, {}).get("params", {}).get("params.yaml", {})
        deps = [Path(fill_in(path, values)) for path in stage["deps"]]
        if name != "check" and (
            name in changed
            or name not in known
            or wanted != locked
            or any(path.is_relative_to(out) for path in deps for out in outs)
        ):
            rerun.append(name)
            outs += map(Path, list_outs(stage))
    return rerun


def find_changes() -> set[str]:
    """Stages that DVC finds changed, for more than their parameters."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    with Repo() as repo:
        status = repo.status()

    def is_news(change: str | dict) -> bool:
        files = change.get("changed deps") if isinstance(change, dict) else None
        return files is None or set(files) != {"params.yaml"}

    return {name for name, news in status.items() if any(map(is_news, news))}


def list_outs(stage: dict) -> list[str]:
    outs = [*stage.get("outs", ()), *stage.get("metrics", ())]
    return [next(iter(x)) if isinstance(x, dict) else x for x in outs]


class Trials:
    """Times on this machine, each taken when it is first asked for.

    Args:
        p: the parameters.
        prepared: data/prepared where it stays as it is, else None.
    """

    def __init__(self, p: params.Params, prepared: Dataset | None):
        self.p = p
        self.prepared = prepared

    @cached_property
    def source(self):
        prepare = self.p.prepare
        return open_source(
            prepare.source, prepare.path, prepare.name, prepare.data_dir
        )

    @cached_property
    def rows(self) -> dict[str, int]:
        """Images in each split; of a new source before copies are removed."""
        if self.prepared:
            return {s: len(self.prepared.open_labels(s)) for s in SPLITS}
        rows = {split: self.source.sizes.get(split, 0) for split in SPLITS}
        for split in ("test", "validation"):
            if not rows[split]:
                share = getattr(self.p.prepare, split)
                rows[split] = round(share * self.source.sizes["train"])
                rows["train"] -= rows[split]
        return rows

    @property
    def classes(self) -> int:
        return len((self.prepared or self.source).classes)

    @cached_property
    def _built(self):
        start = time.perf_counter()
        from thaw.backbone import build_backbone

        backbone = build_backbone(
            self.p.backbone.name, None, "", self.p.image_size
        )
        return backbone, time.perf_counter() - start

    @property
    def backbone(self):
        return self._built[0]

    @property
    def start(self) -> float:
        """Seconds until a stage with a network has it."""
        return self._built[1]

    @cached_property
    def plan(self):
        from thaw.plan import make_plan

        return make_plan(
            self.backbone, self.p.finetune.blocks, self.p.extract.tap
        )

    @cached_property
    def head(self):
        from thaw.models import build_head
        from thaw.parts import POOLED

        return build_head(
            self.count_values(POOLED), self.classes, self.p.head.dropout
        )

    def count_values(self, layer: str) -> int:
        """In the output of a layer, for one image."""
        return math.prod(self.backbone.get_layer(layer).output.shape[1:])

    def count_images(self, views: int, splits: tuple[str, ...]) -> int:
        """Of all views of train, and one of each other split."""
        return sum(
            self.rows[s] * (views if s == "train" else 1) for s in splits
        )

    def time_decoding(self) -> float:
        """Seconds an image."""
        items = list(islice(self.source.items, TRIAL))

        def load(item) -> None:
            decode(item, self.p.image_size, self.p.prepare.fit)

        def run() -> None:
            for _ in map_ahead(load, items, ahead=TRIAL):
                pass

        return measure(run) / len(items)

    def time_scoring(self) -> tuple[float, float]:
        """Seconds an image, through all of the network, and before."""
        from thaw.parts import IMAGE, POOLED

        return self.time_frozen(IMAGE, POOLED, precision="float32")

    @cache  # noqa: B019 (one object, once)
    def time_frozen(
        self, start: str, *ends: str, precision: str | None = None
    ) -> tuple[float, float]:
        """Seconds an image, through a part of the backbone, and before."""
        from thaw.frozen import FrozenNetwork
        from thaw.parts import IMAGE, get_part

        part = get_part(self.backbone, start, *ends)
        shape = part.inputs[0].shape[1:]
        dtype = "uint8" if start == IMAGE else "float16"
        begun = time.perf_counter()
        network = FrozenNetwork(
            part, precision or self.p.extract.precision, dtype
        )
        inputs = np.random.default_rng(0).integers(0, 256, (TRIAL, *shape))
        inputs = inputs.astype(dtype)
        outs = [np.empty((TRIAL, *s), np.float32) for s in network.outputs]

        def run() -> None:
            network.run(lambda a, b: inputs[a:b], TRIAL, outs)

        run()
        before = time.perf_counter() - begun
        return measure(run) / TRIAL, before

    def time_training(self, model, batch_size: int) -> tuple[float, float]:
        """Seconds of a step, and until the first one is over."""
        from thaw.backend import keras

        shape = (batch_size, *model.inputs[0].shape[1:])
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        y = np.zeros(batch_size, np.int32)
        model.compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )
        start = time.perf_counter()
        model.train_on_batch(x, y)
        first = time.perf_counter() - start
        return measure(lambda: model.train_on_batch(x, y)), first


def estimate_prepare(t: Trials) -> tuple[float, int]:
    images = t.source.size
    return images * t.time_decoding(), images * 3 * t.p.image_size**2


def estimate_extract(t: Trials) -> tuple[float, int]:
    from thaw.parts import IMAGE, POOLED
    from thaw.plan import find_tap

    ends = [find_tap(t.backbone)] if t.p.extract.tap else []
    images = t.count_images(t.p.extract.views, SPLITS)
    size = sum(2 * t.count_values(end) for end in ends)
    size += 4 * t.count_values(POOLED)
    each, before = t.time_frozen(IMAGE, *ends, POOLED)
    return t.start + before + images * each, images * size


def estimate_head(t: Trials) -> tuple[float, int]:
    from thaw.parts import LOGITS, POOLED, get_part

    head = t.p.head
    model = get_part(t.head, POOLED, LOGITS)
    step, first = t.time_training(model, head.batch_size)
    steps = head.epochs * math.ceil(t.rows["train"] / head.batch_size)
    return t.start + first + steps * step, 4 * model.count_params()


def estimate_prefix(t: Trials) -> tuple[float, int]:
    from thaw.parts import IMAGE
    from thaw.plan import CACHED, find_tap, is_behind

    cut, tap = t.plan.cut, find_tap(t.backbone)
    if t.plan.activations != CACHED:
        return t.start, 0
    from_tap = t.p.extract.tap and is_behind(t.backbone, cut, tap)
    images = t.count_images(t.p.finetune.views, ("train", "validation"))
    each, before = t.time_frozen(tap if from_tap else IMAGE, cut)
    size = images * 2 * t.count_values(cut)
    return t.start + before + images * each, size


def estimate_finetune(t: Trials) -> tuple[float, int]:
    from thaw.backend import make_deterministic
    from thaw.folding import fold_normalization
    from thaw.models import join_head
    from thaw.parts import IMAGE, LOGITS, get_part
    from thaw.plan import STREAMED, apply_plan

    finetune = t.p.finetune
    streamed = t.plan.activations == STREAMED and t.plan.cut != IMAGE
    frozen, before = (0.0, 0.0)
    if streamed:
        frozen, before = t.time_frozen(IMAGE, t.plan.cut)
    apply_plan(t.backbone, t.plan, finetune.drop_connect_rate)
    make_deterministic(0)
    model = join_head(t.backbone, t.head)
    suffix = fold_normalization(get_part(model, t.plan.cut, LOGITS))
    step, first = t.time_training(suffix, finetune.batch_size)
    image = step / finetune.batch_size
    # Forwards alone is a third of a step.
    epoch = t.rows["train"] * (image + frozen)
    epoch += t.rows["validation"] * (image / 3 + frozen)
    return (
        t.start + before + first + finetune.epochs * epoch,
        4 * model.count_params(),
    )


def estimate_evaluate(t: Trials) -> tuple[float, int]:
    each, before = t.time_scoring()
    return t.start + before + t.rows["test"] * each, t.rows["test"] * 200


def estimate_report(t: Trials) -> tuple[float, int]:
    return t.start + 3, 10**6


ESTIMATES: dict[str, Callable[[Trials], tuple[float, int]]] = {
    "prepare": estimate_prepare,
    "extract": estimate_extract,
    "head": estimate_head,
    "prefix": estimate_prefix,
    "finetune": estimate_finetune,
    "evaluate": estimate_evaluate,
    "report": estimate_report,
}


def main(set_param: list[str]) -> None:
    """Says what would be thawed and what would run again, and at what cost.

    Raises:
        InputError: where the parameters are wrong.
    """
    values, p = set_params(set_param)
    rerun = list_reruns(values)
    prepared = None if "prepare" in rerun else Dataset("data/prepared")
    trials = Trials(p, prepared)
    say(*trials.plan.describe(), "")
    if not rerun:
        say("nothing would run again")
        return
    say(f"{'runs again':12}  {'about':>10}  {'writes about':>12}")
    totals = 0.0, 0
    for name in rerun:
        seconds, size = ESTIMATES[name](trials)
        seconds += OVERHEAD
        totals = totals[0] + seconds, totals[1] + size
        say_cost(name, seconds, size)
    say_cost("all", *totals)
    say("", "what ran before with all the same comes from DVC's cache instead")


def say_cost(name: str, seconds: float, size: int) -> None:
    say(f"{name:12}  {format_seconds(seconds):>10}  {format_bytes(size):>12}")


def measure(run: Callable[[], object], least: float = 0.5) -> float:
    """Seconds of one run, after a first one that does not count."""
    run()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < least:
        run()
        count += 1
    return (time.perf_counter() - start) / count
