"""What `-S` sets, in the syntax of `dvc exp run`, sweeps included."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from thaw.errors import InputError
from thaw.files.text import read_yaml
from thaw.run import params

PARAMS = "params.yaml"


def list_combinations(values: list[str]) -> list[list[str]]:
    """Every combination of a sweep, as `dvc exp run --queue` makes them.

    Args:
        values: each "section.key=value"; with "1,2", "range(1,4)" or
            "choice(1,2)" for a value they are a sweep.

    Returns:
        Of each combination such values, one for each key.

    Raises:
        InputError: where DVC could not read one, or no parameter has its name.
    """
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import get_hydra_sweeps, to_hydra_overrides

    if not values:
        return [[]]
    with in_one_line(values):
        paths = to_path_overrides(values)
        for path in set(paths) - {PARAMS}:
            raise InputError(f"-S {path}: the parameters are in {PARAMS}")
        parsed = to_hydra_overrides(paths[PARAMS])
        for override in parsed:
            params.check_name(override.key_or_group)
        if not any(override.is_sweep_override() for override in parsed):
            return [paths[PARAMS]]
        return [overrides[PARAMS] for overrides in get_hydra_sweeps(paths)]


def set_params(overrides: list[str]) -> tuple[dict, params.Params]:
    """params.yaml as it would be with some values, as plain values and checked.

    Raises:
        InputError: where `check` would refuse it.
    """
    from dvc.utils.hydra import apply_overrides

    if not overrides:
        return read_yaml(PARAMS), params.load(PARAMS)
    read_yaml(PARAMS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PARAMS)
        shutil.copyfile(PARAMS, path)
        with in_one_line(overrides):
            apply_overrides(path, overrides)
        try:
            return read_yaml(path), params.load(path)
        except InputError as error:
            raise InputError(str(error).replace(f"{path}", PARAMS)) from None


@contextmanager
def in_one_line(values: list[str]) -> Iterator[None]:
    """Makes an InputError of what DVC and Hydra say of values."""
    from dvc.exceptions import DvcException
    from hydra.errors import HydraException

    try:
        yield
    except InputError:
        raise
    except (DvcException, HydraException, ValueError) as error:
        reason, *_ = f"{error.__cause__ or error}".partition("\nSee ")
        if reason.startswith("Lexer"):
            reason = """such a value wants quotes: -S 'key="value"'"""
        raise InputError(f"-S {' '.join(values)}: {reason}") from error
