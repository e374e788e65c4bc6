"""`predict`: classes of images in files, at the speed of the frozen pass."""

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
from thaw.export.classifier import scale_logits
from thaw.files.phrases import format_count
from thaw.files.tables import TableWriter
from thaw.frozen.engines import freeze_model
from thaw.network.model_file import load_model
from thaw.network.model_info import read_info
from thaw.prepare.folders import list_images
from thaw.run.console import escape, progress

FILES_AT_ONCE = 1024  # whose predictions are in memory at the same time


@dataclass(frozen=True)
class Prediction:
    """The answer of a model to one file.

    Attributes:
        path: the file.
        top: the likeliest classes and their calibrated probabilities.
        answer: the likeliest class; None where it is not likely enough.
        error: why the file can't be read; `top` is then empty.
    """

    path: str
    top: list[tuple[str, float]]
    answer: str | None = None
    error: str = ""


class Classifier:
    """A .keras file that Thaw wrote, ready to run.

    Args:
        path: models/finetuned.keras or models/export/classifier.keras.
        precision: as in `freeze_model`.

    Attributes:
        classes: their names, in the order of the outputs.
        network: images (n, image_size, image_size, 3) uint8 to calibrated
            probabilities (n, classes).

    Raises:
        InputError: where there is no such file, or its model takes no images.
    """

    def __init__(self, path: str | Path, precision: str):
        if not Path(path).exists():
            raise InputError(f"{path} is not there")
        if Path(path).suffix != ".keras":
            raise InputError(f"{path}: predict reads .keras files only")
        info = read_info(path)
        if not info.image_size:
            raise InputError(f"{path} takes features, not images")
        self.classes = info.classes
        self._resize = partial(
            resize_image, image_size=info.image_size, fit=info.fit
        )
        self._shape = (info.image_size, info.image_size, 3)
        if info.any_size:
            model = load_model(path, (None, None, 3), len(self.classes))
            network = model.get_layer("network")
        else:
            model = load_model(path, self._shape, len(self.classes))
            network = scale_logits(model, info)
        self.network = freeze_model(
            network, precision, "uint8", asked_as="--precision"
        )

    def predict(
        self, files: list[str], top_k: int, threshold: float
    ) -> Iterator[Prediction]:
        """Predicts each file, in order.

        Args:
            files: images of any size, in any format that Pillow reads.
            top_k: the number of classes to name.
            threshold: the least probability of an answer.
        """
        with progress(len(files), "predicting", "images") as bar:
            for first in range(0, len(files), FILES_AT_ONCE):
                chunk = files[first : first + FILES_AT_ONCE]
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


def list_files(paths: Iterable[str]) -> list[str]:
    """Files as they are, and the images in folders, but no hidden ones."""
    found = []
    for path in paths:
        inner = Path(path).is_dir()
        found += list_images(path, below=True) if inner else [path]
    return found


def print_predictions(
    predictions: Iterable[Prediction], format: str, top_k: int
) -> None:
    if format == "csv":
        print_csv(predictions, sys.stdout, top_k)
    elif format == "json":
        print_json(predictions, sys.stdout)
    else:
        print_table(predictions, sys.stdout)


def print_table(predictions: Iterable[Prediction], file: TextIO) -> None:
    """Prints a line for each file, for people."""
    for prediction in predictions:
        answer = "?" if prediction.answer is None else escape(prediction.answer)
        top = ", ".join(
            f"{escape(name)} {value:.3f}" for name, value in prediction.top
        )
        path = escape(prediction.path)
        tqdm.write(f"{answer:<16} {path}  ({top})", file=file)


def print_csv(
    predictions: Iterable[Prediction], file: TextIO, top_k: int
) -> None:
    """Prints a row for each file, with columns for `top_k` classes."""
    columns = [
        f"{x}_{k + 1}" for k in range(top_k) for x in ("class", "probability")
    ]
    table = TableWriter(file)
    table.writerow(["path", "prediction", *columns])
    for prediction in predictions:
        cells = [
            x for name, value in prediction.top for x in (name, f"{value:.6f}")
        ]
        table.writerow([prediction.path, prediction.answer or "", *cells])


def print_json(predictions: Iterable[Prediction], file: TextIO) -> None:
    """Prints a list of objects, each on a line of its own."""
    separator = "["
    for prediction in predictions:
        top = [{"class": name, "probability": p} for name, p in prediction.top]
        line = {
            "path": prediction.path,
            "prediction": prediction.answer,
            "top": top,
        }
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
    """Prints predictions; says on standard error which files failed.

    If any failed, the program ends with status 2.

    Args:
        model: a .keras file that Thaw wrote.
        paths: images, and folders of images.
        format: "table", "csv" or "json".
        top_k: the number of classes to name.
        threshold: the least probability of an answer.
        precision: as in `FrozenNetwork`.

    Raises:
        InputError: where the model can't be run, or no file is an image.
    """
    files = list_files(paths)
    if not files:
        raise InputError(f"{', '.join(paths)}: no picture there")
    classifier = Classifier(model, precision)
    top_k = min(top_k, len(classifier.classes))
    failed = []

    def pick() -> Iterator[Prediction]:
        for prediction in classifier.predict(files, top_k, threshold):
            if prediction.error:
                failed.append(prediction)
                warn(
                    f"can't read {escape(prediction.path)}: {prediction.error}"
                )
            else:
                yield prediction

    # A path may hold bytes that no encoding knows.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    start = time.perf_counter()
    print_predictions(pick(), format, top_k)
    seconds = time.perf_counter() - start
    if len(failed) == len(files):
        raise InputError("none of these files can be read as a picture")
    warn(
        f"{format_count(len(files) - len(failed), 'image')}, "
        f"{format_count(len(failed), 'file')} skipped, "
        f"{len(files) / seconds:.0f} a second"
    )
    if failed:
        sys.exit(2)


def warn(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
