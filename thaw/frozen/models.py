"""Trained models as frozen networks: what `evaluate` runs.

`finetune`, which has Keras, freezes them. Of the fine-tuned model it freezes
what training may have changed; the backbone in data/features has the rest.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from thaw.data.activations import Features
from thaw.data.efficientnet import IMAGE, POOLED
from thaw.frozen.backbone import read_frozen
from thaw.frozen.engines import freeze_model, read_network
from thaw.frozen.network import FrozenNetwork
from thaw.network.plan import Plan

if TYPE_CHECKING:  # what reads them needs no Keras
    from thaw.network.backend import keras

HEAD, FINETUNED = "head", "finetuned"


def keep_models(
    folder: Path,
    features: str | Path,
    head: "keras.Model",
    finetuned: "keras.Model",
    plan: Plan,
) -> None:
    """Writes what `read_models` reads.

    Args:
        folder: that it is written to.
        features: data/features.
        head: from pooled features to probabilities.
        finetuned: from `join_head`, whatever of it was trained by the plan.
        plan: of the fine-tuned model.
    """
    networks = {
        HEAD: freeze_model(head, "float32", "float32", start=POOLED),
        FINETUNED: freeze_thawed(finetuned, plan, read_frozen(features)),
    }
    for name, network in networks.items():
        (folder / name).mkdir()
        network.write(folder / name)


def freeze_thawed(
    model: "keras.Model", plan: Plan, frozen: FrozenNetwork
) -> FrozenNetwork:
    """What is behind the plan's cut; all of it where the engines differ."""
    from thaw.network.gradcam import add_heat
    from thaw.network.parts import get_part

    model = add_heat(model)
    if plan.cut != IMAGE:
        start = plan.cut if plan.cut != POOLED else list(frozen.layers)[-2]
        part = get_part(model, start, *model.output_names)
        behind = freeze_model(part, "float32", "float32", start=start)
        if behind.kind == frozen.kind:
            return behind
    return freeze_model(model, "float32", "uint8")


def read_models(
    folder: str | Path, features: Features
) -> dict[str, FrozenNetwork]:
    """Both models as networks, each from what is there of the test images.

    Args:
        folder: that `keep_models` wrote.
        features: data/features.

    Returns:
        `HEAD`, from pooled features to probabilities, and `FINETUNED`, to those
        and to the heat of `add_heat`: from the tap where training left all
        before it as it was, else from images.
    """
    head, finetuned = (
        read_network(Path(folder, name)) for name in (HEAD, FINETUNED)
    )
    frozen = read_frozen(features.folder)
    layers = [IMAGE, *frozen.layers]
    start, tap = finetuned.start, features.tap
    known = tap if tap and layers.index(tap) <= layers.index(start) else IMAGE
    if known != start:
        dtype = "uint8" if known == IMAGE else "float32"
        finetuned = frozen.take(known, start, dtype=dtype).join(finetuned)
    return {HEAD: head, FINETUNED: finetuned}
