"""Folders of photographs: which classes they hold, and what else."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from thaw.data.images import is_image
from thaw.data.splits import SPLIT_NAMES, SPLITS
from thaw.errors import InputError
from thaw.prepare.assign import find_shortages
from thaw.run.console import format_count, list_some
from thaw.run.tracking import open_dvcignore

# Folders that systems write beside photographs, with copies of them.
HIDDEN = {"__MACOSX", "@eaDir"}

# Of what is no image. "links" are links to folders.
KINDS = ("hidden", "no images", "no files", "links")


@dataclass
class Listing:
    """What lies directly in a folder, as paths, sorted.

    Attributes:
        path: of the folder.
        folders: in it.
        images: in it.
        others: one of `KINDS` to what is that.
    """

    path: str
    folders: list[str]
    images: list[str]
    others: dict[str, list[str]]


@dataclass(frozen=True)
class Home:
    """A folder that holds images itself.

    Attributes:
        path: of the folder.
        split: that it is in; train where there are none.
        name: of the class that it counts as.
        images: how many.
    """

    path: str
    split: str
    name: str
    images: int


@dataclass
class Scan:
    """What a folder holds.

    Attributes:
        root: the folder.
        tops: split to its folder; empty where there are none.
        homes: by split, class, path.
        empty: class folders without an image.
        loose: images in no class folder.
        others: one of `KINDS`, or what else is ignored, to what is that.
        notes: sentences for the user.
    """

    root: Path
    tops: dict[str, Path]
    homes: list[Home] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    notes: list[str] = field(default_factory=list)


def walk_folder(folder: str | Path) -> Iterator[Listing]:
    """A folder and those below it, but hidden ones and links."""
    listing = list_folder(folder)
    yield listing
    for inner in listing.folders:
        yield from walk_folder(inner)


def list_folder(folder: str | Path) -> Listing:
    """What lies directly in a folder; there may be millions."""
    listing = Listing(str(folder), [], [], {kind: [] for kind in KINDS})
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path, pile = f"{folder}/{entry.name}", listing.images
        if is_hidden(entry.name):
            pile = listing.others["hidden"]
        elif entry.is_dir():
            linked = entry.is_symlink()
            pile = listing.others["links"] if linked else listing.folders
        elif not entry.is_file():
            pile = listing.others["no files"]
        elif not is_image(path):
            pile = listing.others["no images"]
        pile.append(path)
    return listing


def is_hidden(name: str) -> bool:
    return name[0] == "." or name in HIDDEN


def list_images(folder: str | Path, below: bool = False) -> list[str]:
    """Images in a folder, or also in those below it, sorted."""
    if not below:
        return list_folder(folder).images
    return sorted(
        path for listing in walk_folder(folder) for path in listing.images
    )


def scan_folder(path: str | Path, classes: str) -> Scan:
    """Looks for class folders, or split folders that hold class folders.

    Args:
        path: the folder.
        classes: "first": the folders in it, or in a split's, are the classes,
            with all below them; "leaf": a class is the folder that an image
            is in, wherever that lies.

    Raises:
        InputError: naming all that keeps it from being a set.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"prepare.path is {path}; allowed: a folder")
    scan = Scan(root, find_splits(root))
    for split, top in scan.tops.items() or [("train", root)]:
        add_folders(scan, split, top, classes)
    order = {split: place for place, split in enumerate(SPLITS)}
    scan.homes.sort(key=lambda home: (order[home.split], home.name, home.path))
    if scan.tops:
        add_root(scan)
    problems = [*find_unwatched(scan), *find_problems(scan)]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    scan.notes += [
        f"ignored, {kind}: {list_some(paths, 3)}"
        for kind, paths in [*scan.others.items(), ("in no class", scan.loose)]
        if paths
    ]
    scan.notes += find_oddities(scan, classes)
    return scan


def find_splits(root: Path) -> dict[str, Path]:
    """Split to folder: one that is named so, and holds folders.

    Raises:
        InputError: for two folders of one split, and where train is missing.
    """
    named = [
        Path(folder)
        for folder in list_inner(root)
        if Path(folder).name.lower() in SPLIT_NAMES and list_inner(folder)
    ]
    tops = {SPLIT_NAMES[folder.name.lower()]: folder for folder in named}
    names = ", ".join(folder.name for folder in named)
    if len(tops) < len(named):
        raise InputError(f"{root} holds two folders of one split: {names}")
    if tops and "train" not in tops:
        raise InputError(f"{root} holds {names}, but no train")
    return tops


def list_inner(folder: str | Path) -> list[str]:
    """Folders in a folder, and links to folders, but hidden ones."""
    listing = list_folder(folder)
    return sorted([*listing.folders, *listing.others["links"]])


def add_folders(scan: Scan, split: str, top: Path, classes: str) -> None:
    """Adds a split's classes, and what lies beside them."""
    place = 0 if classes == "first" else -1
    # Class folder to whether it holds an image.
    seen: dict[str, bool] = {}
    for listing in walk_folder(top):
        for kind, paths in listing.others.items():
            scan.others[kind] += paths
        names = Path(listing.path).relative_to(top).parts
        if not names:
            scan.loose += listing.images
            continue
        if classes == "first":
            folder = str(top / names[0])
            seen[folder] = seen.get(folder, False) or bool(listing.images)
        else:
            seen[listing.path] = bool(listing.images or listing.folders)
        if listing.images:
            home = Home(listing.path, split, names[place], len(listing.images))
            scan.homes.append(home)
    scan.empty += [folder for folder, full in seen.items() if not full]


def add_root(scan: Scan) -> None:
    """Adds what lies beside the folders of splits."""
    beside = list_folder(scan.root)
    for kind, paths in beside.others.items():
        scan.others[kind] += paths
    tops = set(map(str, scan.tops.values()))
    scan.others["beside the splits"] += [
        path for path in [*beside.folders, *beside.images] if path not in tops
    ]


def find_unwatched(scan: Scan) -> Iterator[str]:
    """Yields what `prepare` would read and DVC does not see."""
    if links := scan.others["links"]:
        yield (
            f"links to folders: {list_some(links)} (DVC does not look behind "
            "them: put folders there, of copies or hard links, or let "
            "prepare.path be the folder itself)"
        )
    ignores = open_dvcignore(scan.root)
    paths = (path for home in scan.homes for path in list_images(home.path))
    unseen = list(filter(ignores, paths)) if ignores else []
    if unseen:
        yield (
            f"images that .dvcignore hides from DVC: {list_some(unseen)} "
            "(remove them, or what hides them)"
        )


def find_problems(scan: Scan) -> Iterator[str]:
    """Yields what keeps a folder from being a set to train on."""
    if scan.empty:
        yield f"folders without an image: {list_some(scan.empty)}"
    sizes: Counter[tuple[str, str]] = Counter()
    for home in scan.homes:
        sizes[home.split, home.name] += home.images
    trained = sorted(name for split, name in sizes if split == "train")
    if len(trained) < 2 and not scan.others["links"]:
        yield describe_lack(scan, trained)
    yield from find_shortages(sizes, scan.tops)


def describe_lack(scan: Scan, classes: list[str]) -> str:
    """Why there are less than two classes."""
    found = ", ".join(classes) or "none"
    text = f"two classes or more are needed, a folder each; found: {found}"
    if scan.loose:
        lying = format_count(len(scan.loose), "image lies", "images lie")
        text += f"; {lying} in no class folder"
    outer = scan.root
    while len(inner := list_inner(outer)) == 1:
        outer = Path(inner[0])
    if outer != scan.root and len(inner) > 1:
        text += f"; {outer} holds {len(inner)} folders: is that prepare.path?"
    return text


def find_alike(classes: Iterable[str]) -> Iterator[str]:
    """Yields warnings of names that differ in case alone."""
    alike = defaultdict(list)
    for name in sorted(classes):
        alike[name.casefold()].append(name)
    for group in alike.values():
        if len(group) > 1:
            yield f"warning: classes that differ in case: {', '.join(group)}"


def find_oddities(scan: Scan, classes: str) -> Iterator[str]:
    """Yields warnings of what may be meant otherwise."""
    yield from find_alike({home.name for home in scan.homes})
    if classes == "leaf":
        return
    tops = scan.tops or {"train": scan.root}
    direct = {
        home.name
        for home in scan.homes
        if Path(home.path).parent == tops[home.split]
    }
    deep = [home for home in scan.homes if home.name not in direct]
    leaves = {Path(home.path).name for home in deep}
    outer = sorted({home.name for home in deep})
    if len(leaves) > len(outer):
        yield (
            f"warning: {list_some(outer, 3)} hold no image themselves, but "
            f"{len(leaves)} folders with images; they count as "
            f"{format_count(len(outer), 'class', 'classes')}. prepare.classes: "
            "leaf makes each of those folders a class"
        )
