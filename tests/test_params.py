"""params.yaml: what is accepted, and how it is refused."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import run

from benchmarks.project import ROOT
from thaw.data.efficientnet import VARIANTS, get_image_size
from thaw.data.origin import warn_of_characters
from thaw.errors import InputError
from thaw.run import params

pytestmark = pytest.mark.usefixtures("in_the_project")

DEFAULTS = yaml.safe_load((ROOT / "params.yaml").read_text())


def load(tmp_path, change):
    values = yaml.safe_load(yaml.safe_dump(DEFAULTS))
    for name, value in change.items():
        *sections, key = name.split(".")
        section = values[sections[0]] if sections else values
        section[key] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return params.load(path)


def test_defaults_are_well_formed():
    assert params.load(ROOT / "params.yaml").finetune.blocks == 8


@pytest.mark.parametrize(
    "change",
    [
        {"finetune.learning_rate": "1e-05"},
        {"finetune.learning_rate": 1},
        {"finetune.blocks": "all"},
        {"finetune.blocks": 0},
        {"prepare.image_size": None},
        {"prepare.data_dir": "gs://bucket/sets"},
        {"backbone.weights": None},
        {"backbone.name": "EfficientNetB7", "finetune.blocks": 55},
    ],
    ids=str,
)
def test_right_values_are_accepted(tmp_path, change):
    load(tmp_path, change)


def write(tmp_path, line, text):
    """params.yaml with one line of it as a user wrote it."""
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / "params.yaml").read_text().replace(line, text, 1))
    return path


@pytest.mark.parametrize(
    ("line", "text", "value"),
    [
        ("seed: 17", "seed: 010", 10),
        ("learning_rate: 0.003", "learning_rate: 5e-05", 5e-5),
        ("learning_rate: 0.003", "learning_rate: 1e-4", 1e-4),
        ("learning_rate: 0.003", "learning_rate: 1", 1.0),
    ],
)
def test_a_number_may_be_written_in_any_way(tmp_path, line, text, value):
    loaded = params.load(write(tmp_path, line, text))
    found = loaded if line.startswith("seed") else loaded.finetune
    assert getattr(found, line.split(":")[0]) == value


def test_yes_is_text(tmp_path):
    path = write(tmp_path, "horizontal_flip: false", "horizontal_flip: yes")
    with pytest.raises(InputError, match='flip is "yes"; allowed: true or f'):
        params.load(path)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rate=st.floats(0, exclude_min=True, allow_infinity=False),
    share=st.floats(0, 0.5, exclude_max=True),
    seed=st.integers(0, 2**32 - 1),
    style=st.sampled_from(["{!r}", "{:.17g}", "{:.16e}"]),
)
def test_an_override_is_read_back_as_written(
    tmp_path, rate, share, seed, style
):
    path = write(tmp_path, "", "")
    wanted = float(style.format(rate))
    overrides = [
        f"finetune.learning_rate={style.format(rate)}",
        f"head.dropout={style.format(share)}",
        f"seed={seed}",
    ]
    apply_overrides(path, overrides)
    loaded = params.load(path)
    assert loaded.finetune.learning_rate == wanted
    assert loaded.head.dropout == float(style.format(share))
    assert loaded.seed == seed


def test_git_checkout_is_advised_where_it_helps(tmp_path, monkeypatch):
    path = write(tmp_path, "source: digits", "source: folders")

    def git(*arguments):
        about = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        run("git", *about, *arguments, cwd=tmp_path)

    def refuse():
        with pytest.raises(
            InputError, match="digits, folder, table or tfds"
        ) as error:
            params.load(path)
        return str(error.value)

    assert "git checkout" not in refuse()  # no repository
    git("init", "--quiet")
    git("add", "params.yaml")
    git("commit", "--quiet", "--message", "wrong")
    assert "git checkout" not in refuse()
    path.write_text(path.read_text().replace("folders", "photographs"))
    assert refuse().endswith(
        "(params.yaml keeps what -S set; `git checkout params.yaml` brings "
        "back the committed file)"
    )
    # The copy of a queued experiment: DVC_ROOT is the workspace.
    monkeypatch.setenv("DVC_ROOT", str(ROOT))
    assert "git checkout" not in refuse()


def test_image_size_null_is_the_backbones_own(tmp_path):
    change = {"prepare.image_size": None, "backbone.name": "EfficientNetB4"}
    p = load(tmp_path, change)
    assert get_image_size(p.backbone.name, p.prepare.image_size) == 380


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"finetune.blocks": 17}, "0 to 16"),
        ({"finetune.blocks": -1}, "a whole number, 0 or more, half or all"),
        ({"finetune.blocks": "two"}, '"two"; allowed: a whole number'),
        ({"finetune.blocks": True}, "true"),
        ({"finetune.blocks": 1.5}, "1.5"),
        ({"finetune.views": 5}, "extract.views (4)"),
        ({"finetune.learning_rate": True}, "a number over 0"),
        ({"finetune.learning_rate": float("nan")}, "NaN"),
        ({"finetune.learning_rate": float("inf")}, "Infinity"),
        ({"finetune.learning_rate": "inf"}, "a number over 0"),
        ({"finetune.learning_rate": "fast"}, '"fast"'),
        ({"prepare.image_size": 16}, "32 to 4096"),
        ({"prepare.image_size": 5000}, "32 to 4096"),
        ({"head.epochs": 10**30}, "a whole number, 1 or more"),
        ({"prepare.group": "("}, "a regular expression or null"),
        ({"prepare.group": 3}, "a pattern or null"),
        ({"prepare.duplicates": "drop"}, "remove, keep or fail"),
        ({"prepare.classes": "last"}, "first or leaf"),
        ({"head.class_weight": None}, "none or balanced"),
        ({"prepare.test": 0.9}, "prepare.validation (0.15)"),
        ({"prepare.source": "tfds"}, "prepare.name is null"),
        ({"prepare.data_dir": "s3://bucket/sets"}, "a folder, gs:// or null"),
        ({"head.epoch": 3}, "did you mean epochs?"),
        ({"finetun": {}}, "did you mean finetune?"),
        ({"head": None}, "a section of keys"),
        ({"seed": 2**32}, "0 to 4294967295"),
        ({"prepare.path": "nowhere"}, "which is not there"),
        (
            {"prepare.path": "params.yaml", "prepare.source": "folder"},
            "a folder",
        ),
        ({"prepare.path": "params.yaml", "prepare.source": "table"}, "folder"),
        ({"backbone.file": "data"}, "a file that is there"),
        ({"seed": "a\nb"}, '"a\\nb"'),
        ({"backbone.name": "EfficientNetB8"}, "EfficientNetV2L"),
    ],
    ids=str,
)
def test_wrong_values_are_refused_in_one_line(tmp_path, change, words):
    with pytest.raises(InputError) as refusal:
        load(tmp_path, change)
    text = str(refusal.value)
    assert words in text and "\n" not in text
    assert next(iter(change)).rsplit(".", 1)[-1] in text or "views" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: [",
        "- 1",
        "\x00",
        "seed",
        "null: 1",
        "yes: 2",
        "seed: 1\nseed: 2",
        "seed: !who 1",
        "seed: !!bool who",
        "seed: !!python/object:os.system who",
        "seed: 2020-99-99",
        "<<: 1",
        "%YAML 1.1\n---\nseed: 010\n---\nseed: 1",
        "{0: &a {seed: *a}}",
        "seed: {2020-01-01: 1}",
        "seed: &a [*a]",
        "[" * 3000,
        "seed: " + "9" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_files_without_a_mapping_are_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as refusal:
        params.load(path)
    assert len(str(refusal.value).splitlines()) == 1
    assert str(refusal.value).startswith(str(path))


def test_a_tilde_is_refused_with_the_home_folder(tmp_path):
    with pytest.raises(InputError, match="knows no ~; allowed") as refusal:
        load(tmp_path, {"prepare.path": "~/photographs"})
    assert f'"{Path.home()}/photographs"' in str(refusal.value)


def test_a_path_missing_from_a_copy_of_the_workspace_is_explained(
    tmp_path, monkeypatch
):
    copy, workspace = tmp_path / "copy", tmp_path / "workspace"
    for folder in (copy / "weights", workspace / "data/raw"):
        folder.mkdir(parents=True)
    shutil.copy(DEFAULTS["backbone"]["file"], copy / "weights")
    monkeypatch.chdir(copy)
    change = {"prepare.path": "data/raw", "prepare.source": "folder"}
    for root, told in [(workspace, True), (copy, False)]:
        monkeypatch.setenv("DVC_ROOT", str(root))
        with pytest.raises(InputError, match="which is not there") as refusal:
            load(tmp_path, change)
        assert ("in this copy" in str(refusal.value)) == told
        assert ("`dvc add data/raw` and commit" in str(refusal.value)) == told


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({}, False),
        ({"prepare.source": "folder", "prepare.path": "data"}, True),
        ({"prepare.source": "tfds", "prepare.name": "beans"}, True),
        (
            {
                "prepare.source": "folder",
                "prepare.path": "data",
                "backbone.weights": "imagenet",
            },
            False,
        ),
    ],
    ids=str,
)
def test_the_checkpoint_of_characters_brings_a_warning(
    tmp_path, change, warned
):
    p = load(tmp_path, change)
    warning = warn_of_characters(
        p.prepare.source, p.backbone.weights, p.backbone.file
    )
    assert ("backbone.weights=imagenet" in (warning or "")) == warned


KEYS = [
    f"{section}.{key}" if key else section
    for section, value in DEFAULTS.items()
    for key in (value if isinstance(value, dict) else [None])
]

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 100),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(key=st.sampled_from(KEYS), value=ANYTHING)
def test_any_value_is_accepted_or_refused_by_name(tmp_path, key, value):
    try:
        load(tmp_path, {key: value})
    except InputError as refusal:
        assert key.split(".")[0] in str(refusal)
        assert "\n" not in str(refusal)


def test_comments_give_every_variants_blocks():
    comments = (ROOT / "params.yaml").read_text()
    start = comments.index("blocks: ")
    text = comments[start : comments.index("views", start)]
    for name, variant in VARIANTS.items():
        short = name.removeprefix("EfficientNet")
        assert re.search(rf"\b{short}\b( B\d)? {variant.blocks}\b", text), name
