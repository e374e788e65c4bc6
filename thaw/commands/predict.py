"""Pictures in files to classes, at the speed of the frozen part."""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from thaw.data.images import decode_image, describe_failure, resize_image
from thaw.errors import InputError
from thaw.export.formats import scale_logits
from thaw.files.tables import TableWriter
from thaw.frozen.network import freeze_model
from thaw.network.model_file import load_model, read_about
from thaw.prepare.folders import list_images
from thaw.run.console import format_count, progress

CHUNK = 1024  # files whose predictions are held at a time


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one file.

    Attributes:
        path: the file.
        top: the likeliest classes and their calibrated probabilities.
        answer: the first of them; None where it is not likely enough.
        error: why the file can't be read; the others are then empty.
    """

    path: str
    top: list[tuple[str, float]]
    answer: str | None = None
    error: str = ""


class Classifier:
    """A .keras file that Thaw wrote, made ready to run.

    Args:
        path: models/finetuned.keras, or the one among the exports.
        precision: as in `freeze_model`.

    Attributes:
        classes: their names.
        network: images (n, image_size, image_size, 3) uint8 to calibrated
            probabilities (n, classes).

    Raises:
        InputError: where it is not there, or none that takes images.
    """

    def __init__(self, path: str | Path, precision: str):
        if not Path(path).exists():
            raise InputError(f"{path} is not there")
        if Path(path).suffix != ".keras":
            raise InputError(f"{path}: predict reads .keras files only")
        about = read_about(path)
        if "image_size" not in about:
            raise InputError(f"{path} takes features, not images")
        self.classes: list[str] = about["classes"]
        side = about["image_size"]
        self._resize = partial(resize_image, image_size=side, fit=about["fit"])
        self._shape = (side, side, 3)
        if about.get("any_size"):
            model = load_model(path, (None, None, 3), len(self.classes))
            network = model.get_layer("network")
        else:
            model = load_model(path, self._shape, len(self.classes))
            network = scale_logits(model, about)
        self.network = freeze_model(
            network, precision, "uint8", asked_as="--precision"
        )

    def predict(
        self, files: list[str], top_k: int, threshold: float
    ) -> Iterator[Prediction]:
        """One prediction for each file, in order.

        Args:
            files: of any size and format that Pillow reads.
            top_k: classes to name.
            threshold: least probability for an answer.
        """
        with progress(len(files), "predicting", "images") as bar:
            for first in range(0, len(files), CHUNK):
                chunk = files[first : first + CHUNK]
                yield from self._predict(chunk, top_k, threshold, bar.update)

    def _predict(self, files, top_k, threshold, advance):
        errors = {}

        def load(start: int, stop: int) -> np.ndarray:
            batch = np.zeros((stop - start, *self._shape), np.uint8)
            for image, path in zip(batch, files[start:stop], strict=True):
                try:
                    if not Path(path).is_file():  # nor a pipe, which waits
                        raise FileNotFoundError("there is no such file")
                    data = Path(path).read_bytes()
                    image[:] = self._resize(decode_image(data))
                except Exception as error:  # Pillow's plugins raise anything
                    errors[path] = describe_failure(error)
            return batch

        out = np.empty((len(files), len(self.classes)), np.float32)
        self.network.run(load, len(files), [out], advance)
        for path, row in zip(files, out, strict=True):
            if path in errors:
                yield Prediction(path, [], error=errors[path])
                continue
            order = np.argsort(-row, kind="stable")[:top_k]
            top = [(self.classes[i], float(row[i])) for i in order]
            likely = top[0][1] >= threshold
            yield Prediction(path, top, top[0][0] if likely else None)


def list_pictures(paths: Iterable[str]) -> list[str]:
    """Files as they are, and the images in folders, hidden ones left out."""
    found = []
    for path in paths:
        inner = Path(path).is_dir()
        found += list_images(path, below=True) if inner else [path]
    return found


def write_table(predictions: Iterable[Prediction], file: TextIO) -> None:
    """For people: a line each, the path last."""
    for one in predictions:
        answer = "?" if one.answer is None else one.answer
        top = ", ".join(f"{name} {value:.3f}" for name, value in one.top)
        tqdm.write(f"{answer:<16} {one.path}  ({top})", file=file)


def write_csv(
    predictions: Iterable[Prediction], file: TextIO, top_k: int
) -> None:
    columns = [
        f"{x}_{k + 1}" for k in range(top_k) for x in ("class", "probability")
    ]
    table = TableWriter(file)
    table.writerow(["path", "prediction", *columns])
    for one in predictions:
        cells = [x for name, value in one.top for x in (name, f"{value:.6f}")]
        table.writerow([one.path, one.answer or "", *cells])


def write_json(predictions: Iterable[Prediction], file: TextIO) -> None:
    """A list of objects, one on a line."""
    separator = "["
    for one in predictions:
        top = [{"class": name, "probability": p} for name, p in one.top]
        line = {"path": one.path, "prediction": one.answer, "top": top}
        print(f"{separator}\n{json.dumps(line)}", end="", file=file)
        separator = ","
    print("\n]" if separator == "," else "[]", file=file)


def main(
    model: str,
    paths: list[str],
    format: str,
    top_k: int,
    threshold: float,
    precision: str,
) -> None:
    """Writes predictions to the standard output; says elsewhere what failed.

    Raises:
        InputError: where not one picture can be read.
    """
    files = list_pictures(paths)
    if not files:
        raise InputError(f"{', '.join(paths)}: no picture there")
    classifier = Classifier(model, precision)
    top_k = min(top_k, len(classifier.classes))
    failed = []

    def pick() -> Iterator[Prediction]:
        for one in classifier.predict(files, top_k, threshold):
            if one.error:
                failed.append(one)
                warn(f"can't read {one.path}: {one.error}")
            else:
                yield one

    start = time.perf_counter()
    if format == "csv":
        write_csv(pick(), sys.stdout, top_k)
    elif format == "json":
        write_json(pick(), sys.stdout)
    else:
        write_table(pick(), sys.stdout)
    seconds = time.perf_counter() - start
    if len(failed) == len(files):
        raise InputError("none of these files can be read as a picture")
    warn(
        f"{format_count(len(files) - len(failed), 'image')}, "
        f"{format_count(len(failed), 'file')} skipped, "
        f"{len(files) / seconds:.0f} a second"
    )


def warn(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
