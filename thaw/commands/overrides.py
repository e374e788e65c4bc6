"""The values that `plan -S` sets, in the syntax of `dvc exp run -S`."""

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
    """Lists the combinations of a sweep, as `dvc exp run --queue` makes them.

    Args:
        values: texts "section.key=value". A value like "1,2", "range(1,4)" or
            "choice(1,2)" makes a sweep.

    Returns:
        The combinations, each with one such text for every key.

    Raises:
        InputError: where DVC can't read a text, or no parameter has its name.
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
    """Sets values in a copy of params.yaml.

    Args:
        overrides: texts "section.key=value", without sweeps.

    Returns:
        The parameters, plain and checked.

    Raises:
        InputError: where `check` would refuse them.
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
    """Turns an error of DVC or Hydra about values into an InputError."""
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
