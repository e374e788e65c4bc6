"""TensorFlow Datasets as a source."""

import difflib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from thaw.data.splits import SPLIT_NAMES, SPLITS
from thaw.errors import InputError
from thaw.files.archives import leads_out
from thaw.files.online import is_online
from thaw.files.phrases import list_some
from thaw.prepare.items import Item, Source, read_array
from thaw.run.console import without_chatter


def open_tfds(
    name: str, data_dir: str | None, watched: str | None = None
) -> Source:
    """A classification set of TensorFlow Datasets, by its supervised_keys.

    Args:
        name: NAME[/CONFIG].
        data_dir: where it lies.
        watched: what DVC watches, for a set that is in no catalogue.

    Raises:
        InputError: where it is missing, no classification set, or not watched.
    """
    with without_chatter():
        import tensorflow_datasets as tfds

    if data_dir and data_dir[0] == "~":
        data_dir = str(Path(data_dir).expanduser())
    forbid_imports(tfds)
    builder = _find_builder(tfds, name, data_dir)
    check_files(builder, name)
    _check_watched(tfds, builder, name, watched)
    label_key = _find_label(tfds, builder.info, name)
    _download(tfds, builder, name)
    named = {
        SPLIT_NAMES[split]: split
        for split in builder.info.splits
        if split in SPLIT_NAMES
    }
    if "train" not in named:
        raise InputError(f"prepare.name is {name}: it has no split train")
    splits = [split for split in SPLITS if split in named]
    others = [s for s in builder.info.splits if s not in named.values()]
    notes = [f"ignored, splits: {list_some(others)}"] if others else []
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
                read = partial(read_array, image)
                yield Item(f"{name}/{split}/{row}", int(label), split, read)

    classes = list(builder.info.features[label_key].names)
    return Source(classes, splits, sizes, list_items(), notes)


def forbid_imports(tfds) -> None:
    """Has TFDS know its own features alone.

    By itself it imports whatever module a features.json names.
    """
    connector = tfds.features.FeatureConnector
    known = connector._registered_features

    def find(cls, name: str):
        if name not in known:
            raise InputError(
                f"its features.json names {name[:100]}, which is no feature of "
                "TensorFlow Datasets: its module would run"
            )
        return known[name]

    assert hasattr(connector, "cls_from_name")
    connector.cls_from_name = classmethod(find)


def check_files(builder, name: str) -> None:
    """Raises InputError for a set that reads files outside its folder."""
    for split in builder.info.splits.values():
        for file in split.filepaths:
            if leads_out(os.path.relpath(file, builder.data_path)):
                raise InputError(
                    f"prepare.name is {name}: split {split.name} reads {file}, "
                    "which is outside its folder"
                )


def _find_label(tfds, info, name: str) -> str:
    """The feature that holds the labels of a set.

    Raises:
        InputError: where it is no classification set of images.
    """
    features, keys = info.features, info.supervised_keys
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
    return label_key


def _find_builder(tfds, name: str, data_dir: str | None):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except InputError as error:
        raise InputError(f"prepare.name is {name}: {error}") from error
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


def _check_watched(tfds, builder, name: str, watched: str | None) -> None:
    """Refuses a set that may change without DVC noticing.

    A catalogue's set is what its name and version say. One's own may be built
    anew under the same version.
    """
    folder = Path(builder.data_path)
    own = builder.name not in tfds.list_builders(with_community_datasets=False)
    if not own or watched is None or "://" in str(builder.data_path):
        return
    if not folder.resolve().is_relative_to(Path(watched).resolve()):
        raise InputError(
            f"prepare.name is {name}: a set of no catalogue, which DVC does "
            f"not watch; let prepare.path be {folder.parent}"
        )


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
