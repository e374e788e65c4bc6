"""Charts and heat maps of the report."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from samples import ODD

from benchmarks.project import ROOT
from thaw.data.efficientnet import LOGITS
from thaw.linear.heat import draw_heat
from thaw.network.backbone import build_backbone
from thaw.network.backend import keras
from thaw.network.head import build_head, join_head, read_affine
from thaw.network.parts import get_part
from thaw.network.pooling import FRONT, TOP
from thaw.network.thawing import describe_backbone, find_output, list_blocks
from thaw.report.charts import cut_middle, draw_confusion, draw_curves
from thaw.report.heat import paint_heat


def test_long_names_keep_both_ends():
    names = ["Arla-Ecological-Medium-Fat-Milk", "Garant-Medium-Fat-Milk-Eco"]
    cut = [cut_middle(name, 16) for name in names]
    assert cut == ["Arla-Eco…at-Milk", "Garant-M…ilk-Eco"]
    assert cut_middle("short", 16) == "short"


@pytest.mark.slow
@pytest.mark.parametrize("wide", [True, False])
def test_heat_is_that_of_a_true_gradient(wide):
    tensorflow = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the gradient to compare with is TensorFlow's")
    rng = np.random.default_rng(0)
    (weights,) = (ROOT / "weights").glob("*.weights.h5")
    backbone = build_backbone("EfficientNetB0", "file", weights, 96)
    architecture = describe_backbone(backbone)
    size = sum(architecture.widths) if wide else 1280
    head = build_head(size, 4, dropout=0.5)
    head.get_layer(LOGITS).kernel.assign(rng.normal(0, 1, (size, 4)))
    images = rng.integers(0, 256, (5, 3, 3, 3), np.uint8)
    images = images.repeat(32, axis=1).repeat(32, axis=2)
    cut = find_output(backbone, list_blocks(backbone)[-1])
    model = join_head(backbone, head, cut)
    front = [FRONT] if wide else []
    ends = [get_part(model, "image", x) for x in (TOP, *front)]
    activations, *known = (x(images.astype(np.float32)) for x in ends)
    behind = keras.Model(
        [model.get_layer(x).output for x in (TOP, *front)],
        model.get_layer(LOGITS).output,
    )
    with tensorflow.GradientTape() as tape:
        tape.watch(activations)
        logits = behind([activations, *known], training=False)
        classes = logits.numpy().argmax(axis=1)
        own = tensorflow.gather(logits, classes, batch_dims=1)
    gradients = tape.gradient(own, activations).numpy()
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    expected = np.maximum((activations.numpy() * weights).sum(axis=-1), 0)
    most = expected.max(axis=(1, 2), keepdims=True)
    expected /= np.where(most > 0, most, 1)
    kernel = read_affine(model).kernel[
        architecture.last if wide else slice(0, None)
    ]
    heat = draw_heat(activations.numpy(), kernel, classes)
    assert (most > 0).any()
    np.testing.assert_allclose(heat, expected, atol=1e-3)


def test_heat_is_painted_where_it_is():
    image = np.full((40, 40, 3), 100, np.uint8)
    painted = paint_heat(image, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert painted.shape == image.shape
    assert (painted[-1, -1] == 100).all()
    assert painted[0, 0, 0] > 150


def test_charts_take_colours_and_names_as_they_are():
    names = [f"{ODD} ${number}$" for number in range(30)]
    chart = draw_confusion(np.eye(30, dtype=int), names)
    assert "#0101" not in chart
    assert "var(--ink)" in chart or "var(--muted)" in chart
    assert chart == draw_confusion(np.eye(30, dtype=int), names)
    ticks = [text.text for text in ElementTree.fromstring(chart).iter()]
    assert any(tick and tick.endswith("$2$") for tick in ticks)


def test_curves_of_one_epoch_and_no_score():
    row = {"accuracy": "0.5", "val_accuracy": "nan"}
    chart = draw_curves(
        "Accuracy",
        "accuracy",
        {"head": [row], "finetune": [row, row]},
    )
    assert "fine-tuning" in chart
    ElementTree.fromstring(chart)
