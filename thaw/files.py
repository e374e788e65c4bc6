"""Files and folders that appear whole or not at all; arrays on disk."""

import csv
import json
import math
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

import numpy as np
from ruamel.yaml import YAML, YAMLError

from thaw.errors import InputError


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends well."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        shutil.rmtree(path, ignore_errors=True)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """A file to write, which takes its name when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished.{path.name}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    with new_file(path) as unfinished:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def read_yaml(path: str | Path) -> Any:
    """As DVC reads params.yaml and its own files: YAML 1.2.

    Raises:
        InputError: one line that says what is wrong, and where.
    """
    try:
        return YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        reason = f"{error}"
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        reason = f"{where}{getattr(error, 'problem', None) or error}"
    raise InputError(f"{path} can't be read: {' '.join(reason.split())}")


def list_outs(lock: Any) -> dict[str, str]:
    """What a dvc.lock holds: outputs of stages to their hashes."""
    stages = (lock or {}).get("stages", {}).values()
    outs = (out for stage in stages for out in stage.get("outs", ()))
    return {out["path"]: out["md5"] for out in outs}


class TableWriter:
    """Writes CSV rows of any text.

    Before Python 3.13 csv takes a carriage return for nothing to quote.
    """

    def __init__(self, file: TextIO):
        self._plain = csv.writer(file, lineterminator="\n")
        self._quoting = csv.writer(
            file, lineterminator="\n", quoting=csv.QUOTE_ALL
        )

    def writerow(self, row: Sequence) -> None:
        odd = any("\r" in str(value) for value in row)
        (self._quoting if odd else self._plain).writerow(row)


@contextmanager
def new_table(path: str | Path, columns: Sequence[str]) -> Iterator[Any]:
    """A CSV to write with `writerow`, there when the block ends well."""
    with (
        new_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        table = TableWriter(file)
        table.writerow(columns)
        yield table


def write_table(
    path: str | Path, columns: Sequence[str], rows: Iterable[Sequence]
) -> None:
    with new_table(path, columns) as table:
        for row in rows:
            table.writerow(row)


def read_table(path: str | Path) -> Iterator[dict[str, str]]:
    """Its rows, one at a time."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


class ArrayWriter:
    """An .npy file written row by row, its length not known beforehand.

    Args:
        path: the file.
        row_shape: shape of one row; the array gets (rows, *row_shape).
        dtype: of the array; rows are cast to it.
        rows: to keep of a file that is there.
    """

    def __init__(
        self,
        path: str | Path,
        row_shape: Sequence[int],
        dtype: Any,
        rows: int = 0,
    ):
        self.row_shape, self.dtype = tuple(row_shape), np.dtype(dtype)
        self.rows = rows
        mode = "r+b" if rows else "wb"
        self._file = Path(path).open(mode)  # noqa: SIM115 (__exit__ closes)
        self._write_header()
        size = math.prod(self.row_shape) * self.dtype.itemsize
        self._file.truncate(self._file.tell() + rows * size)
        self._file.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        # NumPy pads the header so that the first axis can grow in place.
        self._file.seek(0)
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.rows, *self.row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Adds (n, *row_shape)."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.rows += len(rows)

    def flush(self) -> None:
        """Hands over to the system what a killed program would lose."""
        self._file.flush()

    def __enter__(self) -> "ArrayWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self._write_header()
        self._file.close()


def create_array(path: str | Path, shape: Sequence[int], dtype: Any):
    """A new .npy file of known shape, mapped for writing.

    Raises:
        OSError: where the disk has not the room. A mapped page that finds
            none when it is written ends the program instead.
    """
    array = np.lib.format.open_memmap(path, "w+", np.dtype(dtype), tuple(shape))
    if hasattr(os, "posix_fallocate"):
        try:
            with Path(path).open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, measure_size(path))
        except OSError as error:
            Path(path).unlink()
            raise OSError(error.errno, error.strerror, str(path)) from error
    return array


def continue_array(path: str | Path) -> np.ndarray:
    """A file from `create_array`, mapped for writing again."""
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def open_array(path: str | Path) -> np.ndarray:
    """An .npy file, mapped for reading: only what is touched is loaded.

    Raises:
        InputError: where it is none, or not a whole one.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no whole array: {error}") from error


def link_folder(source: Path, target: Path) -> None:
    """The same files under another name, copied where that can't be."""

    def link(file: str, name: str) -> None:
        try:
            os.link(file, name)
        except OSError:
            shutil.copyfile(file, name)

    shutil.copytree(source, target, copy_function=link, dirs_exist_ok=True)


def check_archive(path: str | Path) -> None:
    """Raises InputError for a zip archive with a path that leads out of it."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            parts = PureWindowsPath(name)  # takes / and \\ for separators
            if parts.anchor or ".." in parts.parts:
                raise InputError(f"it holds {name}, a path out of the archive")


def measure_size(path: str | Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    path = Path(path)
    if path.is_file():
        return path.stat().st_size
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
