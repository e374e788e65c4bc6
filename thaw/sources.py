"""Where images come from: digits, folders, TensorFlow Datasets.

A source names its classes and yields items; an item is loaded later, on a
thread, so that a bad file costs one item and a large set no memory.
"""

import contextlib
import difflib
import hashlib
import os
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.console import without_chatter
from thaw.errors import InputError
from thaw.images import convert_image, decode_image
from thaw.splits import SPLITS

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Item:
    """One image, not yet loaded."""

    path: str
    label: int
    split: str  # "train" where the source brings no splits
    load: Callable[[], tuple[str, Image.Image]]  # sha256 of its bytes, picture


@dataclass(frozen=True)
class Source:
    classes: list[str]
    splits: list[str]  # those the source brings
    sizes: dict[str, int]  # images of each split; train where it brings none
    items: Iterator[Item]
    ignored: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Images in all."""
        return sum(self.sizes.values())


def open_source(
    source: str, path: str, name: str | None, data_dir: str | None
) -> Source:
    """Opens the source that the section `prepare` names.

    Raises:
        InputError: where it is missing, or holds no classification set.
    """
    if source == "digits":
        return open_digits()
    if source == "folder":
        return open_folder(path)
    return open_tfds(name, data_dir)


def open_digits() -> Source:
    """1,797 handwritten digits of 8 x 8 pixels, shipped by scikit-learn."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    items = (
        Item(
            f"digits/{row:04d}",
            int(label),
            "train",
            partial(_load_array, image),
        )
        for row, (image, label) in enumerate(
            zip(pixels, digits.target, strict=True)
        )
    )
    classes = [str(name) for name in digits.target_names]
    return Source(classes, [], {"train": len(pixels)}, items)


def _load_array(pixels: np.ndarray) -> tuple[str, Image.Image]:
    if pixels.dtype == np.uint16:
        pixels = (pixels // 256).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    digest = hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes())
    return digest.hexdigest(), convert_image(Image.fromarray(pixels))


def _load_file(path: Path) -> tuple[str, Image.Image]:
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), decode_image(data)


def open_folder(path: str | Path) -> Source:
    """Class folders, or train, validation and test folders of such folders."""
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"prepare.path is {path}; allowed: a folder")
    # A folder of split is one that holds class folders.
    named = [
        d
        for d in _list_folders(root)
        if d.name.lower() in SPLIT_NAMES and _list_folders(d)
    ]
    folders = {SPLIT_NAMES[d.name.lower()]: d for d in named}
    names = ", ".join(d.name for d in named)
    if len(folders) < len(named):
        raise InputError(f"{path} holds two folders of one split: {names}")
    if folders and "train" not in folders:
        raise InputError(f"{path} holds {names}, but no train")
    splits = [split for split in SPLITS if split in folders]
    tops = [folders[split] for split in splits] or [root]
    ignored = [f"{f}" for f in _list_strays(root, tops)]
    class_folders = [
        (split, folder)
        for split, top in zip(splits or ["train"], tops, strict=True)
        for folder in _list_folders(top)
    ]
    trained = {d.name for split, d in class_folders if split == "train"}
    classes = sorted(trained)
    sizes = Counter()
    for split, folder in class_folders:
        if folder.name not in trained:
            raise InputError(f"class {folder.name} is in {split}, not in train")
        files, skipped = list_files(folder)
        found = len(files)
        ignored += skipped
        if not found:
            raise InputError(f"{folder} is empty: a class needs images")
        sizes[split] += found

    def list_items() -> Iterator[Item]:
        for split, folder in class_folders:
            label = classes.index(folder.name)
            for file in map(Path, list_files(folder)[0]):
                path = file.relative_to(root).as_posix()
                yield Item(path, label, split, partial(_load_file, file))

    return Source(classes, splits, sizes, list_items(), ignored)


def _list_folders(folder: Path) -> list[Path]:
    return sorted(
        d for d in folder.iterdir() if d.is_dir() and d.name[0] != "."
    )


def list_files(folder: Path) -> tuple[list[str], list[str]]:
    """All below a folder, as bare strings: there may be millions.

    Returns:
        The files, and what is ignored: what is hidden, links to folders (DVC
        does not look behind them), what is no file.
    """
    files, ignored = [], []
    for parent, folders, names in os.walk(folder):
        hidden = [name for name in (*folders, *names) if name[0] == "."]
        links = [d for d in folders if Path(parent, d).is_symlink()]
        others = {*names} - {*hidden}
        found = {name for name in others if Path(parent, name).is_file()}
        files += [f"{parent}/{name}" for name in found]
        strange = sorted({*hidden, *links, *(others - found)})
        ignored += [f"{parent}/{name}" for name in strange]
        folders[:] = [name for name in folders if name not in hidden]
    return sorted(files), ignored


def _list_strays(root: Path, tops: list[Path]) -> list[Path]:
    """What lies beside the class folders, or beside the split folders."""
    beside = [f for top in {root, *tops} for f in top.iterdir()]
    if tops != [root]:
        beside = [
            f
            for f in beside
            if f not in tops and not (f.parent in tops and f.is_dir())
        ]
    else:
        beside = [f for f in beside if not f.is_dir()]
    return sorted(f for f in beside if f.name[0] != ".")


def open_tfds(name: str, data_dir: str | None) -> Source:
    """A classification set of TensorFlow Datasets, by its supervised_keys."""
    with without_chatter():
        import tensorflow_datasets as tfds

    builder = _find_builder(tfds, name, data_dir)
    features, keys = builder.info.features, builder.info.supervised_keys
    try:
        image_key, label_key = keys
        kinds = features[image_key], features[label_key]
    except (TypeError, ValueError, KeyError):
        kinds = None, None
    wanted = tfds.features.Image, tfds.features.ClassLabel
    if not all(map(isinstance, kinds, wanted)):
        raise InputError(
            f"prepare.name is {name}; allowed: a set whose supervised_keys "
            f"are an image and a class label (this one's: {keys})"
        )
    if kinds[0].np_dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"prepare.name is {name}: its images are {kinds[0].np_dtype}; "
            "integers from 0 are expected"
        )
    _download(tfds, builder, name)
    named = {
        SPLIT_NAMES[split]: split
        for split in builder.info.splits
        if split in SPLIT_NAMES
    }
    if "train" not in named:
        raise InputError(f"prepare.name is {name}: it has no split train")
    splits = [split for split in SPLITS if split in named]
    ignored = [
        f"split {split}"
        for split in builder.info.splits
        if split not in named.values()
    ]
    sizes = {s: builder.info.splits[named[s]].num_examples for s in splits}

    def list_items() -> Iterator[Item]:
        for split in splits:
            images = builder.as_dataset(
                split=named[split],
                as_supervised=True,
                read_config=tfds.ReadConfig(interleave_cycle_length=1),
            )
            for row, (image, label) in enumerate(tfds.as_numpy(images)):
                if not 0 <= label < len(classes):
                    raise InputError(
                        f"prepare.name is {name}: split {split} has images "
                        "without a label"
                    )
                load = partial(_load_array, image)
                yield Item(f"{name}/{split}/{row}", int(label), split, load)

    classes = list(kinds[1].names)
    return Source(classes, splits, sizes, list_items(), ignored)


def _find_builder(tfds, name: str, data_dir: str | None):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        known = tfds.list_builders(with_community_datasets=False)
        base = name.split("/")[0].split(":")[0]
        if base in known:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"prepare.name is {name}: {reason}") from error
        close = difflib.get_close_matches(base, known, n=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"prepare.name is {name}: TensorFlow Datasets has no such set, nor "
            f"has prepare.data_dir{hint}"
        ) from error


def _download(tfds, builder, name: str) -> None:
    """Makes sure that the set is on disk, or says within 15 s why not."""
    if builder.info.splits:
        return
    if not is_online():
        raise InputError(
            f"prepare.name is {name}: not in {builder.data_path}, and there is "
            "no connection to download it"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{name} can't be downloaded: {reason}") from error


def is_online(host: str = "https://storage.googleapis.com") -> bool:
    """Whether a host answers within 10 s, proxies of the environment used.

    TFDS itself retries an unreachable host for minutes. A thread, because
    every address of a host, and its name's lookup, take their own time.
    """
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError):
            with contextlib.suppress(urllib.error.HTTPError):  # an answer
                urllib.request.urlopen(host, timeout=10)
            answers.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout=10)
    return bool(answers)
