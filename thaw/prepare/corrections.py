"""corrections.csv: labels that people put right, and images they exclude."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thaw.errors import InputError
from thaw.files.phrases import list_some
from thaw.prepare.sheets import read_sheet

COLUMNS = ("path", "digest", "was", "now", "why")

EXCLUDE = "exclude"


@dataclass(frozen=True)
class Correction:
    """A line of the file.

    Attributes:
        number: of the line.
        path: of the image, as data/prepared/SPLIT/index.csv has it.
        digest: its id there, sha256 of the file.
        was: the class that the source gives.
        now: the class that it gets, or `EXCLUDE`.
        why: any text.
    """

    number: int
    path: str
    digest: str
    was: str
    now: str
    why: str

    @property
    def excludes(self) -> bool:
        return self.now == EXCLUDE

    @property
    def relabels(self) -> bool:
        return not self.excludes and self.now != self.was

    @property
    def reason(self) -> str:
        """Why an image is excluded, for quarantine.csv."""
        text = "excluded by corrections.csv"
        return f"{text}: {self.why}" if self.why else text


@dataclass(frozen=True)
class Corrections:
    """Those of a project; none, unless they are given.

    Attributes:
        name: of the file.
        by_path: path to the line that is about it.
        problems: number and fault of lines that are wrong whatever the images.
    """

    name: str = "corrections.csv"
    by_path: dict[str, Correction] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)

    def check(
        self, entries: Iterable[dict[str, str]], classes: Sequence[str]
    ) -> None:
        """Raises InputError for lines that are not about these images.

        Args:
            entries: "path", "id" and "class" of each image as the source has
                them, and a "reason" where it can't be read.
            classes: names.
        """
        if not self.by_path and not self.problems:
            return
        found = {
            entry["path"]: entry
            for entry in entries
            if entry["path"] in self.by_path
        }
        problems = self.problems + [
            (line.number, problem)
            for line in self.by_path.values()
            for problem in find_problems(line, found.get(line.path), classes)
        ]
        if problems:
            listed = [f"line {number}: {x}" for number, x in sorted(problems)]
            raise InputError(f"{self.name}: {list_some(listed, between='; ')}")

    def apply(self, entry: dict[str, str]) -> dict[str, str]:
        """An image's entry with its label corrected."""
        line = self.by_path.get(entry["path"])
        if line is None or line.excludes:
            return entry
        return entry | {"class": line.now}


def find_problems(
    line: Correction, entry: dict[str, str] | None, classes: Sequence[str]
) -> Iterator[str]:
    """Yields what a line says that is not so.

    Args:
        line: of the file.
        entry: its image, as `Corrections.check` takes it, if it is there.
        classes: names.
    """
    if not line.excludes and line.now not in classes:
        yield f"{line.now or 'an empty now'} is no class, nor {EXCLUDE}"
    if entry is None:
        yield f"{line.path or 'an empty path'} is not in the data"
        return
    if entry["reason"]:
        yield f"{line.path} can't be read"
    elif entry["id"] != line.digest:
        yield f"{line.path} has another content, digest {entry['id']}"
    if entry["class"] != line.was:
        was = line.was or "empty"
        yield f"the label of {line.path} is {entry['class']}, not {was}"


def read_corrections(path: str | Path) -> Corrections:
    """Reads the file; `Corrections.check` says whether it fits the images.

    Raises:
        InputError: where it is no table with these columns.
    """
    corrections = Corrections(str(path))
    for row in read_sheet(path, COLUMNS):
        inner, *rest = (row.cells[name] for name in COLUMNS)
        digest, *rest = (text.strip() for text in rest)
        line = Correction(row.number, inner, digest.lower(), *rest)
        first = corrections.by_path.setdefault(inner, line)
        faults = {
            "more cells than columns (a comma wants quotes)": row.excess,
            f"{inner} is in line {first.number}, too": first is not line,
        }
        corrections.problems.extend(
            (row.number, fault) for fault, there in faults.items() if there
        )
    return corrections
