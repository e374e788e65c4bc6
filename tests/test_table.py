"""Tables that name photographs: what they may say, and what comes of it."""

import csv
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import WIDTHS, prepare, read, write_photographs

from thaw.data.splits import SPLITS
from thaw.errors import InputError
from thaw.export.scoring import load_originals
from thaw.prepare.sheets import read_sheet
from thaw.prepare.sources import open_folder, open_source
from thaw.prepare.table import open_table

HEAD = ("path", "label")


def write(folder, rows, name="table.csv", encoding="utf-8", **options):
    with (folder / name).open("w", encoding=encoding, newline="") as file:
        csv.writer(file, **options).writerows(rows)


@pytest.fixture
def folder(tmp_path):
    """Three classes of eight photographs, no two alike."""
    write_photographs(tmp_path / "data", each=8, widths=WIDTHS)
    return tmp_path / "data"


def list_rows(folder):
    """Path and label of each photograph, in the order of folders."""
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*.jpg"))]
    return [(path.as_posix(), path.parts[0]) for path in paths]


def read_bytes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def refuse(folder, rows, **options):
    """What a table with these rows is refused with."""
    write(folder, rows)
    with pytest.raises(InputError) as refusal:
        open_table(folder, **options)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_table_gives_the_bytes_of_the_folders_that_it_describes(
    folder, tmp_path
):
    # Paths alone would come in another order.
    (folder / "across").rename(folder / "down-1")
    (folder / "down/00").mkdir()
    (folder / "down/05.jpg").rename(folder / "down/00/05.jpg")
    prepare(open_folder(folder), tmp_path / "folders")
    rows = list_rows(folder)
    for seed in range(2):
        random.Random(seed).shuffle(rows)
        write(folder, [HEAD, *rows])
        prepare(open_table(folder), tmp_path / f"table{seed}")
        same = read_bytes(tmp_path / f"table{seed}")
        assert same == read_bytes(tmp_path / "folders")


def test_splits_and_groups_are_those_of_the_table(folder, tmp_path, capsys):
    names = {0: "TEST", 1: "test", 2: "Val", 3: "valid", 4: "train"}
    rows = [
        (path, label, names.get(row % 8, "Training"), f"g{row % 8 // 2 * 2}")
        for row, (path, label) in enumerate(list_rows(folder))
    ]
    write(folder, [(*HEAD, "split", "group"), *rows])
    source = open_table(folder)
    assert source.splits == [*SPLITS]
    assert source.sizes == {"train": 12, "validation": 6, "test": 6}
    prepare(source, tmp_path / "prepared")
    for split, groups in zip(
        SPLITS, (["g4", "g6"], ["g2"], ["g0"]), strict=True
    ):
        index = read(tmp_path / "prepared" / split / "index.csv")
        assert sorted({row["group"] for row in index}) == groups
    assert "24 of 24 images are in 4 groups" in capsys.readouterr().out


def test_a_group_of_a_table_lies_in_one_split(folder, tmp_path):
    rows = [
        (path, label, row % 8)
        for row, (path, label) in enumerate(list_rows(folder))
    ]
    write(folder, [(*HEAD, "group"), *rows])
    for seed in range(4):
        prepare(open_table(folder), tmp_path / f"{seed}", seed=seed)
        groups = [
            {row["group"] for row in read(tmp_path / f"{seed}/{s}/index.csv")}
            for s in SPLITS
        ]
        assert all(groups) and sum(map(len, groups)) == 8


def test_a_pattern_beside_a_column_of_groups_is_refused(folder, tmp_path):
    rows = [(*row, "one") for row in list_rows(folder)]
    write(folder, [(*HEAD, "group"), *rows])
    with pytest.raises(InputError, match=r"prepare.group is p; allowed: null"):
        prepare(open_table(folder), tmp_path / "prepared", group="p")


def test_empty_columns_say_nothing(folder, tmp_path):
    rows = [(*row, "", " ") for row in list_rows(folder)]
    write(folder, [(*HEAD, "split", "group"), *rows])
    source = open_table(folder)
    assert source.splits == [] and source.sizes == {"train": 24}
    prepare(source, tmp_path / "prepared", group=r"(\d)\.")
    index = read(tmp_path / "prepared/train/index.csv")
    assert all(row["group"] == row["path"][-5] for row in index)


def test_all_that_is_wrong_is_named_at_once(folder, tmp_path):
    rows = list_rows(folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder / "link").symlink_to(folder / "down")
    rows = [(*row, "train") for row in rows]
    rows += [
        ("down/gone.jpg", "down", "train"),
        ("", "down", "train"),
        ("down/07.jpg", "", "train"),
        ("down/00.jpg", "up", "train"),
        ("down/01.jpg", "down", "test"),
        ("../outside/1.jpg", "down", "train"),
        ("/outside/2.jpg", "down", "train"),
        ("link/02.jpg", "down", "train"),
        ("both/00.jpg", "both", "train", "more"),
        ("rare.jpg", "rare", "train"),
        ("new.jpg", "new", "test"),
        ("odd.jpg", "down", "dev"),
        ("none.jpg", "down", ""),
    ]
    said = refuse(folder, [(*HEAD, "split"), *rows])
    for words in (
        f"{folder}/table.csv: ",
        "lines without a path: line 27;",
        "lines without a label: line 28;",
        "paths with two labels: down/00.jpg (down, up);",
        "paths with two splits: down/01.jpg (train, test);",
        "that leave the folder: ../outside/1.jpg, /outside/2.jpg;",
        "behind links to folders (DVC does not look there): link/02.jpg;",
        "more cells than there are columns: line 34;",
        "not there: down/gone.jpg, rare.jpg, new.jpg, odd.jpg, none.jpg;",
        "unknown splits: dev (allowed: train, training, validation, val,",
        "paths without a split: none.jpg;",
        "classes that train lacks: new (test);",
        "too few different images or groups to train on: rare (1);",
    ):
        assert words in f"{said};", words


def test_columns_that_are_missing_are_named(folder):
    said = refuse(folder, [("file", "class", "path"), ("a", "b", "c")])
    assert said == (
        f"{folder}/table.csv lacks columns: label; its columns: "
        "file, class, path"
    )
    said = refuse(folder, [("Path", " LABEL", "path"), ("a", "b", "c")])
    assert "has several columns: path; its columns: path, label" in said
    assert "lacks columns: path, label; its columns: none" in refuse(folder, [])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([HEAD], "two classes or more are needed; found: none"),
        ([HEAD, ("both/00.jpg", "both")], "more are needed; found: both"),
        (
            [(*HEAD, "split"), ("both/00.jpg", "both", "test")],
            "no path with the split train",
        ),
        (
            [(*HEAD, "group"), *(("both/00.jpg", "both", x) for x in "ab")],
            "paths with two groups: both/00.jpg (a, b)",
        ),
        ([HEAD, ("..", "both")], "paths that leave the folder: .."),
        ([HEAD, ("both", "both")], "files that are not there: both"),
        ([HEAD, ("x" * 999, "both")], "files that are not there: xxx"),
    ],
)
def test_rows_that_make_no_set_are_refused(folder, rows, words):
    assert words in refuse(folder, rows)


def test_a_repeated_row_counts_once(folder):
    rows = list_rows(folder)
    write(folder, [HEAD, *rows, ("./down/../down/07.jpg", "down "), rows[0]])
    source = open_table(folder)
    assert source.size == 24 == len([*source.items])
    assert source.notes == [
        "ignored, the same as an earlier row: 2 rows, line 26, line 27"
    ]


def test_photographs_that_no_row_names_are_ignored(folder):
    write(folder, [HEAD, *list_rows(folder)[:-4]])
    source = open_table(folder)
    assert source.size == 20
    (note,) = source.notes
    assert note == (
        "ignored, not in the table: 4 images, "
        f"{folder}/down/04.jpg, {folder}/down/05.jpg, {folder}/down/06.jpg "
        "and 1 more"
    )


def test_the_only_table_is_found(folder):
    write(folder, [HEAD, *list_rows(folder)])
    (folder / ".hidden.csv").write_text("")
    write(folder / "down", [HEAD], "other.csv")
    assert open_table(folder).size == 24
    write(folder, [HEAD], "Other.TSV")
    with pytest.raises(InputError, match=r"null; .*: Other.TSV, table.csv$"):
        open_table(folder)
    assert open_table(folder, "table.csv").size == 24
    for name in (
        "tabel.csv",
        "../data/table.csv",
        "down",
        f"{folder}/table.csv",
    ):
        with pytest.raises(InputError, match=r"is .*; allowed: with source ta"):
            open_table(folder, name)
    (folder / "table.csv").unlink()
    (folder / "Other.TSV").unlink()
    with pytest.raises(InputError, match=r"directly in it; there: none$"):
        open_source("table", str(folder))


def test_paths_start_at_the_tables_folder(folder):
    (folder / "lists").mkdir()
    rows = [(f"../{path}", label) for path, label in list_rows(folder)]
    write(folder / "lists", [HEAD, *rows])
    source = open_table(folder, "lists/table.csv")
    assert [item.path for item in source.items] == [
        path for path, _ in list_rows(folder)
    ]
    (folder / "elsewhere").symlink_to(folder / "lists")
    with pytest.raises(InputError, match=r"links to folders .*elsewhere/table"):
        open_table(folder, "elsewhere/table.csv")


def test_what_dvcignore_hides_is_refused(folder, monkeypatch):
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("")
    (folder / ".dvcignore").write_text("down/03.jpg\n")
    monkeypatch.chdir(folder)
    write(folder, [HEAD, *list_rows(folder)])
    with pytest.raises(InputError, match=r"hides from DVC: down/03.jpg$"):
        open_table(".")
    (folder / ".dvcignore").write_text("*.csv\n")
    with pytest.raises(InputError, match=r"hides from DVC: table.csv$"):
        open_table(".")


def test_originals_are_found_again(folder, tmp_path):
    """The stage `export` reads some test images once more."""
    rows = list_rows(folder)
    random.Random(0).shuffle(rows)
    write(folder, [HEAD, *rows])
    prepare(open_table(folder), tmp_path / "prepared", image_size=64)
    index = read(tmp_path / "prepared/test/index.csv")
    originals = [*load_originals(open_table(folder), index)]
    assert len(originals) == len(index) and originals[0].shape[-1] == 3


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0"), max_size=8
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT), max_size=5),
    sheet=st.sampled_from([("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t")]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_sheet_reads_as_it_was_written(tmp_path, rows, sheet, encoding, end):
    name, delimiter = sheet
    write(
        tmp_path,
        [HEAD, *rows],
        name,
        encoding,
        delimiter=delimiter,
        lineterminator=end,
        quoting=csv.QUOTE_ALL,
    )
    lines = [*read_sheet(tmp_path / name, HEAD)]
    assert [tuple(line.cells.values()) for line in lines] == rows
    assert not any(line.excess for line in lines)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("path,label\nGröße,a\n".encode("latin-1"), "in neither UTF-8"),
        ("path,label\na,b\n".encode("utf-16-le"), "lacks columns"),
        (b'path,label\na,b\n"c,d\ne,f\n', "near line 4: unexpected end"),
        (b"path,label\na,b\0\n", "near line 2: a NUL character"),
        (b"\xff\xd8\xff\xe0", "in neither UTF-8"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(tmp_path, data, words):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(InputError, match=words):
        list(read_sheet(tmp_path / "a.csv", HEAD))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text",
    [
        "path;label\nGröße;a\n",
        "path|label\nGröße|a\n",
        "path\tlabel\nGröße\ta\n",
        "sep=;\r\npath;label\r\nGröße;a\r\n",
        "sep=,\npath,label\nGröße,a\n",
    ],
)
def test_a_sheet_may_be_as_a_spreadsheet_saves_it(tmp_path, text, encoding):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    (line,) = read_sheet(tmp_path / "a.csv", HEAD)
    assert line.cells == {"path": "Größe", "label": "a"}
    assert line.number == len(text.splitlines())


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: path.replace("/", "%2F"),
        str.upper,
        lambda path: path.removesuffix(".jpg"),
        lambda path: path.replace(".jpg", ".png"),
        lambda path: f"images/{path}",
    ],
)
def test_a_path_that_is_not_there_names_what_may_be_meant(folder, change):
    (folder / "down/00.jpg").rename(folder / "down/only.jpg")
    rows = list_rows(folder)
    rows = [
        (change(path) if "only" in path else path, label)
        for path, label in rows
    ]
    said = refuse(folder, [HEAD, *rows])
    assert "(there: down/only.jpg)" in said


def test_labels_that_look_the_same_are_refused(folder):
    rows = list_rows(folder)
    rows[0] = (rows[0][0], "across\u200b")
    assert r"'across', 'across\u200b'" in refuse(folder, [HEAD, *rows])
