"""How a model is trained: what params.yaml says, as Keras takes it."""

from dataclasses import dataclass, fields
from typing import Any

from pydantic import BaseModel

from thaw.network.backend import has_accelerator, keras

# Of fine-tuning, over all variables. Frozen BatchNormalization holds no
# activation back: at a rate of 0.003, 6 of 13 trainings of eight blocks of B4
# diverged without this limit, and 1 of 6 with it: docs/recipe.md.
LONGEST_GRADIENT = 1.0


@dataclass(frozen=True)
class Recipe:
    """A schedule and a loss.

    Attributes:
        section: of params.yaml that they are from, for advice.
        epochs: 1 or more.
        learning_rate: the highest; it falls to 0 along a cosine.
        warmup_epochs: in which the rate rises to it.
        class_weight: "none", or "balanced": each image counts in inverse
            proportion to its class's size, in the training loss alone.
        global_clipnorm: the longest that the gradient of a step may be.
        from_trained: score the start as well, and never end worse.
        mixed_precision: train all but the last layer in bfloat16.
        l2: of the last layer's weights, by `L2FromStart`.
    """

    section: str
    epochs: int
    learning_rate: float
    warmup_epochs: float = 0
    class_weight: str = "none"
    global_clipnorm: float | None = None
    from_trained: bool = False
    mixed_precision: bool = False
    l2: float = 0.0

    @classmethod
    def read_finetune(cls, values: BaseModel, **more: Any) -> "Recipe":
        """That of thawed blocks."""
        return cls.read(
            "finetune",
            values,
            global_clipnorm=LONGEST_GRADIENT,
            mixed_precision=has_accelerator(),
            **more,
        )

    @classmethod
    def read(cls, section: str, values: BaseModel, **more: Any) -> "Recipe":
        """From a section of params.yaml.

        Args:
            section: its name.
            values: of it.
            more: attributes that it does not say.
        """
        said = values.model_dump(include={f.name for f in fields(cls)})
        return cls(section, **said, **more)

    def make_schedule(
        self, steps: int
    ) -> keras.optimizers.schedules.CosineDecay:
        """Up to `learning_rate` in a line, down to 0 along a cosine.

        Args:
            steps: in an epoch.
        """
        warmup = round(min(self.warmup_epochs, self.epochs) * steps)
        return keras.optimizers.schedules.CosineDecay(
            self.learning_rate / max(warmup, 1),
            decay_steps=max(self.epochs * steps - warmup, 1),
            warmup_target=self.learning_rate if warmup else None,
            warmup_steps=warmup,
        )


class L2FromStart(keras.regularizers.Regularizer):
    """The squared distance of weights from what they are now, times `l2`.

    L2-SP of Li et al., Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks, arXiv:1802.01483.
    """

    def __init__(self, weights: keras.Variable, l2: float):
        self.start, self.l2 = weights.numpy(), l2

    def __call__(self, x):
        return self.l2 * keras.ops.sum(keras.ops.square(x - self.start))


def train_in_bfloat16(model: keras.Model, layers: list[keras.Layer]) -> None:
    """Has training steps, and nothing else, compute in mixed bfloat16.

    Variables stay in float32, and so do the policies that layers are saved
    with.

    Args:
        model: what is trained.
        layers: of it, those that compute in bfloat16.
    """
    step = model.train_step

    def train_step(*args):
        policies = [layer.dtype_policy for layer in layers]
        try:
            for layer in layers:
                layer.dtype_policy = "mixed_bfloat16"
            return step(*args)
        finally:
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy

    model.train_step = train_step
