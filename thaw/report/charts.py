"""Charts as SVG that takes fonts and colours from the page around it."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholders for CSS variables of the page, which has a light and a dark
# theme.
COLORS = {
    name: f"#0101{number:02d}"
    for number, name in enumerate(
        ("ink", "muted", "line", "head", "finetuned"), start=10
    )
}
# No colour is black or white: matplotlib drops black and takes white for
# background.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "thaw",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": COLORS["ink"],
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["muted"],
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.6,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "legend.frameon": False,
    "legend.fontsize": 9,
}

MOST_NAMES = 20  # of classes beside a heat map
MOST_LETTERS = 24  # of one of them

Row = Mapping[str, str]


def draw_curves(
    title: str,
    column: str,
    curves: Mapping[str, Sequence[Row]],
) -> str:
    """One score of both phases over the epochs, fine-tuning behind the head.

    Args:
        title: of the chart.
        column: of the tables; val_ and its name hold validation.
        curves: phase to a row for each epoch.
    """

    def draw(axes: Axes) -> None:
        first = 1
        for rows in curves.values():
            epochs = np.arange(first, first + len(rows))
            train = [float(row[column]) for row in rows]
            validation = [float(row[f"val_{column}"]) for row in rows]
            label = first == 1
            axes.plot(
                epochs,
                train,
                color=COLORS["muted"],
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                marker="." if len(rows) == 1 else None,
                label="training" if label else None,
            )
            axes.plot(
                epochs,
                validation,
                color=COLORS["finetuned"],
                linewidth=1.8,
                marker="." if len(rows) == 1 else None,
                label="validation" if label else None,
            )
            if not label:
                axes.axvline(first - 0.5, color=COLORS["ink"], linewidth=0.9)
                axes.annotate(
                    "fine-tuning \N{RIGHTWARDS ARROW}",
                    (first - 0.5, 1.02),
                    xycoords=("data", "axes fraction"),
                    ha="right" if first > len(rows) else "left",
                    fontsize=9,
                )
            first += len(rows)
        axes.set_title(title, pad=16)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore
        axes.legend()

    return draw_chart(f"curves-{column}", draw)


def draw_reliability(
    name: str, title: str, bins: Mapping[str, Sequence[Row]]
) -> str:
    """Accuracy over confidence: on the diagonal where a model is honest.

    Args:
        name: of the chart in the page, and of the model's colour.
        title: of the chart.
        bins: what the probabilities are to their table; a point's area grows
            with the images in it.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=COLORS["muted"], linewidth=0.9)
        looks = (
            ("s", COLORS["muted"], "none"),
            ("o", COLORS[name], COLORS[name]),
        )
        for (label, rows), (marker, color, face) in zip(
            bins.items(), looks, strict=True
        ):
            confidence, accuracy, images = (
                np.array([float(row[column]) for row in rows])
                for column in ("confidence", "accuracy", "images")
            )
            axes.scatter(
                confidence,
                accuracy,
                s=14 + 250 * images / images.sum(),
                marker=marker,
                edgecolors=color,
                facecolors=face,
                alpha=0.85,
                label=label,
                clip_on=False,
                zorder=3,
            )
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1),
            xlabel="confidence",
            ylabel="accuracy",
            aspect="equal",
        )
        axes.set_title(title)
        legend = axes.legend(loc="upper left")
        for handle in legend.legend_handles:
            handle.set_sizes([40])  # type: ignore

    return draw_chart(f"reliability-{name}", draw, height=4)


def draw_gain(gain: float, low: float, high: float) -> str:
    """The difference in accuracy and its interval, around no difference."""

    def draw(axes: Axes) -> None:
        reach = 1.15 * max(abs(low), abs(high), 1e-3)
        axes.axvline(0, color=COLORS["ink"], linewidth=1)
        axes.plot([low, high], [0, 0], color=COLORS["finetuned"], linewidth=5)
        axes.plot(
            gain,
            0,
            marker="D",
            markersize=9,
            color=COLORS["finetuned"],
            markeredgecolor=COLORS["ink"],
        )
        axes.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        axes.xaxis.set_major_formatter(
            lambda x, _: (
                f"{x:+.3g}".replace("-", "\N{MINUS SIGN}") if x else "0"
            )
        )
        axes.text(-reach, 0.95, "worse", ha="left", va="top")
        axes.text(reach, 0.95, "better", ha="right", va="top")

    return draw_chart("gain", draw, height=1.1)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> str:
    """A heat map for more classes than a table has room for.

    Args:
        matrix: (classes, classes) int, actual by predicted.
        classes: their names.
    """
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    step = -(-len(classes) // MOST_NAMES)
    ticks = range(0, len(classes), step)
    names = [cut_middle(classes[tick], MOST_LETTERS) for tick in ticks]

    def draw(axes: Axes) -> None:
        # The root, so that a rare confusion is seen. One pixel a cell.
        on_diagonal = np.eye(len(classes), dtype=bool)
        pixels = np.zeros((*matrix.shape, 4))
        pixels[on_diagonal, :3] = np.array([20, 130, 170]) / 255
        pixels[~on_diagonal, :3] = np.array([214, 106, 20]) / 255
        pixels[..., 3] = np.where(matrix, 0.25 + 0.75 * np.sqrt(shares), 0)
        axes.imshow(pixels, interpolation="none")
        axes.grid(visible=False)
        axes.set_xticks(ticks, names, rotation=90)
        axes.set_yticks(ticks, names)
        axes.tick_params(labelsize=7)
        axes.set(xlabel="predicted", ylabel="actual")

    return draw_chart("confusion", draw, width=6.5, height=6.5)


def cut_middle(text: str, most: int) -> str:
    """On one line, its ends kept: names often differ in only one of them."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"


def draw_chart(name: str, draw, width: float = 4.2, height: float = 3) -> str:
    """One chart.

    Args:
        name: unique in the page; it begins every id.
        draw: given axes, draws on them.
        width, height: inches, in which letters have their usual size.
    """
    with (
        matplotlib.rc_context(STYLE),
        warnings.catch_warnings(action="ignore"),  # letters that a font lacks
        io.StringIO() as file,
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(
            file,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
        return adapt_svg(file.getvalue(), name)


def adapt_svg(svg: str, name: str) -> str:
    """Makes matplotlib's SVG safe to inline: unique ids, CSS variables for
    colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for variable, color in COLORS.items():
        svg = svg.replace(f": {color}", f": var(--{variable})")
    return svg.strip()
