"""Whether Keras can have the ImageNet weights."""

from pathlib import Path
from typing import Any

from thaw.data.efficientnet import find_keras_home, get_weights_url
from thaw.errors import InputError
from thaw.files.online import is_online
from thaw.files.text import read_yaml
from thaw.run.console import say


def check_weights(name: str, backbone: dict[str, Any]) -> None:
    """Refuses ImageNet weights that are neither here nor to be had.

    Where dvc.lock says that `extract` ran with this backbone, what is to run
    may need no weights: then it is a warning.

    Args:
        name: of the backbone.
        backbone: the section of params.yaml.

    Raises:
        InputError: naming the ways out.
    """
    url = get_weights_url(name)
    file = find_keras_home() / "models" / Path(url).name
    if file.exists() or is_online():
        return
    problem = (
        f"backbone.weights is imagenet: {file} is not there, and there is no "
        f"connection to download it; put {url} there, or set "
        "backbone.weights=file and backbone.file to weights that you have"
    )
    if not has_extracted(backbone):
        raise InputError(problem)
    say(f"warning: {problem}")


def has_extracted(backbone: dict[str, Any]) -> bool:
    """Whether dvc.lock says that `extract` ran with this backbone."""
    if not Path("dvc.lock").exists():
        return False
    stages = (read_yaml("dvc.lock") or {}).get("stages", {})
    params = stages.get("extract", {}).get("params", {})
    return params.get("params.yaml", {}).get("backbone") == backbone
