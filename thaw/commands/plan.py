"""What a change of parameters would thaw, run again and cost.

Nothing is run but trials on made-up inputs: the decoder, the frozen part and
the training step of these very parameters on this machine, a few batches each.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from thaw.commands.overrides import list_combinations, set_params
from thaw.commands.trials import TRIAL, get_network, measure, time_import
from thaw.data.dataset import Dataset
from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.files.text import read_yaml
from thaw.prepare.decode import decode
from thaw.prepare.sources import open_source
from thaw.run import params
from thaw.run.console import format_bytes, format_seconds, say
from thaw.run.dvc_files import fill_in, get_value
from thaw.run.threads import map_ahead

# Of each stage: Python's start, hashes, what is drawn and written; seconds.
OVERHEAD = 2


def list_reruns(values: dict, changed: set[str]) -> list[str]:
    """Stages that a change to these parameters would run again, in order.

    A stage runs again where what dvc.lock has of it is no more: a parameter, a
    file, an output; and where one before it does, which may turn out to write
    what it wrote before. `check` runs at any change and is left out.

    Args:
        values: of params.yaml, compared with those of dvc.lock as DVC does.
        changed: stages that run again whatever the parameters.
    """
    stages = read_yaml("dvc.yaml")["stages"]
    lock = Path("dvc.lock")
    known = read_yaml(lock)["stages"] if lock.exists() else {}
    rerun, outs = [], []
    for name, stage in stages.items():
        locked = known.get(name, {}).get("params", {}).get("params.yaml", {})
        deps = [Path(fill_in(path, values)) for path in stage.get("deps", ())]
        if name != "check" and (
            name in changed
            or name not in known
            or any(
                key not in locked or get_value(values, key) != locked[key]
                for key in stage.get("params", ())
            )
            or any(path.is_relative_to(out) for path in deps for out in outs)
        ):
            rerun.append(name)
            outs += map(Path, list_outs(stage))
    return rerun


def find_changes() -> set[str]:
    """Stages that DVC finds changed, for more than their parameters.

    Raises:
        InputError: where DVC can't tell.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo() as repo:
            status = repo.status()
    except DvcException as error:
        raise InputError(f"`dvc status` fails: {error}") from error

    def is_news(change: str | dict) -> bool:
        files = change.get("changed deps") if isinstance(change, dict) else None
        return files is None or set(files) != {"params.yaml"}

    return {name for name, news in status.items() if any(map(is_news, news))}


def list_outs(stage: dict) -> list[str]:
    outs = [*stage.get("outs", ()), *stage.get("metrics", ())]
    return [next(iter(x)) if isinstance(x, dict) else x for x in outs]


class Trials:
    """What the stages take on this machine, and write.

    Args:
        p: the parameters.
        prepared: data/prepared where it stays as it is, else None.
    """

    def __init__(self, p: params.Params, prepared: Dataset | None):
        self.p = p
        self.prepared = prepared
        self.network = get_network(p.backbone.name, p.image_size)

    @cached_property
    def source(self):
        prepare = self.p.prepare
        return open_source(
            prepare.source,
            prepare.path,
            prepare.classes,
            prepare.name,
            prepare.data_dir,
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

    @property
    def backbone(self):
        return self.network.backbone

    @cached_property
    def plan(self):
        from thaw.network.plan import make_plan

        return make_plan(
            self.backbone, self.p.finetune.blocks, self.p.extract.tap
        )

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

    def time_frozen(self, start: str, *ends: str) -> tuple[float, float]:
        """Seconds an image of training, through a part, and before."""
        precision = self.p.extract.precision
        return self.network.time_frozen(start, *ends, precision=precision)

    def time_scoring(self) -> tuple[float, float]:
        """Seconds an image, through all of the network, and before."""
        from thaw.run.efficientnet import IMAGE, POOLED

        return self.network.time_frozen(IMAGE, POOLED, precision="float32")


def estimate_prepare(t: Trials) -> tuple[float, int]:
    images = t.source.size
    return images * t.time_decoding(), images * 3 * t.p.image_size**2


def estimate_extract(t: Trials) -> tuple[float, int]:
    from thaw.network.plan import find_tap
    from thaw.run.efficientnet import IMAGE, POOLED

    ends = [find_tap(t.backbone)] if t.p.extract.tap else []
    images = t.count_images(t.p.extract.views, SPLITS)
    size = sum(2 * t.network.count_values(end) for end in ends)
    size += 4 * t.network.count_values(POOLED)
    each, before = t.time_frozen(IMAGE, *ends, POOLED)
    return t.network.start + before + images * each, images * size


def estimate_head(t: Trials) -> tuple[float, int]:
    head = t.p.head
    step, first = t.network.time_head(t.classes, head.dropout, head.batch_size)
    steps = head.epochs * math.ceil(t.rows["train"] / head.batch_size)
    size = 4 * t.network.build_head(t.classes, head.dropout).count_params()
    return time_import() + first + steps * step, size


def estimate_prefix(t: Trials) -> tuple[float, int]:
    from thaw.network.plan import CACHED, find_tap, is_behind
    from thaw.run.efficientnet import IMAGE

    cut, tap = t.plan.cut, find_tap(t.backbone)
    if t.plan.activations != CACHED:
        return t.network.start, 0
    from_tap = t.p.extract.tap and is_behind(t.backbone, cut, tap)
    images = t.count_images(t.p.finetune.views, ("train", "validation"))
    each, before = t.time_frozen(tap if from_tap else IMAGE, cut)
    size = images * 2 * t.network.count_values(cut)
    return t.network.start + before + images * each, size


def estimate_finetune(t: Trials) -> tuple[float, int]:
    from thaw.network.plan import STREAMED
    from thaw.run.efficientnet import IMAGE

    finetune = t.p.finetune
    streamed = t.plan.activations == STREAMED and t.plan.cut != IMAGE
    frozen, before = (0.0, 0.0)
    if streamed:
        frozen, before = t.time_frozen(IMAGE, t.plan.cut)
    step, first = t.network.time_thawed(
        finetune.blocks,
        finetune.drop_connect_rate,
        t.classes,
        t.p.head.dropout,
        finetune.batch_size,
    )
    image = step / finetune.batch_size
    # Forwards alone is a third of a step.
    epoch = t.rows["train"] * (image + frozen)
    epoch += t.rows["validation"] * (image / 3 + frozen)
    head = t.network.build_head(t.classes, t.p.head.dropout)
    return (
        t.network.start + before + first + finetune.epochs * epoch,
        4 * (t.backbone.count_params() + head.count_params()),
    )


def estimate_evaluate(t: Trials) -> tuple[float, int]:
    each, before = t.time_scoring()
    seconds = t.network.start + before + t.rows["test"] * each
    return seconds, t.rows["test"] * 200


def estimate_report(t: Trials) -> tuple[float, int]:
    return t.network.start + 3, 10**6


ESTIMATES: dict[str, Callable[[Trials], tuple[float, int]]] = {
    "prepare": estimate_prepare,
    "extract": estimate_extract,
    "head": estimate_head,
    "prefix": estimate_prefix,
    "finetune": estimate_finetune,
    "evaluate": estimate_evaluate,
    "report": estimate_report,
}


@dataclass(frozen=True)
class Forecast:
    """What one set of parameters comes to.

    Attributes:
        plan: the thaw plan.
        costs: seconds and bytes of each stage that would run again, in order;
            None of one that nobody can estimate.
    """

    plan: "thaw.network.plan.Plan"  # noqa: F821 (Keras would be imported too early)
    costs: dict[str, tuple[float, int] | None]

    @property
    def total(self) -> tuple[float, int]:
        known = [cost for cost in self.costs.values() if cost]
        return sum(s for s, _ in known), sum(size for _, size in known)


def make_forecast(
    values: dict, p: params.Params, changed: set[str]
) -> Forecast:
    """What would run again and cost.

    Args:
        values, p: the parameters, plain and checked.
        changed: stages that run again whatever the parameters.
    """
    rerun = list_reruns(values, changed)
    trials = Trials(p, None if "prepare" in rerun else Dataset("data/prepared"))
    costs = {}
    for name in rerun:
        costs[name] = None
        if name in ESTIMATES:
            seconds, size = ESTIMATES[name](trials)
            costs[name] = seconds + OVERHEAD, size
    return Forecast(trials.plan, costs)


def main(set_param: list[str]) -> None:
    """Says what would be thawed and what would run again, and at what cost.

    Args:
        set_param: as `dvc exp run` takes it, sweeps included.

    Raises:
        InputError: where the parameters are wrong.
    """
    combinations = list_combinations(set_param)
    wanted = [set_params(overrides) for overrides in combinations]
    changed = find_changes()
    if len(wanted) == 1:
        say_stages(make_forecast(*wanted[0], changed))
    else:
        forecasts = (make_forecast(*one, changed) for one in wanted)
        say_combinations(combinations, forecasts)
    say("", "what ran before with all the same comes from DVC's cache instead")


def say_stages(forecast: Forecast) -> None:
    say(*forecast.plan.describe(), "")
    if not forecast.costs:
        say("nothing would run again")
        return
    say(f"{'runs again':12}  {'about':>10}  {'writes about':>12}")
    for name, cost in (forecast.costs | {"all": forecast.total}).items():
        seconds, size = describe_cost(cost)
        say(f"{name:12}  {seconds:>10}  {size:>12}")


def say_combinations(
    combinations: list[list[str]], forecasts: Iterable[Forecast]
) -> None:
    """A line for each, with the values in which they differ."""
    names = [one.partition("=")[0] for one in combinations[0]]
    rows = [[x.partition("=")[2] for x in one] for one in combinations]
    varied = [i for i in range(len(names)) if len({r[i] for r in rows}) > 1]
    heads = shorten([names[i] for i in varied])
    widths = [
        max(len(head), *(len(row[i]) for row in rows))
        for i, head in zip(varied, heads, strict=True)
    ]

    def say_row(cells, seconds, size, cut, stages) -> None:
        cells = [f"{x:{n}}" for x, n in zip(cells, widths, strict=True)]
        say(f"{'  '.join(cells)}  {seconds:>8}  {size:>8}  {cut:12}  {stages}")

    say_row(heads, "about", "writes", "cut behind", "runs again")
    for row, forecast in zip(rows, forecasts, strict=True):
        say_row(
            [row[i] for i in varied],
            *describe_cost(forecast.total),
            forecast.plan.cut,
            " ".join(forecast.costs) or "nothing",
        )


def shorten(names: list[str]) -> list[str]:
    """Names of parameters without their sections, where no two are alike."""
    short = [name.rpartition(".")[2] for name in names]
    return short if len(set(short)) == len(short) else names


def describe_cost(cost: tuple[float, int] | None) -> tuple[str, str]:
    if cost is None:
        return "unknown", "unknown"
    return format_seconds(cost[0]), format_bytes(cost[1])
