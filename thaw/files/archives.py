"""Zip archives and HDF5 files that may come from anyone."""

import io
import zipfile
from collections import Counter
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from thaw.errors import InputError

# What a file may unpack to: weights compress little, and Keras stores them as
# they are.
MOST_TIMES = 10
MOST_BYTES = 16 * 2**20

HDF5 = (".h5", ".hdf5")


def check_archive(path: str | Path) -> None:
    """Refuses what a zip archive or an HDF5 file must not hold.

    Nothing is unpacked before its size is known. Other files pass.

    Raises:
        InputError: for a path that leads out of the archive, a name that is
            there twice, encryption, links to other files, and more bytes than
            the file can honestly hold.
    """
    if zipfile.is_zipfile(path):
        check_zip(path)
    elif Path(path).suffix in HDF5:
        with Path(path).open("rb") as file:
            check_hdf5(file, Path(path).stat().st_size)


def check_zip(path: str | Path) -> None:
    """As `check_archive`, HDF5 files in the archive as well."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            name = member.filename
            parts = PureWindowsPath(name)  # takes / and \\ for separators
            if parts.anchor or ".." in parts.parts:
                raise InputError(f"it holds {name}, a path out of the archive")
            if member.flag_bits & 1:
                raise InputError(f"{name} in it is encrypted")
        name, times = Counter(archive.namelist()).most_common(1)[0]
        if times > 1:
            raise InputError(f"it holds {name} {times} times")
        check_size(sum(m.file_size for m in members), Path(path).stat().st_size)
        for member in members:
            if member.filename.endswith(HDF5):
                data = archive.read(member)
                check_hdf5(io.BytesIO(data), len(data))


def check_hdf5(file: BinaryIO, size: int) -> None:
    """As `check_archive`.

    Args:
        file: opened.
        size: of it.
    """
    import h5py

    total = 0
    with h5py.File(file, "r") as opened:
        left = [opened]
        while left:
            group = left.pop()
            for name in group:
                link = group.get(name, getlink=True)
                if not isinstance(link, h5py.HardLink):
                    raise InputError(f"{name} in it is a link")
                item = group[name]
                if isinstance(item, h5py.Group):
                    left.append(item)
                    continue
                if item.external or item.is_virtual:
                    raise InputError(f"{name} in it lies in another file")
                total += item.nbytes
                check_size(total, size)


def check_size(total: int, size: int) -> None:
    """Raises InputError for a file of `size` bytes that becomes `total`."""
    if total > MOST_TIMES * size + MOST_BYTES:
        raise InputError(
            f"its {size:,} bytes would become {total:,}: no file of weights "
            "does that"
        )
