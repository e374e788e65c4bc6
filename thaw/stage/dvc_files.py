"""What DVC's own files say: dvc.yaml, dvc.lock, NAME.dvc."""

import re
from pathlib import Path
from typing import Any

from thaw.files.text import read_yaml


def list_outs(lock: Any) -> dict[str, str]:
    """What a dvc.lock holds: outputs of stages to their hashes."""
    stages = (lock or {}).get("stages", {}).values()
    outs = (out for stage in stages for out in stage.get("outs", ()))
    return {out["path"]: out["md5"] for out in outs}


def get_value(params: dict, name: str) -> Any:
    for key in name.split("."):
        params = params[key]
    return params


def fill_in(text: str, params: dict) -> str:
    """`${section.key}`, as DVC has it."""
    return re.sub(
        r"\$\{(.+?)\}", lambda m: str(get_value(params, m[1].strip())), text
    )


def read_hashes() -> dict[Path, str]:
    """Those of what stages made, as dvc.lock has them."""
    if not Path("dvc.lock").exists():
        return {}
    outs = list_outs(read_yaml("dvc.lock"))
    return {Path(path): md5 for path, md5 in outs.items()}
