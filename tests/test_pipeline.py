"""The real stages under the real DVC, on small data."""

import ast
import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NoReturn, get_type_hints

import numpy as np
import pytest
import yaml
from conftest import (
    RERUNS,
    RESULTS,
    STAGES,
    commit,
)
from dvc.repo import Repo
from programs import run, run_python

from benchmarks.project import ROOT, list_ran
from thaw.files.text import read_yaml
from thaw.network.model_info import read_info
from thaw.run import console, params

ALL = STAGES[1:]


def test_one_command_runs_every_stage(reproduced):
    assert sorted(reproduced.ran) == sorted(STAGES)
    metrics = json.loads(
        (reproduced.folder / "metrics/details/evaluate.json").read_text()
    )
    for name in ("head", "finetuned"):
        assert {
            "accuracy",
            "accuracy_ci_low",
            "accuracy_ci_high",
            "macro_f1",
            "loss",
            "ece",
            "temperature",
            "calibrated_loss",
            "calibrated_ece",
        } == set(metrics[name])
    finetune = json.loads(
        (reproduced.folder / "metrics/details/finetune.json").read_text()
    )
    assert finetune["shipped"] == "finetuned" and finetune["bn_drift"] == 0
    assert metrics["gain"] == pytest.approx(
        metrics["finetuned"]["accuracy"] - metrics["head"]["accuracy"]
    )
    assert "up to date" in reproduced.dvc("repro")
    assert "up to date" in reproduced.dvc("status", "dvc.yaml")


def test_every_run_is_kept_for_reuse(reproduced):
    """Undoing a change, and `dvc repro --pull`, run nothing again."""
    runs = (reproduced.folder / ".dvc/cache/runs").rglob("*")
    kept = {
        yaml.safe_load(path.read_text())["cmd"].strip('"').rsplit(".")[-1]
        for path in runs
        if path.is_file()
    }
    assert kept == {*STAGES} - {"check"}


def test_metrics_are_what_somebody_decides_by(reproduced):
    shown = json.loads(reproduced.dvc("metrics", "show", "--json"))
    files = {name: file["data"] for name, file in shown[""]["data"].items()}
    details = {
        name: json.loads((reproduced.folder / name).read_text())
        for name in (
            f"metrics/details/{stage}.json"
            for stage in ("head", "finetune", "evaluate")
        )
    }
    head, finetune, evaluate = details.values()
    own = {
        "metrics/head.json": {"validation_loss": head["validation_loss"]},
        "metrics/finetune.json": {
            "validation_loss": finetune["validation_loss"]
        },
        "metrics/evaluate.json": {
            "head": {"accuracy": evaluate["head"]["accuracy"]},
            "finetuned": {"accuracy": evaluate["finetuned"]["accuracy"]},
            "gain": evaluate["gain"],
        },
    }
    assert files == own
    table = reproduced.dvc("metrics", "show")
    assert max(map(len, table.splitlines())) <= 100


def test_report_ends_in_what_to_do_next(reproduced):
    said = reproduced.said.partition("wrote report.html")[2]
    lines = said[: said.index("Updating lock")].splitlines()
    text = " ".join(lines)
    assert " test images" in text
    assert "All of it is on one page: report.html" in lines
    assert "git commit" in text and "dvc repro export/dvc.yaml" in text
    assert max(map(len, lines)) < 80


@pytest.fixture(scope="module")
def changing(reproduced, tmp_path_factory):
    return reproduced.copy(tmp_path_factory.mktemp("changing") / "project")


# A stage of the middle and one near the end; for the other rows DVC is asked
# what it notices.
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        row
        for row in RERUNS
        if {"head__features", "evaluate__top_k"} & {*row[0]}
    ],
    ids=lambda x: "-".join(x),
)
def test_a_change_reruns_what_depends_on_it(changing, change, expected):
    changing.set(**change)
    assert sorted(changing.repro()) == sorted(["check", *expected])


@pytest.fixture(scope="module")
def pristine(reproduced, tmp_path_factory):
    """A copy whose results match its parameters."""
    return reproduced.copy(tmp_path_factory.mktemp("pristine") / "project")


@pytest.fixture
def notice(pristine, monkeypatch):
    """Names the stages that DVC finds changed by other parameters."""
    monkeypatch.chdir(pristine.folder)
    before = Path("params.yaml").read_text()

    def notice(change):
        pristine.set(**change)
        with Repo() as repo:
            return set(repo.status("dvc.yaml"))

    yield notice
    Path("params.yaml").write_text(before)


def follow(changed):
    """Returns stages and all that depend on what they write.

    `depth` writes the same number for the same number of blocks.
    """
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    outs = {
        stage: [
            next(iter(out)) if isinstance(out, dict) else out
            for out in [*about.get("outs", []), *about.get("metrics", [])]
        ]
        for stage, about in stages.items()
    }
    found = set()
    while found != changed:
        found = changed
        written = {out for stage in found for out in outs[stage]}
        changed = found | {
            stage
            for stage, about in stages.items()
            if any(
                dep == out or dep.startswith(f"{out}/")
                for dep in about["deps"]
                for out in written
            )
        }
    return found


@pytest.mark.parametrize(
    ("change", "expected"), RERUNS, ids=lambda x: "-".join(x)
)
def test_a_change_reaches_what_depends_on_it(notice, change, expected):
    """Follows the DAG from what DVC notices; `check` writes the same bytes."""
    changed = notice(change)
    assert "check" in changed
    assert follow(changed - {"check"}) == {*expected}


# What changes at once for each other row, before any stage runs.
AT_ONCE = [
    ({"seed": 18}, {"head", "finetune"}),
    ({"finetune__blocks": 5}, {"prefix"}),
    ({"finetune__views": 1}, {"prefix", "finetune"}),
    ({"extract__views": 3}, {"extract"}),
    ({"augment__contrast": 0.3}, {"extract", "prefix", "finetune"}),
    ({"backbone__weights": None}, {"extract", "prefix", "finetune"}),
    ({"backbone__name": "EfficientNetB1"}, set(ALL) - {"head", "audit"}),
    ({"prepare__test": 0.3}, {"prepare"}),
]


@pytest.mark.parametrize(
    ("change", "expected"), AT_ONCE, ids=lambda x: "-".join(sorted(x))
)
def test_a_change_is_noticed_where_it_is_read(notice, change, expected):
    # These declare whole sections, and would re-run anyway.
    later = {*RESULTS}
    assert notice(change) - later == {"check", *expected} - later


def test_a_changed_image_is_noticed(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    path = project.folder / "data/raw/down/00.jpg"
    path.write_bytes(path.read_bytes() + b" ")
    changed = json.loads(project.dvc("status", "--json", "dvc.yaml"))
    assert set(changed) == {"prepare"}


# From the ground up: what a room imports lies below it.
FLOORS = ("files", "data", "run", "stage", "linear", "network", "prepare",
          "frozen", "train", "audit", "evaluate", "export", "report",
          "commands")  # fmt: skip


# Says and refuses, and gives nothing that a result could be made of.
FRAME = "run"

# What wrote the rows that a stage reads: it keeps its own while that is the
# same.
GOES_ON_FROM = {"prefix": ["stages/extract.py"]}


def list_imports(path: Path) -> set[Path]:
    """Files of thaw/ that a file imports, at once or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules = [node.module]
            modules += [f"{node.module}.{name.name}" for name in node.names]
        elif isinstance(node, ast.Import):
            modules = [name.name for name in node.names]
        files = [
            ROOT.joinpath(*m.split(".")).with_suffix(".py") for m in modules
        ]
        found |= {
            x for x in files if (ROOT / "thaw") in x.parents and x.exists()
        }
    return found


def find_rooms(files: set[Path]) -> set[str]:
    parts = [file.relative_to(ROOT / "thaw").parts for file in files]
    return {names[0] for names in parts if len(names) > 1}


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down(room):
    files = (ROOT / "thaw" / room).rglob("*.py")
    below = FLOORS[: FLOORS.index(room) + 1]
    assert find_rooms(set().union(*map(list_imports, files))) <= {*below}


def test_every_folder_is_a_room():
    folders = [path.parent for path in ROOT.glob("thaw/*/__init__.py")]
    assert {folder.name for folder in folders} == {*FLOORS}


@pytest.mark.parametrize("stage", [*STAGES, "export"])
def test_code_dependencies_are_all_that_is_imported(stage):
    closure = list_closure(ROOT / f"stages/{stage}.py")
    pipeline = "export/dvc.yaml" if stage == "export" else "dvc.yaml"
    stages = yaml.safe_load((ROOT / pipeline).read_text())["stages"]
    code = ("stages/", "thaw/")
    declared = {d for d in stages[stage]["deps"] if d.startswith(code)}
    closure.remove(ROOT / f"stages/{stage}.py")
    rooms = find_rooms(closure) - ({FRAME} if stage != "check" else set())
    scripts = {f"stages/{stage}.py", *GOES_ON_FROM.get(stage, ())}
    assert declared == scripts | {f"thaw/{x}" for x in rooms}


def list_closure(file: Path) -> set[Path]:
    """All files of thaw/ that a file imports, at once or by way of others."""
    closure, left = set(), {file}
    while left:
        closure.add(file := left.pop())
        left |= list_imports(file) - closure
    return closure


# What a function of FRAME may give: nothing, also while a block runs, or a bar
# that counts.
NOTHING = (type(None), NoReturn, Iterator[None], Iterator[console.Bar])

# Also taken from FRAME: types for annotations, and values of params.yaml, which
# test_parameters_are_what_the_file_says holds to be what DVC compares.
PASSED = {console.Bar, params, params.Params}


def list_taken(file: Path) -> Iterator[tuple[str, object]]:
    """What a file imports from FRAME: names and values."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
            assert not any(x.startswith(f"thaw.{FRAME}.") for x in names)
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.module.split(".")[:2] == ["thaw", FRAME]:
            room = importlib.import_module(node.module)
            for name in node.names:
                value = getattr(room, name.name, None)
                if value is None:
                    inner = f"{node.module}.{name.name}"
                    value = importlib.import_module(inner)
                yield f"{file.name}: {name.name}", value


@pytest.mark.parametrize("stage", [*ALL, "export"])
def test_nothing_exempted_reaches_a_result(stage):
    for file in list_closure(ROOT / f"stages/{stage}.py"):
        if ROOT / "thaw" / FRAME in file.parents:
            continue
        for name, value in list_taken(file):
            if any(value is x for x in PASSED):
                continue
            assert inspect.isfunction(value), name
            given = get_type_hints(value)["return"]
            assert given in NOTHING, f"{name} gives {given}"


def test_stages_take_parameters_alone_from_their_module():
    """`params.load` and types, nothing that the module itself decides."""
    allowed = {"load", *(x.__name__ for x in SECTIONS)}
    for file in [*ROOT.glob("stages/*.py"), *ROOT.glob("thaw/*/*.py")]:
        text = file.read_text()
        if "from thaw.run import params" not in text:
            continue
        if file.name in ("check.py", "overrides.py", "plan.py"):
            continue  # `check` refuses; commands write no result
        used = {
            node.attr
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "params"
        }
        assert used - {"model_dump", *params.Params.model_fields} <= allowed, (
            file
        )


SECTIONS = [
    value
    for value in vars(params).values()
    if inspect.isclass(value) and issubclass(value, params.Section)
]


def test_parameters_are_what_the_file_says():
    """No default, property or validator: the value that DVC compares."""
    values = read_yaml(ROOT / "params.yaml")
    assert params.check_values(values).model_dump() == values
    for section in SECTIONS:
        own = {name for name in vars(section) if not name.startswith("_")}
        assert own <= {"model_config", "model_fields", "model_computed_fields"}
        fields = section.model_fields.values()
        assert all(field.is_required() for field in fields)
        assert not section.__pydantic_decorators__.validators
        assert not section.__pydantic_decorators__.field_validators
        assert not section.__pydantic_decorators__.model_validators


def test_no_module_imports_itself_by_way_of_others():
    """Inside a room as well."""
    graph = {file: list_imports(file) for file in ROOT.glob("thaw/**/*.py")}
    TopologicalSorter(graph).prepare()  # raises CycleError, naming them


def test_a_head_on_all_blocks_is_solved_and_fine_tuned(reproduced, tmp_path):
    """`head.features: all`, the default; the other runs take `last`."""
    project = reproduced.copy(tmp_path / "project")
    project.set(head__features="all", finetune__blocks=3)
    ran = project.repro()
    assert ran[:1] == ["check"] and "extract" not in ran
    folder = project.folder
    details = json.loads((folder / "metrics/details/head.json").read_text())
    assert details["epochs"] == 0 and details["temperature"] == 1.0
    held_out = np.load(folder / "data/heldout/train.npy")
    labels = np.load(folder / "data/prepared/train/labels.npy")
    assert details["left_out"]["accuracy"] == np.mean(
        held_out.argmax(axis=1) == labels
    )
    program = """
import json, keras, numpy
model = keras.models.load_model("models/finetuned.keras")
head = keras.models.load_model("models/head.keras")
images = numpy.load("data/prepared/test/images.npy")
found = model.predict(images, verbose=0)
kept = numpy.load("metrics/probabilities/finetuned.npy")
print(float(abs(found - kept).max()))
pooled = numpy.load("data/features/pooled/test-0.npy")
kept = numpy.load("metrics/probabilities/head.npy")
print(float(abs(head.predict(pooled, verbose=0) - kept).max()))
"""
    done = project.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert max(map(float, done.stdout.split()[-2:])) < 1e-3
    assert "closed form" in (folder / "report.html").read_text()


def test_thaw_imports_no_stage():
    for path in (ROOT / "thaw").rglob("*.py"):
        text = path.read_text()
        assert "import stages" not in text and "from stages" not in text


def test_shipped_model_differs_from_the_checkpoint_as_planned(
    reproduced,
):
    """Plain Keras reads the files in another program."""
    program = """
import json, keras, numpy, warnings
warnings.simplefilter("ignore")
model = keras.models.load_model("models/finetuned.keras")
backbone = keras.applications.EfficientNetB0(weights=None, include_top=False)
backbone.load_weights("weights/efficientnetb0-characters-64px.weights.h5")
changed = []
for layer in backbone.layers:
    if layer.weights and not layer.name.startswith("normalization"):
        shipped = model.get_layer(layer.name).get_weights()
        if not all(map(numpy.array_equal, layer.get_weights(), shipped)):
            changed.append(layer.name)
print(json.dumps(changed))
"""
    done = reproduced.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    plan = json.loads(
        (reproduced.folder / "data/activations/plan.json").read_text()
    )
    assert json.loads(done.stdout.splitlines()[-1]) == plan["layers"]
    assert plan["blocks"] == ["block7a"]


def test_shipped_model_scores_what_the_metrics_say(reproduced):
    """Plain Keras predicts the packed test images in another program."""
    program = """
import json, keras, numpy
model = keras.models.load_model("models/finetuned.keras")
images = numpy.load("data/prepared/test/images.npy")
labels = numpy.load("data/prepared/test/labels.npy")
assert isinstance(model, keras.Model) and len(model.inputs) == 1
assert not any(isinstance(layer, keras.Model) for layer in model.layers)
predicted = model.predict(images, verbose=0)
assert numpy.allclose(predicted.sum(axis=1), 1, atol=1e-5)
print(json.dumps([float((predicted.argmax(1) == labels).mean()), len(labels)]))
"""
    done = reproduced.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    accuracy, count = json.loads(done.stdout.splitlines()[-1])
    metrics = json.loads(
        (reproduced.folder / "metrics/details/evaluate.json").read_text()
    )
    assert metrics["n"] == count
    assert metrics["finetuned"]["accuracy"] == accuracy


def test_predictions_list_every_test_image(reproduced):
    folder = reproduced.folder
    table = (folder / "metrics/predictions.csv").read_text().splitlines()
    index = (folder / "data/prepared/test/index.csv").read_text().splitlines()
    assert len(table) == len(index)
    for line, entry in zip(table[1:], index[1:], strict=True):
        assert line.split(",")[:2] == entry.split(",")[:2]


def test_plots_and_experiments_have_something_to_show(reproduced):
    plots = json.loads(reproduced.dvc("plots", "show", "--json"))
    assert "errors" not in plots
    shown = "".join(plots["data"])
    for name in (
        "classes",
        "duplicates",
        "augmented",
        "head-loss",
        "finetune-accuracy",
        "confusion",
        "reliability",
        "recall",
    ):
        assert name in shown
    table = reproduced.dvc("exp", "show", "--csv")
    assert "finetuned.accuracy" in table and "finetune.blocks" in table


def test_wrong_parameters_are_refused_before_anything_is_lost(
    reproduced, tmp_path
):
    project = reproduced.copy(tmp_path / "project")
    before = sorted((project.folder / "data").rglob("*"))
    for change, key in [
        ({"finetune__blocks": 17}, "finetune.blocks is 17"),
        ({"prepare__image_size": 16}, "prepare.image_size is 16"),
        ({"head__learning_rate": float("nan")}, "head.learning_rate is NaN"),
        ({"head__epoch": 3}, "head.epoch is no parameter"),
        ({"prepare__path": "nowhere"}, 'prepare.path is "nowhere"'),
        ({"backbone__file": "nowhere.h5"}, 'backbone.file is "nowhere.h5"'),
    ]:
        saved = (project.folder / "params.yaml").read_text()
        project.set(**change)
        done = project.run(sys.executable, "-m", "dvc", "repro")
        assert done.returncode != 0
        (line,) = [x for x in done.stderr.splitlines() if "thaw:" in x]
        assert key in line and "Traceback" not in done.stderr
        (project.folder / "params.yaml").write_text(saved)
        assert before == sorted((project.folder / "data").rglob("*"))


def test_a_stage_that_fails_leaves_no_partial_artefact(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    for path in (project.folder / "data/raw/across").glob("*.jpg"):
        path.write_bytes(b"no picture")
    done = project.run(sys.executable, "-m", "dvc", "repro")
    assert done.returncode != 0
    (line,) = [x for x in done.stderr.splitlines() if "thaw:" in x]
    assert "can't be read" in line and "dvc checkout" in line
    assert not (project.folder / "data/prepared").exists()
    assert not list((project.folder / "data").glob(".*unfinished"))
    assert (project.folder / "data/features").exists()
    run("git", "checkout", "--quiet", "data/raw", cwd=project.folder)
    project.dvc("checkout")
    assert (project.folder / "data/prepared/train/images.npy").exists()


def test_a_head_that_diverges_is_refused(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    project.set(head__learning_rate=1e38, head__epochs=2)
    done = project.run(sys.executable, "-m", "dvc", "repro", "head")
    assert done.returncode != 0
    (line,) = [x for x in done.stderr.splitlines() if "thaw:" in x]
    assert "diverged in epoch 1" in line
    assert "try head.learning_rate=1e+37" in line


def test_an_experiment_sets_a_depth(reproduced, tmp_path):
    project = reproduced.copy(tmp_path / "project")
    commit(project, "run")
    output = project.dvc("exp", "run", "-S", "finetune.blocks=0")
    ran = list_ran(output)
    assert sorted(ran) == sorted(["check", "prefix", "finetune", *RESULTS])
    assert "thawed: the head alone" in output
    plan = json.loads(
        (project.folder / "data/activations/plan.json").read_text()
    )
    assert plan["blocks"] == [] and plan["layers"] == []
    assert "finetune.blocks" in project.dvc("params", "diff", "HEAD")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["check", "prepare", "audit", "report"])
def test_stages_without_a_network_import_neither_keras_nor_tensorflow(stage):
    program = (
        f"import sys, stages.{stage}; "
        "sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    run_python(program)


@pytest.mark.parametrize("stage", ["prefix", "evaluate"])
def test_what_is_frozen_runs_without_keras(reproduced, tmp_path, stage):
    project = reproduced.copy(tmp_path / "project")
    program = (
        "import sys, runpy; sys.modules.update(keras=None, tensorflow=None); "
        f"runpy.run_module('stages.{stage}', run_name='__main__')"
    )
    done = project.run(sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    assert "up to date" in project.dvc("status", stage)


def test_prepared_data_are_what_the_design_says(reproduced):
    prepared = reproduced.folder / "data/prepared"
    total = 0
    for split in ("train", "validation", "test"):
        images = np.load(prepared / split / "images.npy")
        labels = np.load(prepared / split / "labels.npy")
        assert images.shape == (len(labels), 32, 32, 3)
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert set(labels) == {0, 1, 2}
        total += len(labels)
    assert total == 30


def test_the_model_is_an_artifact_of_the_registry(committed, tmp_path):
    tag = "git", "tag", "-a", "classifier@v1.0.0", "-m", "first"
    run(*tag, cwd=committed.folder)
    target = tmp_path / "model.keras"
    committed.dvc("artifacts", "get", ".", "classifier", "--out", str(target))
    shipped = committed.folder / "models/finetuned.keras"
    assert target.read_bytes() == shipped.read_bytes()


def test_a_model_brings_its_classes_temperature_and_size(reproduced):
    info = read_info(reproduced.folder / "models/finetuned.keras")
    assert info.classes == ["across", "both", "down"]
    assert info.image_size == 32 and info.fit == "squash"
    metrics = json.loads(
        (reproduced.folder / "metrics/details/finetune.json").read_text()
    )
    assert info.temperature == metrics["temperature"]
