"""`plan`: what a change of parameters would thaw and run again.

No stage runs, and no network is built. The seconds are those that each stage
took when it last ran here, with whatever parameters.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from thaw.commands.news import News, count_news
from thaw.commands.overrides import list_combinations, set_params
from thaw.commands.reruns import find_changes, list_reruns
from thaw.files.phrases import format_seconds
from thaw.network.plan import Architecture, Plan
from thaw.run import params
from thaw.run.console import say
from thaw.stage.runner import read_seconds

FEATURES = "data/features"


@dataclass(frozen=True)
class Forecast:
    """What one set of parameters would thaw and run again.

    Attributes:
        plan: the thaw plan; None before `extract` described the backbone.
        stages: that would run again, in order, to the seconds that each took
            when it last ran here; None of one that did not.
        news: how many images are new, where `prepare` would run again.
    """

    plan: Plan | None
    stages: dict[str, float | None]
    news: News | None

    @property
    def seconds(self) -> float:
        """Of all stages that ran here before."""
        return sum(seconds or 0 for seconds in self.stages.values())


def main(set_param: list[str]) -> None:
    """Says what would be thawed, what would run again, what that took last.

    Args:
        set_param: as `dvc exp run` takes it, sweeps included.

    Raises:
        InputError: where the parameters are wrong.
    """
    combinations = list_combinations(set_param)
    wanted = [set_params(overrides) for overrides in combinations]
    changed = find_changes()
    forecasts = [make_forecast(*each, changed) for each in wanted]
    if len(wanted) == 1:
        say_stages(forecasts[0])
    else:
        say_combinations(combinations, forecasts)
    say("", "a stage that DVC has in its cache is not computed again")


def make_forecast(
    values: dict, p: params.Params, changed: set[str]
) -> Forecast:
    """Finds what would run again.

    Args:
        values, p: the parameters, plain and checked.
        changed: stages that run again whatever the parameters.
    """
    rerun, took = list_reruns(values, changed), read_seconds()
    news = count_news(p, values) if "prepare" in rerun else None
    path = Path(FEATURES, "architecture.json")
    plan = None
    if path.exists() and "extract" not in rerun:
        architecture = Architecture.read(path)
        plan = architecture.make_plan(p.finetune.blocks, p.extract.tap)
    return Forecast(plan, {name: took.get(name) for name in rerun}, news)


def say_stages(forecast: Forecast) -> None:
    """Prints the thaw plan, and a line for each stage that would run again."""
    if forecast.plan:
        say(*forecast.plan.describe(), "")
    if forecast.news:
        say("{:,} of {:,} images are new".format(*forecast.news), "")
    if not forecast.stages:
        say("nothing would run again")
        return
    say(f"{'runs again':12}  {'took last time':>14}")
    for name, seconds in (forecast.stages | {"all": forecast.seconds}).items():
        say(f"{name:12}  {format_took(seconds):>14}")


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

    def say_row(cells, seconds, cut, stages) -> None:
        cells = [f"{x:{n}}" for x, n in zip(cells, widths, strict=True)]
        say(f"{'  '.join(cells)}  {seconds:>8}  {cut:12}  {stages}")

    say_row(heads, "took", "cut behind", "runs again")
    for row, forecast in zip(rows, forecasts, strict=True):
        say_row(
            [row[i] for i in varied],
            format_took(forecast.seconds),
            forecast.plan.cut if forecast.plan else "",
            " ".join(forecast.stages) or "nothing",
        )


def drop_sections(names: list[str]) -> list[str]:
    """Names of parameters without their sections, if they then still differ."""
    short = [name.rpartition(".")[2] for name in names]
    return short if len(set(short)) == len(short) else names


def format_took(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)
