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

    The ending says which of them it is, as Keras has it. Nothing is unpacked
    before its size is known.

    Raises:
        InputError: for a path that leads out of the archive, a name that is
            there twice, encryption, links to other files, and more bytes than
            the file can honestly hold.
        OSError, zipfile.BadZipFile: where it is neither.
    """
    if Path(path).suffix in HDF5:
        with Path(path).open("rb") as file:
            check_hdf5(file, Path(path).stat().st_size)
        return
    check_members(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(HDF5):
                data = archive.read(name)
                check_hdf5(io.BytesIO(data), len(data))


def check_members(path: str | Path) -> None:
    """As `check_archive`, of the directory of a zip archive alone."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            name = member.filename
            if leads_out(name):
                raise InputError(f"it holds {name}, a path out of the archive")
            if member.flag_bits & 1:
                raise InputError(f"{name} in it is encrypted")
    for name, times in Counter(member.filename for member in members).items():
        if times > 1:
            raise InputError(f"it holds {name} {times} times")
    check_size(sum(m.file_size for m in members), Path(path).stat().st_size)


def leads_out(name: str) -> bool:
    """Whether a path, joined to a folder, may be outside it."""
    path = PureWindowsPath(name)  # takes / and \\ for separators
    return bool(path.anchor) or ".." in path.parts


def check_hdf5(file: BinaryIO, size: int) -> None:
    """As `check_archive`.

    Args:
        file: opened.
        size: of it.
    """
    import h5py

    total = 0
    with h5py.File(file, "r") as opened:
        links: list[tuple[str, object]] = []
        # It visits each group once, also where groups are in a circle.
        opened.visititems_links(lambda name, link: links.append((name, link)))
        for name, link in links:
            if not isinstance(link, h5py.HardLink):
                raise InputError(f"{name} in it is a link")
            item = opened[name]
            if not isinstance(item, h5py.Dataset):
                continue
            if item.external or item.is_virtual:
                raise InputError(f"{name} in it lies in another file")
            if item.dtype.kind not in "biuf":  # others have no fixed size
                raise InputError(f"{name} in it does not hold numbers")
            total += item.nbytes
            check_size(total, size)


def check_size(total: int, size: int) -> None:
    """Raises InputError for a file of `size` bytes that becomes `total`."""
    if total > MOST_TIMES * size + MOST_BYTES:
        raise InputError(
            f"its {size:,} bytes would become {total:,}: no file of weights "
            "does that"
        )
