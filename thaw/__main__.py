"""`python -m thaw`: commands beside `dvc repro`."""

import argparse
import importlib
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.run.console import fail

# Commands that work in their own clone, wherever they are called.
OF_THE_CLONE = ("audit", "compare", "depths", "plan", "push")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m thaw", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    predict = commands.add_parser(
        "predict", help="classes of pictures, with calibrated probabilities"
    )
    predict.add_argument("model", help="models/finetuned.keras, say")
    predict.add_argument(
        "paths", nargs="+", help="pictures, or folders of them"
    )
    predict.add_argument(
        "--format", choices=["table", "csv", "json"], default="table"
    )
    predict.add_argument(
        "--top-k", type=parse_count, default=3, help="classes to name"
    )
    predict.add_argument(
        "--threshold",
        type=parse_share,
        default=0.0,
        help="give no answer below this probability (0 to 1)",
    )
    predict.add_argument(
        "--precision",
        choices=["float32", "bfloat16", "auto"],
        default="float32",
        help="float32 is what the scores are of; auto is bfloat16 where the "
        "processor is faster in it",
    )

    compare = commands.add_parser(
        "compare", help="test predictions of two runs, image by image"
    )
    compare.add_argument(
        "rev",
        nargs="?",
        default="HEAD",
        help="a Git revision or a DVC experiment (HEAD)",
    )
    compare.add_argument(
        "other", nargs="?", help="another, which is compared with it (this run)"
    )
    compare.add_argument(
        "--model", choices=["finetuned", "head"], default="finetuned"
    )
    compare.add_argument("--json", action="store_true", dest="json_output")

    depths = commands.add_parser(
        "depths", help="which depth is best on validation, and what is as good"
    )
    depths.add_argument(
        "revs",
        nargs="*",
        metavar="rev",
        help="Git revisions or DVC experiments, to rank (this run)",
    )
    depths.add_argument("--json", action="store_true", dest="json_output")

    plan = commands.add_parser(
        "plan", help="what would be thawed and run again"
    )
    plan.add_argument(
        "-S",
        "--set-param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as in `dvc exp run -S`; a line for each combination of a sweep",
    )

    audit = commands.add_parser(
        "audit", help="labels that may be wrong, the most doubtful first"
    )
    audit.add_argument(
        "--top", type=parse_count, default=50, help="lines to print (50)"
    )
    audit.add_argument(
        "--class",
        dest="given",
        metavar="CLASS",
        help="only images that have this label",
    )
    audit.add_argument("--split", choices=SPLITS)
    audit.add_argument(
        "--rev", help="a Git revision or a DVC experiment (this run)"
    )

    commands.add_parser(
        "push", help="`dvc push`, and all that others need to run nothing twice"
    )
    return parser


def parse_count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text}; allowed: a whole number from 1")


def parse_share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (share := float(text)) <= 1:
            return share
    raise argparse.ArgumentTypeError(f"{text}; allowed: a number, 0 to 1")


def main() -> None:
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as in `... | head`
    arguments = vars(make_parser().parse_args())
    command = arguments.pop("command")
    if command in OF_THE_CLONE:
        os.chdir(Path(__file__).parent.parent)
    try:
        # A command imports what it needs, and none what another does.
        importlib.import_module(f"thaw.commands.{command}").main(**arguments)
    except (InputError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
