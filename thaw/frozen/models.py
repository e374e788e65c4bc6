"""Trained models as `evaluate` runs them, without Keras.

`finetune`, which has Keras, keeps them: their heads as arrays and, of the
fine-tuned one, what training may have changed. The backbone in data/features
has the rest.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from thaw.data.activations import Features
from thaw.data.efficientnet import IMAGE, LAST, POOLED
from thaw.frozen.backbone import read_architecture, read_frozen
from thaw.frozen.engines import freeze_model, read_network
from thaw.frozen.network import FrozenNetwork
from thaw.linear.affine import Affine
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
    """Writes what `read_heads` and `read_thawed` read.

    Args:
        folder: that it is written to.
        features: data/features.
        head: from pooled outputs to probabilities.
        finetuned: from `join_head`, whatever of it was trained by the plan.
        plan: of the fine-tuned model.
    """
    from thaw.network.head import read_affine

    for name, model in ((HEAD, head), (FINETUNED, finetuned)):
        (folder / name).mkdir()
        read_affine(model).write(folder / name)
    network = freeze_thawed(finetuned, plan, read_frozen(features))
    network.write(folder / FINETUNED)


def freeze_thawed(
    model: "keras.Model", plan: Plan, frozen: FrozenNetwork
) -> FrozenNetwork:
    """What is behind the plan's cut; all of it where the engines differ.

    Its outputs are those of the last convolution, and pooled outputs: those
    from behind the cut, or all of what the head takes.
    """
    from thaw.network.backend import keras
    from thaw.network.parts import has_layer
    from thaw.network.pooling import BACK, TOP

    names = [TOP, POOLED if has_layer(model, POOLED) else LAST]
    if plan.cut != IMAGE:
        # The top is needed for its last convolution, whatever trained.
        *_, block, _, _ = frozen.layers
        cut = block if plan.cut == POOLED else plan.cut
        behind = [TOP, BACK if has_layer(model, BACK) else LAST]
        part = keras.Model(
            model.get_layer(cut).output,
            [model.get_layer(name).output for name in behind],
        )
        network = freeze_model(part, "float32", "float32", start=cut)
        if network.kind == frozen.kind:
            return network
    outputs = [model.get_layer(name).output for name in names]
    whole = keras.Model(model.input, outputs)
    return freeze_model(whole, "float32", "uint8")


def read_heads(folder: str | Path) -> dict[str, Affine]:
    """`HEAD` and `FINETUNED`, as arrays."""
    return {name: Affine.read(Path(folder, name)) for name in (HEAD, FINETUNED)}


def read_thawed(folder: str | Path, features: Features) -> FrozenNetwork:
    """The fine-tuned network, from what is there of the test images.

    That is the tap where training left all before it as it was, else images.

    Args:
        folder: that `keep_models` wrote.
        features: data/features.
    """
    network = read_network(Path(folder, FINETUNED))
    frozen = read_frozen(features.folder)
    outputs = [IMAGE, *read_architecture(features.folder).outputs]
    start, tap = network.start, features.tap
    behind = tap and outputs.index(tap) <= outputs.index(start)
    known = tap if tap and behind else IMAGE
    if known != start:
        dtype = "uint8" if known == IMAGE else "float32"
        network = frozen.take(known, start, dtype=dtype).join(network)
    return network
