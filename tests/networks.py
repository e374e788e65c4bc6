"""Networks cut in two and trained on noise."""

import tempfile
from pathlib import Path

from samples import IMAGES, LABELS

from thaw.data.efficientnet import IMAGE, LAST, POOLED
from thaw.network.backend import make_deterministic
from thaw.network.head import build_head, join_head
from thaw.network.parts import get_part
from thaw.network.thawing import apply_plan, make_plan
from thaw.stage.checkpoints import Checkpoint
from thaw.train.batches import Batches


def as_list(outputs):
    return outputs if isinstance(outputs, list) else [outputs]


def make_training(backbone, blocks):
    make_deterministic(1)
    plan = make_plan(backbone, blocks, tap_kept=True)
    apply_plan(backbone, plan, drop_connect_rate=0.2)
    model = join_head(backbone, build_head(1280, 3, dropout=0.2))
    below = get_part(model, IMAGE, LAST if plan.cut == POOLED else plan.cut)
    (inputs,) = as_list(below.predict(IMAGES, verbose=0))

    def batches(seed):
        return Batches(lambda rows, views: inputs[rows], LABELS, 1, 8, seed)

    return plan, model, batches


def new_checkpoint(folder):
    return Checkpoint(Path(tempfile.mkdtemp(dir=folder)))
