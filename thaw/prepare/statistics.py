"""Image statistics: what the pixels of one picture are like."""

import cv2
import numpy as np

# OpenCV gets one thread: Thaw calls it from several threads of its own.
cv2.setNumThreads(1)

SAMPLED = (64, 64)  # pixels of a larger picture whose levels are counted

# Shares of the pixels that are darker than the darkest level that counts, and
# than the lightest: a spark in the night is not what a picture shows.
DARKEST, LIGHTEST = 0.01, 0.99

NOISE = 3  # levels by which JPEG makes a channel of grey differ from luma


def measure_pixels(image: np.ndarray) -> dict[str, float]:
    """Those of `FACTS` that follow from a picture's pixels.

    Sharpness is the energy of the Laplacian (Subbarao and Tyan, "Selecting the
    Optimal Focus Measure for Autofocusing and Depth-from-Focus", PAMI 1998)
    over the variance of luma, so that a dim picture is not a blurred one.

    Args:
        image: (H, W, 3) uint8, of one size for all that are compared.
    """
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    edges = cv2.norm(cv2.Laplacian(luma, cv2.CV_16S), cv2.NORM_L2SQR)
    ((mean,),), ((deviation,),) = cv2.meanStdDev(luma)
    energy = luma.size * deviation**2
    if luma.size > SAMPLED[0] * SAMPLED[1]:
        image = cv2.resize(image, SAMPLED, interpolation=cv2.INTER_NEAREST)
        luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    without_colour = cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB)
    counts = cv2.calcHist([luma], [0], None, [256], [0, 256])
    ends = counts.cumsum().searchsorted
    return {
        "grey": cv2.norm(image, without_colour, cv2.NORM_INF) <= NOISE,
        "brightness": mean,
        "darkest": ends(DARKEST * luma.size),
        "lightest": ends(LIGHTEST * luma.size),
        "sharpness": edges / energy if energy else 0,
    }
