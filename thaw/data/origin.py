"""Words for where images come from."""

from pathlib import Path

# The checkpoint in Git, made for trying the pipeline.
CHARACTERS = "efficientnetb0-characters-64px.weights.h5"


def name_source(source: str, path: str, name: str | None) -> str:
    """What names the images: a folder, a set of TFDS, or digits.

    Args:
        source, path, name: of the section `prepare`.
    """
    return {"tfds": name or "", "digits": "digits"}.get(source, path)


def warn_of_characters(
    source: str, weights: str | None, file: str
) -> str | None:
    """A sentence where photographs meet the bundled checkpoint.

    Args:
        source: of the section `prepare`.
        weights, file: of the section `backbone`.
    """
    bundled = weights == "file" and Path(file).name == CHARACTERS
    if not bundled or source == "digits":
        return None
    return (
        "the bundled checkpoint has seen printed characters only; for "
        "photographs, backbone.weights=imagenet"
    )
