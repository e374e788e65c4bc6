"""Arrays, whole files, YAML as DVC reads it."""

import numpy as np
import pytest
from dvc.utils.serialize import load_yaml

from thaw.files.arrays import ArrayWriter, create_array
from thaw.files.atomic import new_file, new_folder
from thaw.files.text import read_yaml


def test_arrays_grow_row_by_row(tmp_path):
    path = tmp_path / "rows.npy"
    with ArrayWriter(path, (2, 3), np.uint8) as writer:
        for row in range(12):
            writer.append(np.full((1, 2, 3), row))
    rows = np.load(path)
    assert rows.shape == (12, 2, 3) and rows[:, 1, 2].tolist() == list(
        range(12)
    )


def test_files_appear_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("before")
    with pytest.raises(RuntimeError), new_file(tmp_path / "kept") as file:
        file.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), new_folder(tmp_path / "new") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


NUMBERS = [
    "1e-05", "5e-05", "0.00005", "1e-4", "1", "1.0", "010", "-010", "1_0", ".5",
    "1.", "+1", "0o10", "0x10", "1e5", "08", "yes", "on", "no", "~",
    "2020-01-01", "'1'", "!!float 1",
]  # fmt: skip


@pytest.mark.parametrize("text", NUMBERS)
def test_a_value_is_read_as_dvc_reads_it(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(f"seed: {text}\nhead: {{learning_rate: {text}}}\n")
    assert repr(read_yaml(path)) == repr(load_yaml(path))


def test_an_array_is_allocated_at_once(tmp_path):
    path = tmp_path / "a.npy"
    array = create_array(path, (1000, 1000), "float32")
    assert path.stat().st_blocks * 512 >= array.nbytes
