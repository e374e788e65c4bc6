"""Arrays on disk: .npy files, written by rows, mapped for reading."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw.errors import InputError
from thaw.files.atomic import measure_size, new_file


class ArrayWriter:
    """An .npy file written row by row, its length not known beforehand.

    Args:
        path: the file.
        row_shape: shape of one row; the array gets (rows, *row_shape).
        dtype: of the array; rows are cast to it.
        rows: to keep of a file that is there.

    Raises:
        InputError: if it has less rows than that.
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
        end = self._file.tell() + rows * size
        if rows and os.fstat(self._file.fileno()).st_size < end:
            self._file.close()
            raise InputError(f"{path} has less than {rows} rows")
        self._file.truncate(end)
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


def write_array(path: str | Path, array: np.ndarray) -> None:
    """An .npy file, whole or not at all."""
    with new_file(path) as unfinished, unfinished.open("wb") as file:
        np.save(file, array)


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
