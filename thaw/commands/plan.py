"""`plan`: what a change of parameters would thaw, run again and cost.

No stage runs. Trials on made-up inputs time the decoder, the frozen part and
the training step of these parameters on this machine, a few batches each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thaw.commands.estimates import Cost, Workload, estimate_stage
from thaw.commands.news import News, count_news, find_shares
from thaw.commands.overrides import list_combinations, set_params
from thaw.commands.reruns import find_changes, list_reruns
from thaw.data.dataset import Dataset
from thaw.files.phrases import format_bytes, format_seconds
from thaw.files.text import read_json
from thaw.run import params
from thaw.run.console import say

if TYPE_CHECKING:  # trials import Keras, and time how long that takes
    from thaw.network.plan import Plan


@dataclass(frozen=True)
class Forecast:
    """What one set of parameters would thaw, run again and cost.

    Attributes:
        plan: the thaw plan; where a race is to find it, its deepest.
        raced: depths that `finetune.blocks: auto` would race.
        costs: of each stage that would run again, in order; None of a stage
            that has no estimate.
        news: how many images are new, where `prepare` would run again.
    """

    plan: "Plan"
    raced: list[int | str]
    costs: dict[str, Cost | None]
    news: News | None

    @property
    def total(self) -> Cost:
        known = [cost for cost in self.costs.values() if cost]
        seconds = sum(cost.seconds for cost in known)
        return Cost(seconds, sum(cost.size for cost in known))


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
        forecasts = (make_forecast(*each, changed) for each in wanted)
        say_combinations(combinations, forecasts)
    say("", "a stage that DVC has in its cache is not computed again")


def make_forecast(
    values: dict, p: params.Params, changed: set[str]
) -> Forecast:
    """Finds what would run again, and estimates its cost.

    Args:
        values, p: the parameters, plain and checked.
        changed: stages that run again whatever the parameters.
    """
    rerun = list_reruns(values, changed)
    prepared = None if "prepare" in rerun else Dataset("data/prepared")
    news = count_news(p, values) if "prepare" in rerun else None
    races = p.finetune.blocks == "auto" and "depth" in rerun
    found = None if "depth" in rerun else read_json("data/depth.json")
    work = Workload(p, prepared, find_shares(news, values), found)
    costs = {name: estimate_stage(name, work) for name in rerun}
    return Forecast(work.plan, work.depths if races else [], costs, news)


def say_stages(forecast: Forecast) -> None:
    """Prints the thaw plan, and a line for each stage that would run again."""
    if forecast.raced:
        *others, deepest = map(str, forecast.raced)
        say(
            f"auto races {', '.join(others)} and {deepest} blocks; if the "
            "deepest wins:"
        )
    say(*forecast.plan.describe(), "")
    if forecast.news:
        say("{:,} of {:,} images are new".format(*forecast.news), "")
    if not forecast.costs:
        say("nothing would run again")
        return
    say(f"{'runs again':12}  {'about':>10}  {'writes about':>12}")
    for name, cost in (forecast.costs | {"all": forecast.total}).items():
        seconds, size = format_cost(cost)
        say(f"{name:12}  {seconds:>10}  {size:>12}")


def say_combinations(
    combinations: list[list[str]], forecasts: Iterable[Forecast]
) -> None:
    """Prints a line for each combination, with the values that differ."""
    names = [override.partition("=")[0] for override in combinations[0]]
    rows = [[x.partition("=")[2] for x in row] for row in combinations]
    varied = [i for i in range(len(names)) if len({r[i] for r in rows}) > 1]
    heads = drop_sections([names[i] for i in varied])
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
            *format_cost(forecast.total),
            forecast.plan.cut,
            " ".join(forecast.costs) or "nothing",
        )


def drop_sections(names: list[str]) -> list[str]:
    """Names of parameters without their sections, if they then still differ."""
    short = [name.rpartition(".")[2] for name in names]
    return short if len(set(short)) == len(short) else names


def format_cost(cost: Cost | None) -> tuple[str, str]:
    if cost is None:
        return "unknown", "unknown"
    return format_seconds(cost.seconds), format_bytes(cost.size)
