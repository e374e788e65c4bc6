"""What the pages say of files, commands, parameters and tests is so."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

import thaw
from benchmarks.project import ROOT
from thaw.__main__ import make_parser
from thaw.errors import InputError
from thaw.run.params import check_name

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda x: x.name)

# What stands for something of the reader's.
PLACES = ("NAME", "ROOM", "SPLIT", "VIEW", "LAYER", "MODEL", "FILE", "*")


def make_anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", line.lower()) for line in headings)
    return {line.replace(" ", "-") for line in kept}


def list_commands(text: str) -> Iterator[list[str]]:
    """Lines of shell, continued ones joined, comments dropped."""
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                try:
                    yield shlex.split(part, comments=True)
                except ValueError:  # a part of a quoted text
                    continue


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 190


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in make_anchors(file.read_text()), target


@each_page
def test_code_is_fenced_with_its_language(page):
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert all(fences[::2]) and not any(fences[1::2])


@each_page
def test_files_that_are_named_exist(page):
    pattern = r"`((?:thaw|stages|tests|benchmarks|docs)/[\w/.*-]*)`"
    for name in re.findall(pattern, page.read_text()):
        if not any(place in name for place in PLACES):
            assert (ROOT / name).exists(), name


@each_page
def test_commands_that_are_named_exist(page):
    known = re.search(r"\{(.+?)\}", make_parser().format_help())[1].split(",")
    named = re.findall(r"python -m thaw (\w+)", page.read_text())
    assert {*named} <= {*known}


@each_page
def test_parameters_that_are_set_exist(page):
    for words in list_commands(page.read_text()):
        for flag, value in pairwise(words):
            name = value.partition("=")[0]
            if flag == "-S" and name.replace(".", "").isidentifier():
                check_name(name)


def test_an_unknown_parameter_is_noticed():
    with pytest.raises(InputError):
        check_name("finetune.block")


@each_page
def test_targets_of_make_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.M):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_tests_that_are_named_exist():
    named = re.findall(r"\btest_\w+", (ROOT / "docs/coupling.md").read_text())
    tests = "".join(x.read_text() for x in (ROOT / "tests").glob("test_*.py"))
    missing = [name for name in named if f"def {name}(" not in tests]
    assert named and not missing


def test_the_table_of_rooms_is_what_dvc_has():
    text = (ROOT / "docs/architecture.md").read_text()
    lines = re.findall(r"^\| (.+) \|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    head = next(row for row in rows if row[:2] == ["stage", "files"])
    for file in ("dvc.yaml", "export/dvc.yaml"):
        stages = yaml.safe_load((ROOT / file).read_text())["stages"]
        for stage, about in stages.items():
            row = next(r for r in rows if r[0] == stage and len(r) == len(head))
            told = {
                room
                for room, cell in zip(head[1:], row[1:], strict=True)
                if cell
            }
            rooms = {Path(x).name for x in about["deps"] if x[:5] == "thaw/"}
            assert told == rooms - {"run"}, stage


def test_every_page_is_in_the_table():
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in readme, page.name


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert project["version"] == thaw.__version__
    assert f"## [{thaw.__version__}]" in changes
