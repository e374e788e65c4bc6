"""Folders of photographs: which classes they hold, and what else."""

import fnmatch
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from thaw.data.images import is_image
from thaw.data.splits import SPLIT_NAMES, SPLITS
from thaw.errors import InputError
from thaw.files.phrases import format_count, list_some
from thaw.prepare.assign import find_shortages
from thaw.prepare.dvcignore import open_dvcignore
from thaw.prepare.names import (
    find_lookalikes,
    is_mask,
    strip_mask,
    warn_of_case,
)

# Folders that systems write beside photographs, with copies of them.
HIDDEN = {"__MACOSX", "@eaDir"}

# Of what is no image, or not to be taken. "links" are links to folders.
LEFT_OUT = "left out by prepare.files"
KINDS = ("hidden", "no images", "no files", "links", LEFT_OUT)

# What iCloud leaves in place of a file that it keeps elsewhere.
ICLOUD = ".icloud"

# Whether a file, by its path, is to be taken.
Takes = Callable[[str], bool]


def take_all(path: str) -> bool:
    return True


def make_filter(root: str | Path, files: str | None) -> Takes:
    """Whether a file's name fits a pattern, in any case.

    Args:
        root: of the pattern, if it has a "/" in it.
        files: the pattern, as `fnmatch` has it; None fits all.
    """
    if files is None:
        return take_all
    pattern = files.lower()

    def takes(path: str) -> bool:
        inner = os.path.relpath(path, root) if "/" in pattern else path
        name = inner if "/" in pattern else os.path.basename(path)  # noqa: PTH119
        return fnmatch.fnmatchcase(name.lower(), pattern)

    return takes


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
        takes: which files are to be taken.
    """

    root: Path
    tops: dict[str, Path]
    takes: Takes = take_all
    homes: list[Home] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    others: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )
    notes: list[str] = field(default_factory=list)


def walk_folder(
    folder: str | Path, takes: Takes = take_all
) -> Iterator[Listing]:
    """A folder and those below it, but hidden ones and links."""
    listing = list_folder(folder, takes)
    yield listing
    for inner in listing.folders:
        yield from walk_folder(inner, takes)


def list_folder(folder: str | Path, takes: Takes = take_all) -> Listing:
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
        elif not takes(path):
            pile = listing.others[LEFT_OUT]
        pile.append(path)
    return listing


def is_hidden(name: str) -> bool:
    return name[0] == "." or name in HIDDEN


def list_images(
    folder: str | Path, below: bool = False, takes: Takes = take_all
) -> list[str]:
    """Images in a folder, or also in those below it, sorted."""
    if not below:
        return list_folder(folder, takes).images
    return sorted(
        path for listing in walk_folder(folder) for path in listing.images
    )


def scan_folder(
    path: str | Path, classes: str, files: str | None = None
) -> Scan:
    """Looks for class folders, or split folders that hold class folders.

    Args:
        path: the folder.
        classes: "first": the folders in it, or in a split's, are the classes,
            with all below them; "leaf": a class is the folder that an image
            is in, wherever that lies.
        files: a pattern that a file must fit: `make_filter`.

    Raises:
        InputError: naming all that keeps it from being a set.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"prepare.path is {path}; allowed: a folder")
    scan = Scan(root, find_splits(root), make_filter(root, files))
    for split, top in scan.tops.items() or [("train", root)]:
        add_folders(scan, split, top, classes)
    order = {split: place for place, split in enumerate(SPLITS)}
    scan.homes.sort(key=lambda home: (order[home.split], home.name, home.path))
    if scan.tops:
        add_root(scan)
    problems = [*find_unwatched(scan), *find_problems(scan)]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems))
    scan.homes = [replace(x, name=x.name.strip()) for x in scan.homes]
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
        InputError: for two folders of one split, if train is missing, and if
            train may as well be a class among others.
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
    if len(tops) == 1 and not named[0].is_symlink():
        check_lone_split(root, named[0])
    return tops


def check_lone_split(root: Path, train: Path) -> None:
    """Raises InputError for images beside the only folder of a split."""
    beside = [
        folder
        for folder in list_inner(root)
        if Path(folder).name.lower() not in SPLIT_NAMES
        and list_images(folder, below=True)
    ]
    if beside:
        raise InputError(
            f"{root} holds {train.name}, which is a split, beside "
            f"{list_some(beside, 3)}, which hold images as well: if "
            f"{train.name} is a class, give it another name; if it is the "
            "split, move the others away"
        )


def list_inner(folder: str | Path) -> list[str]:
    """Folders in a folder, and links to folders, but hidden ones."""
    listing = list_folder(folder)
    return sorted([*listing.folders, *listing.others["links"]])


def add_folders(scan: Scan, split: str, top: Path, classes: str) -> None:
    """Adds a split's classes, and what lies beside them."""
    place = 0 if classes == "first" else -1
    # Class folder to whether it holds an image.
    seen: dict[str, bool] = {}
    for listing in walk_folder(top, scan.takes):
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
    paths = (
        path
        for home in scan.homes
        for path in list_images(home.path, takes=scan.takes)
    )
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
    yield from find_lookalikes(home.name for home in scan.homes)
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


def find_oddities(scan: Scan, classes: str) -> Iterator[str]:
    """Yields warnings of what may be meant otherwise."""
    yield from warn_of_case(home.name for home in scan.homes)
    yield from find_hidden(scan)
    yield from find_masks(scan)
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


def find_hidden(scan: Scan) -> Iterator[str]:
    """Yields warnings of images in hidden folders, and of those in iCloud."""
    hidden = scan.others["hidden"]
    tops = [*scan.tops.values()] or [scan.root]
    folders = [
        path
        for path in hidden
        if Path(path).parent in tops
        and Path(path).name not in HIDDEN
        and Path(path).is_dir()
        and list_images(path)
    ]
    if folders:
        yield (
            f"warning: hidden folders with images: {list_some(folders, 3)}; a "
            "class must not begin with a dot"
        )
    if stubs := [path for path in hidden if path.endswith(ICLOUD)]:
        yield (f"warning: not downloaded from iCloud: {list_some(stubs, 3)}")


def find_masks(scan: Scan) -> Iterator[str]:
    """Yields a warning of images that may be masks of others in their class.

    Such a pair has one name, but for the suffix or a word such as "mask" in it
    or in that of the folder.
    """
    pairs = [pair for home in scan.homes for pair in pair_names(scan, home)]
    masked = {
        home.path
        for home in scan.homes
        if is_mask(os.path.relpath(home.path, scan.root))
    }
    for home in scan.homes:
        if home.path not in masked:
            continue
        masks = read_stems(scan, home)
        for other in scan.homes:
            same = home.name == other.name or is_mask(home.name)
            if same and home.split == other.split and other.path not in masked:
                images = read_stems(scan, other)
                both = sorted(masks.keys() & images.keys())
                pairs += [(images[stem], masks[stem]) for stem in both]
    if pairs:
        first, second = pairs[0]
        yield (
            f"warning: {format_count(len(pairs), 'image has', 'images have')} "
            f"the name of another, such as {first} and {second}: masks would "
            "be trained on as photographs; prepare.files takes one kind, such "
            "as '*.jpg'"
        )


def read_stems(scan: Scan, home: Home) -> dict[str, str]:
    """Names of images, without what makes masks of them, to paths."""
    images = list_images(home.path, takes=scan.takes)
    return {strip_mask(Path(path).stem): path for path in reversed(images)}


def pair_names(scan: Scan, home: Home) -> Iterator[tuple[str, str]]:
    """Yields images of one folder that have one name, in pairs."""
    first = read_stems(scan, home)
    if len(first) < home.images:
        for path in list_images(home.path, takes=scan.takes):
            if (other := first[strip_mask(Path(path).stem)]) != path:
                yield other, path
