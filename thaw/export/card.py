"""The model card: what a model is, what it was made of, how good it is.

Its sections are those of Mitchell et al., Model Cards for Model Reporting,
arXiv:1810.03993, its head what Hugging Face reads.
"""

from pathlib import Path
from typing import Any

from thaw.export.formats import OVERSAMPLING, PATHS
from thaw.files.rendering import render
from thaw.network.plan import Plan
from thaw.run.params import Params

TEMPLATE = Path(__file__).with_name("card.md")


def write_card(
    path: str | Path,
    params: Params,
    about: dict[str, Any],
    plan: Plan,
    prepare: dict[str, Any],
    evaluate: dict[str, Any],
    exports: dict[str, dict],
    checked: int,
) -> None:
    """Writes Markdown.

    Args:
        path: the file.
        params: all parameters.
        about: what travels with the model.
        plan: which blocks were thawed.
        prepare, evaluate: the metrics of these stages.
        exports: the scores of each export.
        checked: test images that those are of.
    """
    text = render(
        TEMPLATE,
        {"cell": escape_cell},
        params=params,
        about=about,
        plan=plan,
        prepare=prepare,
        evaluate=evaluate,
        exports=exports,
        checked=checked,
        paths=PATHS,
        antialiased=OVERSAMPLING * about["image_size"],
    )
    Path(path).write_text(text, encoding="utf-8")


def escape_cell(text: str) -> str:
    """Any text, in a cell of a Markdown table."""
    text = " ".join(str(text).split())
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text
