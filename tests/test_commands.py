"""python -m thaw: compare, predict, plan, and their overrides."""

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from conftest import RERUNS, Project, commit, thaw
from dvc.repo import Repo
from programs import run

from thaw.commands import plan, predict
from thaw.commands.compare import match_images
from thaw.commands.overrides import list_combinations, set_params
from thaw.commands.predict import Classifier
from thaw.commands.reruns import find_changes, list_reruns
from thaw.errors import InputError
from thaw.evaluate.table import read_hits
from thaw.files.text import read_yaml
from thaw.linear.temperature import calibrate


@pytest.mark.usefixtures("in_the_project")
def test_a_sweep_is_every_combination():
    values = ["finetune.blocks=range(1,3)", "head.dropout=0.1,0.2", "seed=3"]
    combinations = list_combinations(values)
    found = [params_of(overrides) for overrides in combinations]
    assert found == [(1, 0.1, 3), (1, 0.2, 3), (2, 0.1, 3), (2, 0.2, 3)]
    assert list_combinations([]) == [[]]
    assert list_combinations(["params.yaml:seed=1"]) == [["seed=1"]]


def params_of(overrides):
    values, checked = set_params(overrides)
    assert values["seed"] == checked.seed
    return checked.finetune.blocks, checked.head.dropout, checked.seed


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("finetune.epoch=3", "did you mean epochs?"),
        ("+finetune.epoch=3,4", "did you mean epochs?"),
        ("finetun.blocks=3", "did you mean finetune?"),
        ("seed.more=3", "seed.more is no parameter"),
        ("~finetune.blocks", "finetune.blocks is missing"),
        ("finetune.blocks=1,99", "finetune.blocks is 99; allowed: 0 to 16"),
        ("finetune.blocks=range(1,", "no viable alternative"),
        ("finetune.blocks=range(1,4,0)", "must not be zero"),
        ("finetune.blocks=glob(*)", "is not supported"),
        ("finetune.blocks", "missing EQUAL"),
        ("finetune.blocks=1,", "mismatched input"),
        ("prepare.path=~/photographs", "wants quotes"),
        ("other.yaml:seed=1", "the parameters are in params.yaml"),
        ("seed=010", '"010"; allowed: a whole number'),
    ],
)
@pytest.mark.usefixtures("in_the_project")
def test_a_wrong_override_is_an_input_error(value, words):
    before = Path("params.yaml").read_bytes()
    with pytest.raises(InputError) as refusal:
        for overrides in list_combinations([value]):
            set_params(overrides)
    assert words in str(refusal.value)
    assert Path("params.yaml").read_bytes() == before


CLASSES = ("across", "both", "down")


def test_two_runs_are_compared_by_image(committed):
    path = committed.folder / "metrics/predictions.csv"
    table = path.read_text()
    done = thaw(committed, "compare")
    assert done.returncode == 0 and ": within noise" in done.stdout
    assert "yardstick" not in done.stdout
    with path.open(newline="") as file:
        images, hits = read_hits(file, "finetuned")
    assert [name for _, name in images] and len(hits) == len(images)

    # All wrong, and in another order.
    head, *lines = table.splitlines()
    column = head.split(",").index("finetuned")
    lines = [line.split(",") for line in reversed(lines)]
    for line in lines:
        line[column] = "nothing"
    path.write_text("\n".join([head, *map(",".join, lines)]) + "\n")
    done = thaw(committed, "compare", "HEAD", "--json")
    about = json.loads(done.stdout)
    assert about["after"] == 0 and about["difference"] < 0
    assert about["p_value"] == pytest.approx(2 * 0.5 ** hits.sum())
    assert about["lost"] == hits.sum() and about["n"] == len(images)
    assert set(about["classes"]) == {"across", "both", "down"}

    # Another test set: one image new, one with another label.
    path.write_text(table)
    new, relabelled = lines[0], lines[1]
    old = table.replace(new[0], "0" * 64)
    actual = head.split(",").index("actual")
    row = next(line for line in old.splitlines() if relabelled[0] in line)
    other = row.split(",")
    other[actual] = next(x for x in CLASSES if x != other[actual])
    path.write_text(old.replace(row, ",".join(other)))
    done = thaw(committed, "compare", "--json")
    about = json.loads(done.stdout)
    assert about["n"] == len(images) - 2
    assert about["relabelled"] == 1 and about["alone"] == 2
    assert about["images_before"] == about["images_after"] == len(images)
    done = thaw(committed, "compare")
    assert (
        f"on the {len(images) - 2} test images of both (this run has "
        f"{len(images)}, HEAD {len(images)})\n"
        "1 test label differs, 2 test images are in one run alone: the "
        "yardstick changed\n"
    ) in done.stdout

    # And one that has nothing of the first.
    path.write_text(
        "\n".join([head, *(f"0{x}" for x in table.splitlines()[1:])])
    )
    done = thaw(committed, "compare")
    assert done.returncode == 1 and "no test image is in both" in done.stderr
    path.write_text(table)
    for revs in (["nowhere"], ["HEAD", "nowhere"]):
        done = thaw(committed, "compare", *revs)
        assert "nowhere is no Git revision and no DVC exp" in done.stderr


def test_two_revisions_are_compared_beside_the_workspace(committed, tmp_path):
    project = committed.copy(tmp_path / "project")
    path = project.folder / "metrics/predictions.csv"
    head, *lines = path.read_text().splitlines()
    column = head.split(",").index("finetuned")
    wrong = [line.split(",") for line in lines]
    hits = sum(x[column] == x[head.split(",").index("actual")] for x in wrong)
    for line in wrong:
        line[column] = "nothing"
    path.write_text("\n".join([head, *map(",".join, wrong)]) + "\n")
    project.dvc("commit", "--force", "evaluate")
    commit(project, "worse")
    # Below the clone's root, too.
    done = Project(project.folder / "data").run(
        sys.executable, "-m", "thaw", "compare", "HEAD~1",
        PYTHONPATH=str(project.folder),
    )  # fmt: skip
    assert "finetuned, this run against HEAD~1, on the same" in done.stdout
    path.unlink()
    done = thaw(project, "compare", "HEAD~1", "HEAD", "--json")
    about = json.loads(done.stdout)
    assert about["rev"] == "HEAD~1" and about["other"] == "HEAD"
    assert about["lost"] == hits > 0 and about["after"] == 0
    done = thaw(project, "compare", "HEAD", "HEAD~1")
    assert "finetuned, HEAD~1 against HEAD, on the same" in done.stdout
    assert f"{hits} images right only after, 0 only before" in done.stdout
    assert not path.exists()
    assert not run("git", "status", "--porcelain", cwd=project.folder)


def test_images_are_matched_by_bytes_and_label():
    before = [
        ("a", "x"),
        ("b", "x"),
        ("c", "y"),
        ("d", "y"),
        ("a", "x"),
        ("a", "x"),
    ]
    after = [("d", "y"), ("c", "x"), ("a", "x"), ("e", "x"), ("a", "x")]
    shared = match_images(before, after)
    assert shared.classes.tolist() == ["x", "x", "y"]
    assert [before[i] for i in shared.before] == [
        after[i] for i in shared.after
    ]
    # c has another label; one of the three a has no match, b and e none at all.
    assert shared.relabelled == 1 and shared.alone == 3
    change = shared.describe_change()
    assert change == (
        "1 test label differs, 3 test images are in one run alone: the "
        "yardstick changed"
    )
    before = [("a", "x"), ("a", "x"), ("b", "x")]
    shared = match_images(before, [("a", "y"), ("a", "y"), ("b", "x")])
    assert shared.relabelled == 2 and shared.alone == 0
    change = shared.describe_change()
    assert change == "2 test labels differ: the yardstick changed"
    assert match_images(before, before).describe_change() is None


def test_predictions_are_those_of_the_test_split(reproduced, results, tmp_path):
    """The program reads the original files; `evaluate`'s table has the same."""
    scores, table, _, probabilities = results
    files = [f"data/raw/{row['path']}" for row in table]
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    done = thaw(
        reproduced, "predict", "models/finetuned.keras", *files, str(bad),
        "--format", "csv", "--top-k", "9", "--threshold", "0.5",
    )  # fmt: skip
    assert done.returncode == 2  # for the file that was skipped
    assert f"can't read {bad}" in done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["path"] for row in rows] == files
    calibrated = calibrate(
        probabilities["finetuned"], scores["finetuned"]["temperature"]
    )
    answers = 0
    for row, expected, one in zip(rows, calibrated, table, strict=True):
        assert row["class_1"] == one["finetuned"]
        assert float(row["probability_1"]) == pytest.approx(
            expected.max(), abs=1e-4
        )
        total = sum(float(row[f"probability_{k}"]) for k in (1, 2, 3))
        assert total == pytest.approx(1, abs=1e-4)
        likely = float(row["probability_1"]) >= 0.5
        assert row["prediction"] == (row["class_1"] if likely else "")
        answers += likely
    assert answers > 0


@pytest.fixture
def inside(reproduced, monkeypatch):
    monkeypatch.chdir(reproduced.folder)
    return reproduced


def test_a_folder_becomes_json(inside, capsys):
    predict.main(
        "models/finetuned.keras", ["data/raw/down"], "json", 2, 0.0, "float32"
    )
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 10 and len(found[0]["top"]) == 2


@pytest.mark.parametrize(
    ("model", "path", "message"),
    [
        ("models/finetuned.keras", "data/raw/notes.txt", "none of these files"),
        ("models/finetuned.keras", "nowhere.jpg", "none of these files"),
        ("models/head.keras", "data/raw", "takes features"),
        ("dvc.yaml", "data/raw", r"reads \.keras files only"),
        ("models/nope.keras", "data/raw", r"models/nope\.keras is not there"),
        ("photo.keras", "data/raw", "which classes it knows"),
    ],
)
def test_predict_refuses_what_it_can_not_read(inside, model, path, message):
    Path("photo.keras").write_bytes(b"no model")
    with pytest.raises(InputError, match=message):
        predict.main(model, [path], "table", 1, 0.0, "float32")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        *RERUNS,
        (
            {"finetune__blocks": 5},
            ["prefix", "finetune", "evaluate", "report"],
        ),
    ],
    ids=lambda x: "-".join(x) or "nothing",
)
def test_a_plan_lists_what_dvc_runs(inside, change, expected):
    values = yaml.safe_load(Path("params.yaml").read_text())
    for name, value in change.items():
        section, key = name.split("__")
        values[section][key] = value
    found = list_reruns(values, find_changes())
    assert sorted(found) == sorted(expected)


def test_a_plan_reads_a_number_as_dvc_reads_it(
    reproduced, tmp_path, monkeypatch
):
    """params.yaml and dvc.lock may write one number in several ways."""
    project = reproduced.copy(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    text, lock = (Path(x).read_text() for x in ("params.yaml", "dvc.lock"))
    assert text.count("learning_rate: 0.002") == 1
    Path("dvc.lock").write_text(
        lock.replace("learning_rate: 0.002", "learning_rate: 5e-05")
    )
    for rate, same in {
        "5e-05": True,
        "0.00005": True,
        "5e-5": True,
        "5.0E-05": True,
        "0.0005": False,
        "5": False,
    }.items():
        Path("params.yaml").write_text(
            text.replace("learning_rate: 0.002", f"learning_rate: {rate}")
        )
        rerun = list_reruns(read_yaml("params.yaml"), find_changes())
        with Repo() as repo:
            status = set(repo.status("dvc.yaml")) - {"check"}
        assert bool(status) == bool(rerun) == (not same), rate
        assert status <= set(rerun)


def test_a_plan_prints_depth_and_seconds_and_changes_nothing(reproduced):
    before = (reproduced.folder / "params.yaml").read_bytes()
    done = thaw(reproduced, "plan", "-S", "finetune.blocks=3")
    assert done.returncode == 0, done.stderr
    assert "thawed: block6c, block6d, block7a" in done.stdout
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line}
    assert "extract" not in lines
    for stage in ("prefix", "finetune", "evaluate", "all"):
        assert re.search(r"\d (s|min)$", lines[stage])
    assert (reproduced.folder / "params.yaml").read_bytes() == before
    done = thaw(reproduced, "plan", "-S", "finetune.blocks=half")
    assert "thawed: block5a, block5b, block5c" in done.stdout
    done = thaw(reproduced, "plan", "-S", "finetune.blocks=1,17")
    assert done.returncode == 1 and "allowed: 0 to 16" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = thaw(reproduced, "plan", "-S", "finetune.block=1")
    assert done.returncode == 1 and "did you mean blocks?" in done.stderr


def test_a_plan_imports_no_tensorflow(reproduced):
    program = (
        "import sys\n"
        "from thaw.commands import plan\n"
        "plan.main(['finetune.blocks=3'])\n"
        "assert not {'tensorflow', 'keras', 'openvino'} & {*sys.modules}\n"
    )
    done = reproduced.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr


def test_a_sweep_is_planned_a_line_for_each_combination(inside, capsys):
    plan.main(
        ["finetune.blocks=1,3", "finetune.learning_rate=0.001,2e-3", "seed=17"]
    )
    head, *lines, _, _ = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["blocks", "learning_rate", "took"]
    found = [(*line.split()[:2], line.split("_add")[1]) for line in lines]
    assert [x[:2] for x in found] == [
        ("1", "0.001"), ("1", "0.002"), ("3", "0.001"), ("3", "0.002"),
    ]  # fmt: skip
    assert found[0][2].split()[:2] == ["finetune", "evaluate"]
    assert found[1][2].split() == ["nothing"] and " 0.0 s " in lines[1]
    assert found[3][2].split()[:3] == ["prefix", "finetune", "evaluate"]
    assert "block6d_add" in lines[0] and "block6b_add" in lines[2]
    assert max(map(len, [head, *lines])) <= 100


def test_a_wrong_precision_is_refused_by_its_option(reproduced):
    model = reproduced.folder / "models/finetuned.keras"
    with pytest.raises(InputError, match="--precision is bfloat8"):
        Classifier(model, "bfloat8")
