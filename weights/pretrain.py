"""Trains EfficientNetB0 on printed characters, from nothing, offline.

The pictures are the 62 letters and digits in the fonts that Matplotlib ships.
They begin clean and grow harder: from nothing, the network does not start to
learn on hard pictures. The result is stored in float16, without its head.

    python pretrain.py      # 20 to 60 minutes on 2 cores
"""

import os
import string
from functools import cache
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import matplotlib
import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
WEIGHTS = HERE / "efficientnetb0-characters-64px.weights.h5"
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
# Fonts whose ASCII positions hold letters and digits; the others that
# Matplotlib ships hold symbols there, or nothing.
FONTS = [
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-BoldOblique.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-BoldItalic.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralBolIta.ttf",
    "STIXGeneralItalic.ttf",
    "cmb10.ttf",
    "cmmi10.ttf",
    "cmr10.ttf",
    "cmss10.ttf",
    "cmtt10.ttf",
]


@cache
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(folder / name, size)


def draw_character(
    rng: np.random.Generator, character: str, size: int, difficulty: float
) -> np.ndarray:
    """One character, white on black: (size, size) uint8."""
    font = load_font(FONTS[rng.integers(len(FONTS))], size)
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (size, size))
    ImageDraw.Draw(canvas).text(
        ((size - left - right) / 2, (size - top - bottom) / 2),
        character,
        fill=255,
        font=font,
        stroke_width=difficulty * rng.uniform(0, size / 20),
    )
    return np.asarray(canvas)


def warp(
    rng: np.random.Generator, image: np.ndarray, difficulty: float
) -> np.ndarray:
    """Turns, shears, scales and moves, then wobbles like rubber."""
    size = len(image)
    angle, shear = difficulty * rng.uniform(-0.35, 0.35, 2)
    zoom = 1.0 + difficulty * rng.uniform(-0.35, 0.25)
    aspect = 1.0 + difficulty * rng.uniform(-0.25, 0.25)
    matrix = zoom * np.array(
        [
            [aspect * np.cos(angle), -np.sin(angle) + shear],
            [np.sin(angle), np.cos(angle) / aspect],
        ]
    )
    grid = np.mgrid[:size, :size][::-1].reshape(2, -1) - (size - 1) / 2
    shift = size * (0.5 + difficulty * rng.uniform(-0.1, 0.1, (2, 1)))
    coordinates = (matrix @ grid + shift).reshape(2, size, size)
    knots = difficulty * size * rng.uniform(-0.06, 0.06, (5, 5, 2))
    wobble = cv2.resize(knots, (size, size), interpolation=cv2.INTER_CUBIC)
    coordinates += wobble.transpose(2, 0, 1)
    x, y = coordinates.astype(np.float32)
    return cv2.remap(image, x, y, cv2.INTER_LINEAR)


def lose_resolution(
    rng: np.random.Generator, image: np.ndarray, difficulty: float
) -> np.ndarray:
    """Down to as little as 8 pixels a side, and up again."""
    size = len(image)
    smallest = size * (8 / size) ** difficulty
    side = round(np.exp(rng.uniform(np.log(smallest), np.log(size))))
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)


def colour(
    rng: np.random.Generator, image: np.ndarray, difficulty: float
) -> np.ndarray:
    """Ink on paper, from white on black to any two colours, then noise."""
    while True:
        ink, paper = rng.uniform(0, 255, (2, 3))
        if abs(ink.mean() - paper.mean()) > 60:
            break
    ink = 255 + difficulty * (ink - 255)
    paper = difficulty * paper
    share = image[..., None] / 255.0
    noise = rng.normal(0, difficulty * rng.uniform(0, 20), (*image.shape, 3))
    return np.clip(share * ink + (1 - share) * paper + noise, 0, 255)


def render(
    rng: np.random.Generator, label: int, size: int, difficulty: float
) -> np.ndarray:
    """One picture of a character: (size, size, 3), range [0, 255]."""
    image = draw_character(rng, CHARACTERS[label], size, difficulty)
    image = warp(rng, image, difficulty)
    image = lose_resolution(rng, image, difficulty)
    return colour(rng, image, difficulty)


class Characters(keras.utils.PyDataset):
    """Batches of (images, labels); batch i is the same whenever it is drawn."""

    def __init__(self, seed, image_size, steps, batch_size, difficulty):
        super().__init__(workers=2, max_queue_size=16)
        self.seed, self.image_size = seed, image_size
        self.steps, self.batch_size = steps, batch_size
        self.difficulty = difficulty

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        labels = rng.integers(len(CHARACTERS), size=self.batch_size)
        level = self.difficulty(step)
        images = [
            render(rng, label, self.image_size, level) for label in labels
        ]
        return np.stack(images).astype("float32"), labels


def build_model(
    image_size: int, batchnorm_momentum: float
) -> tuple[keras.Model, keras.Model]:
    backbone = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=(image_size, image_size, 3)
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = batchnorm_momentum
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    scores = keras.layers.Dense(len(CHARACTERS))(pooled)
    return keras.Model(backbone.input, scores), backbone


def save_float16(backbone: keras.Model, path: Path) -> None:
    keras.config.set_dtype_policy("float16")
    half = keras.applications.EfficientNetB0(
        weights=None, include_top=False, input_shape=backbone.input_shape[1:]
    )
    half.set_weights([w.astype("float16") for w in backbone.get_weights()])
    half.save_weights(path)


def main(
    seed: int,
    image_size: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    batchnorm_momentum: float,
    ramp: float,
) -> None:
    keras.utils.set_random_seed(seed)
    model, backbone = build_model(image_size, batchnorm_momentum)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                0.0,
                decay_steps=steps - warmup_steps,
                warmup_target=learning_rate,
                warmup_steps=warmup_steps,
            ),
            weight_decay=weight_decay,
            global_clipnorm=1.0,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    rest = {"image_size": image_size, "batch_size": batch_size}
    train = Characters(
        seed,
        steps=steps,
        difficulty=lambda i: min(1, i / (ramp * steps)),
        **rest,
    )
    model.fit(train, shuffle=False)
    for name, level in {"clean": 0.0, "hardest": 1.0}.items():
        held_out = Characters(
            seed + 1, steps=64, difficulty=lambda i, d=level: d, **rest
        )
        _, accuracy = model.evaluate(held_out, verbose=0)
        print(f"accuracy on {name} characters: {accuracy:.3f}")
    save_float16(backbone, WEIGHTS)


if __name__ == "__main__":
    main(**yaml.safe_load((HERE / "params.yaml").read_text())["pretrain"])
