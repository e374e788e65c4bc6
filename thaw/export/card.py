"""The model card: what the model is, what it was made of, how good it is.

It has the sections of Mitchell et al., Model Cards for Model Reporting,
arXiv:1810.03993, and the head that Hugging Face reads.
"""

from pathlib import Path
from typing import Any

from thaw.data.origin import name_source
from thaw.export.formats import FORMATS
from thaw.files.rendering import render
from thaw.network.model_info import ModelInfo
from thaw.network.plan import Plan
from thaw.run.params import Params

TEMPLATE = Path(__file__).with_name("card.md")


def write_card(
    path: str | Path,
    *,
    params: Params,
    info: ModelInfo,
    plan: Plan,
    prepare: dict[str, Any],
    evaluate: dict[str, Any],
    exports: dict[str, dict],
    checked: int,
) -> None:
    """Writes the card in Markdown.

    Args:
        path: the file.
        params: all parameters.
        info: what travels with the model.
        plan: the thaw plan, which names the thawed blocks.
        prepare, evaluate: the metrics of these stages.
        exports: the scores of each export, by the name of its format.
        checked: the number of test images that gave these scores.
    """
    formats = [FORMATS[name] for name in FORMATS if name in exports]
    text = render(
        TEMPLATE,
        {"cell": escape_cell},
        params=params,
        source=name_source(
            params.prepare.source, params.prepare.path, params.prepare.name
        ),
        info=info,
        plan=plan,
        prepare=prepare,
        evaluate=evaluate,
        exports=exports,
        checked=checked,
        formats=FORMATS,
        caveats=[x.caveat(info) for x in formats if x.caveat],
    )
    Path(path).write_text(text, encoding="utf-8")


def escape_cell(text: str) -> str:
    """Escapes a text for a cell of a Markdown table."""
    text = " ".join(str(text).split())
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text
