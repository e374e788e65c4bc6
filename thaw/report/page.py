"""The report: what the stages wrote, gathered and laid out as one page."""

import base64
import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thaw.data.dataset import Dataset
from thaw.data.efficientnet import IMAGE, VARIANTS
from thaw.data.images import resize_image
from thaw.data.origin import name_source, warn_of_characters
from thaw.data.splits import SPLITS
from thaw.evaluate.comparison import HEAD_SHIPPED
from thaw.evaluate.verdict import MODELS, describe_verdict, suggest_depth
from thaw.files.arrays import open_array
from thaw.files.atomic import new_file
from thaw.files.phrases import format_count
from thaw.files.rendering import render
from thaw.files.tables import read_table
from thaw.network.plan import CACHED, POOLED_FEATURES, STREAMED, TAP, Plan
from thaw.report.charts import (
    draw_confusion,
    draw_curves,
    draw_gain,
    draw_reliability,
)
from thaw.report.doubts import read_doubts
from thaw.report.heat import paint_heat
from thaw.run.params import Params

TEMPLATE = Path(__file__).with_name("report.html")

MOST_ERRORS = 24
MOST_FIGURES = 6  # of errors or copies, before a click
MOST_CONFUSIONS = 10
MOST_LISTED = 50  # bad images, pairs of copies
LEAST_POSITIONS = 4  # of a heat map along a side; fewer show no place
MOST_CELLS = 25  # classes in a table of confusions, or shown before a click
MOST_WHOLE = 12  # letters at the end of a path that stay on one line
SIDE = 160  # pixels of a thumbnail

# Scores by their keys in the details of `evaluate`: name, whether a difference
# means something, and which way is up.
SCORES = {
    "accuracy": ("Accuracy", True, "higher is better"),
    "accuracy_ci_low": ("Accuracy, 95 % interval", False, ""),
    "macro_f1": ("F1, mean over classes", True, "higher is better"),
    "loss": ("Log loss", True, "lower is better"),
    "ece": ("Expected calibration error", True, "lower is better"),
    "temperature": ("Temperature, fitted on validation", False, ""),
    "calibrated_loss": ("Log loss, calibrated", True, "lower is better"),
    "calibrated_ece": (
        "Expected calibration error, calibrated",
        True,
        "lower is better",
    ),
}

# Kinds of pictures that stand out, as pictures.csv names them: title, and what
# that means.
KINDS = {
    "dark": ("Dark", "Even the lightest parts are dark."),
    "bright": ("Bright", "Even the darkest parts are bright."),
    "flat": ("Flat", "There is next to no contrast."),
    "grey": ("Grey", "Most others have colours."),
    "odd_shape": (
        "Odd in shape",
        "The sides are in another proportion than those of most.",
    ),
    "blurred": (
        "The most blurred",
        "A rank: in any set, some have the least detail for their contrast.",
    ),
}

# Where fine-tuning took its inputs from.
ORIGINS = {
    POOLED_FEATURES: "the pooled features that the head was trained on",
    TAP: "kept when the features were extracted",
    CACHED: "computed once and kept",
    STREAMED: "computed from the images in every epoch",
}

Row = Mapping[str, str]


@dataclass(frozen=True)
class Results:
    """What a run left, of which the page is made.

    Attributes:
        params: of the run.
        dataset: whose test images the predictions are of, in their order.
        plan: what was thawed.
        model: file of the shipped model, for its digest.
        details: stage to its details: prepare, head, audit, depth, finetune,
            evaluate.
        predictions: a CSV with a row for each test image.
        heat: an .npy, Grad-CAM of each test image's predicted class.
        audit: a CSV with a row for each image, the most doubtful first.
        corrections: a CSV of labels that were put right before.
        depths: a CSV with a row for each depth that raced.
        curves: phase (head, finetune) to a CSV with a row for each epoch.
        scores, reliability, counts: CSVs of both models and all classes.
        augmented: a PNG.
    """

    params: Params
    dataset: Dataset
    plan: Plan
    model: str
    details: Mapping[str, dict]
    predictions: str
    heat: str
    audit: str
    corrections: str
    curves: Mapping[str, str]
    scores: str
    reliability: str
    counts: str
    augmented: str

    @property
    def verdict(self) -> str:
        """Whether fine-tuning helped, in one sentence."""
        evaluate, finetune = self.details["evaluate"], self.details["finetune"]
        blocks = "all" if self.plan.cut == IMAGE else len(self.plan.blocks)
        trained = self.params.finetune.epochs > 0
        return describe_verdict(evaluate, finetune, blocks, trained)

    @property
    def next_depth(self) -> int:
        """Another depth to try."""
        total = VARIANTS[self.params.backbone.name].blocks
        evaluate, finetune = self.details["evaluate"], self.details["finetune"]
        return suggest_depth(evaluate, finetune, total)


def write_report(path: str | Path, results: Results) -> None:
    """Writes the page; the same results give the same bytes.

    Args:
        path: the page, which needs no other file.
        results: of the run.
    """
    rows = list(read_table(results.predictions))
    page = render(
        TEMPLATE,
        FILTERS,
        metrics=results.details,
        classes=results.dataset.classes,
        most=MOST_CELLS,
        most_figures=MOST_FIGURES,
        **describe_run(results),
        **describe_results(results, rows),
        **describe_predictions(results, rows),
        **describe_doubts(results),
        **describe_data(results),
    )
    with new_file(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")


def describe_run(results: Results) -> dict[str, Any]:
    """What ran: weights, data, the plan, all parameters."""
    params = results.params
    return {
        "verdict": results.verdict,
        "depth": results.next_depth,
        "warning": warn_of_characters(
            params.prepare.source,
            params.backbone.weights,
            params.backbone.file,
        ),
        "weights": name_weights(params.backbone.weights, params.backbone.file),
        "image_size": results.dataset.image_size,
        "digest": shorten_digest(results.model),
        "model": results.model,
        "params": params.model_dump(exclude={"export"}),
        "plan": results.plan,
        "origin": ORIGINS[results.plan.activations],
        "source": name_source(
            params.prepare.source, params.prepare.path, params.prepare.name
        ),
        "total_blocks": VARIANTS[params.backbone.name].blocks,
    }


def describe_results(results: Results, rows: Sequence[Row]) -> dict[str, Any]:
    """Scores of both models, what fine-tuning gained, learning curves."""
    evaluate = results.details["evaluate"]
    models = name_models(evaluate)
    gain = ("gain", "gain_ci_low", "gain_ci_high")
    compared = "head" in models
    return {
        "models": models,
        "changes": count_changes(rows),
        "gain": draw_gain(*(evaluate[key] for key in gain))
        if compared
        else None,
        "scores": list_scores(evaluate, models),
        "curves": draw_phases(results.curves),
        "reliability": draw_bins(results.reliability, models),
    }


def describe_predictions(
    results: Results, rows: Sequence[Row]
) -> dict[str, Any]:
    """Classes, confusions and errors of the shipped model."""
    dataset, heat = results.dataset, open_array(results.heat)
    matrix = count_confusions(rows, dataset.classes)
    drawn = len(dataset.classes) > MOST_CELLS
    return {
        "matrix": matrix.tolist(),
        "heat_map": draw_confusion(matrix, dataset.classes) if drawn else None,
        "confusions": list_confusions(matrix, dataset.classes),
        "recalls": list_classes(results.scores),
        "wrong": sum(row["actual"] != row["finetuned"] for row in rows),
        "errors": show_errors(rows, dataset, heat),
        "positions": heat.shape[1],
        "least_positions": LEAST_POSITIONS,
    }


def describe_doubts(results: Results) -> dict[str, Any]:
    """Labels that may be wrong, and what was put right before."""
    return {
        "doubts": [
            {
                **about,
                "image": embed_image(make_thumbnail(image)),
                "alike": [
                    {
                        **other,
                        "image": embed_image(make_thumbnail(shown, SIDE // 2)),
                    }
                    for other, shown in alike
                ],
            }
            for about, image, alike in read_doubts(
                results.audit, results.dataset
            )
        ],
        "corrections": list(read_table(results.corrections)),
    }


def describe_data(results: Results) -> dict[str, Any]:
    """Images of each class, views, what was left out, copies, kinds."""
    dataset = results.dataset
    return {
        "counts": list_counts(results.counts),
        "splits": SPLITS,
        "augmented": embed_file(results.augmented),
        "quarantine": list_lines(dataset.folder / "quarantine.csv"),
        "copies": list_lines(dataset.folder / "duplicates.csv"),
        "pairs": show_pairs(dataset),
        "kinds": show_kinds(dataset, results.details["prepare"]["pictures"]),
    }


def format_decimal(value: float, sign: str = "") -> str:
    """Three digits behind the point, or two at all where they would be 0."""
    tiny = 0 < abs(value) < 0.0005
    text = f"{value:{sign}.2g}" if tiny else f"{value:{sign}.3f}"
    return text.replace("-", "\N{MINUS SIGN}")


def format_percent(share: str) -> str:
    """Of a cell of a table, which may be empty."""
    return (
        f"{100 * float(share):.0f}\N{NO-BREAK SPACE}%" if share else "unknown"
    )


def format_signed(value: float) -> str:
    return format_decimal(value, "+" if value else "")


def cut_path(path: str) -> list[str]:
    """Pieces between which a line may break; the last ends the file's name."""
    *pieces, last = re.findall(r"[^/_ -]*[/_ -]|[^/_ -]+$", path) or [""]
    if len(last) > 2 * MOST_WHOLE:
        pieces.append(last[:-MOST_WHOLE])
        last = last[-MOST_WHOLE:]
    return [*pieces, last]


# What the page calls them.
FILTERS: dict[str, Callable] = {
    "count": format_count,
    "decimal": format_decimal,
    "signed": format_signed,
    "percent": format_percent,
    "json": partial(json.dumps, ensure_ascii=False),
    "repr": repr,
    "pieces": cut_path,
}


def name_weights(weights: str | None, file: str) -> str:
    names = {"file": file, "imagenet": "ImageNet", None: "none: random"}
    return names[weights]


def name_models(evaluate: Mapping) -> dict[str, str]:
    """Models that differ, and what the page calls them."""
    if evaluate["gain_verdict"] == HEAD_SHIPPED:
        return {"finetuned": "Head alone, shipped"}
    return {"head": "Head alone", "finetuned": "Fine-tuned"}


def shorten_digest(path: str | Path) -> str:
    """The first digits of what dvc.lock has of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()[:8]


def count_changes(rows: Sequence[Row]) -> dict[str, int]:
    """Test images by which of the two models is right."""
    changes = dict.fromkeys(("both", "gained", "lost", "neither"), 0)
    names = {
        (True, True): "both",
        (False, True): "gained",
        (True, False): "lost",
        (False, False): "neither",
    }
    for row in rows:
        head, finetuned = (row[name] == row["actual"] for name in MODELS)
        changes[names[head, finetuned]] += 1
    return changes


def name_score(key: str) -> tuple[str, bool, str]:
    """As in `SCORES`; raises KeyError for a score that has no name."""
    if top := re.fullmatch(r"top(\d+)", key):
        return f"Top-{top[1]} accuracy", True, "higher is better"
    return SCORES[key]


def list_scores(evaluate: Mapping, models: Mapping) -> list[dict]:
    """A row for each score; an interval is one."""
    rows = []
    for key in evaluate["finetuned"]:
        if key == "accuracy_ci_high":
            continue
        name, comparable, note = name_score(key)
        keys = [key]
        if key == "accuracy_ci_low":
            keys.append("accuracy_ci_high")
        rows.append(
            {
                "name": name,
                "note": note,
                "values": {
                    model: {k: evaluate[model][k] for k in keys}
                    for model in models
                },
                "difference": evaluate["finetuned"][key] - evaluate["head"][key]
                if comparable and "head" in models
                else None,
            }
        )
    return rows


def draw_phases(curves: Mapping[str, str | Path]) -> dict[str, str]:
    """Charts of the phases that trained by steps; none if none did."""
    tables = {phase: list(read_table(path)) for phase, path in curves.items()}
    tables = {phase: rows for phase, rows in tables.items() if rows}
    return {
        title: draw_curves(title, title.lower(), tables)
        for title in ("Accuracy", "Loss")
        if tables
    }


def count_confusions(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    """Images by class and by what the fine-tuned model takes them for.

    Returns:
        (classes, classes) int, actual by predicted.
    """
    number = {name: label for label, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), int)
    for row in rows:
        matrix[number[row["actual"]], number[row["finetuned"]]] += 1
    return matrix


def list_confusions(matrix: np.ndarray, classes: Sequence[str]) -> list[dict]:
    """The most frequent confusions, with their share of the actual class."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSIONS]
    cells = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {
            "actual": classes[actual],
            "predicted": classes[predicted],
            "images": int(wrong[actual, predicted]),
            "of": int(matrix[actual].sum()),
        }
        for actual, predicted in cells
        if wrong[actual, predicted]
    ]


def list_classes(path: str | Path) -> list[dict]:
    """Each class with its scores, the one of least F1 first."""
    models = defaultdict(list)
    for row in read_table(path):
        models[row["model"]].append(row)
    rows = [
        {
            "name": row["class"],
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1"]),
            "head_recall": float(head["recall"]),
            "images": int(row["images"]),
        }
        for head, row in zip(*(models[name] for name in MODELS), strict=True)
    ]
    return sorted(rows, key=lambda row: row["f1"])


def draw_bins(path: str | Path, models: Mapping[str, str]) -> dict[str, str]:
    """A reliability diagram of each model."""
    bins = defaultdict(list)
    for row in read_table(path):
        bins[row["model"]].append(row)
    return {
        name: draw_reliability(
            name,
            title,
            {
                "as trained": bins[name],
                "calibrated": bins[f"{name}, calibrated"],
            },
        )
        for name, title in models.items()
    }


def show_errors(
    rows: Sequence[Row], dataset: Dataset, heat: np.ndarray
) -> list[dict]:
    """The errors of greatest confidence, with pictures, and Grad-CAM where it
    has positions enough.

    Args:
        rows: of all test images, in the dataset's order.
        dataset: holds the images.
        heat: (n, h, w) in [0, 1], of the classes that they are taken for.
    """
    wrong = [
        i for i, row in enumerate(rows) if row["actual"] != row["finetuned"]
    ]
    wrong.sort(key=lambda i: -float(rows[i]["finetuned_calibrated"]))
    wrong = wrong[:MOST_ERRORS]
    thumbnails = map(make_thumbnail, dataset.open_images("test")[wrong])
    has_places = heat.shape[1] >= LEAST_POSITIONS
    return [
        {
            **rows[i],
            "probability": float(rows[i]["finetuned_calibrated"]),
            "image": embed_image(thumbnail),
            "heat": embed_image(paint_heat(thumbnail, heat[i]))
            if has_places
            else None,
        }
        for i, thumbnail in zip(wrong, thumbnails, strict=True)
    ]


def show_pairs(dataset: Dataset) -> list[dict]:
    """The first pairs of copies, with pictures."""
    return [
        {
            **about,
            "images": [embed_image(make_thumbnail(image)) for image in images],
        }
        for about, images in dataset.read_duplicates()
    ]


def show_kinds(dataset: Dataset, statistics: Mapping) -> list[dict]:
    """The first pictures of each kind that stands out, with their images.

    Args:
        dataset: holds them.
        statistics: of all pictures, with the count and share of kinds.
    """
    by_kind = groupby(dataset.read_pictures(), lambda one: one[0]["kind"])
    return [
        {
            "title": KINDS[kind][0],
            "meaning": KINDS[kind][1],
            "found": statistics.get(kind),
            "shown": [
                {**about, "image": embed_image(make_thumbnail(image))}
                for about, image in islice(pictures, MOST_FIGURES)
            ],
        }
        for kind, pictures in by_kind
    ]


def make_thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    return resize_image(Image.fromarray(image), side, "squash")


def embed_image(image: np.ndarray) -> str:
    """(H, W, 3) uint8 as the address of a JPEG that lies in it."""
    with io.BytesIO() as file:
        Image.fromarray(image).save(file, "JPEG", quality=85, optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/jpeg;base64,{data}"


def embed_file(path: str | Path) -> str:
    data = base64.b64encode(Path(path).read_bytes()).decode()
    return f"data:image/png;base64,{data}"


def list_counts(path: str | Path) -> list[dict]:
    """Images of each class: its name, and the number in each split."""
    classes: dict[str, dict[str, int]] = defaultdict(dict)
    for row in read_table(path):
        classes[row["class"]][row["split"]] = int(row["images"])
    return [{"name": name, **counts} for name, counts in classes.items()]


def list_lines(path: str | Path) -> dict[str, Any]:
    """The first rows of a table, and how many more there are."""
    rows = read_table(path)
    shown = list(islice(rows, MOST_LISTED))
    return {"shown": shown, "more": sum(1 for _ in rows)}
