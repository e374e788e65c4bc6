"""Images of any source, decoded, resized, split and packed."""

from thaw.data.dataset import Dataset
from thaw.data.efficientnet import VARIANTS, get_image_size
from thaw.data.origin import warn_of_characters
from thaw.data.splits import SPLITS
from thaw.files.atomic import link_folder, new_folder
from thaw.files.text import write_json
from thaw.prepare.corrections import read_corrections
from thaw.prepare.decoded import DecodedBefore
from thaw.prepare.pack import prepare_dataset
from thaw.prepare.pictures import describe_pictures
from thaw.prepare.sources import OPENING, open_source
from thaw.run import params
from thaw.run.console import say, say_wrote
from thaw.stage.checkpoints import open_checkpoint
from thaw.stage.environment import describe_environment
from thaw.stage.previous import open_previous
from thaw.stage.runner import run_stage

PREPARED = "data/prepared"
CORRECTIONS = "corrections.csv"
DETAILS = "metrics/details/prepare.json"
CLASSES = "plots/classes.csv"


def main() -> None:
    p = params.load()
    source = open_source(**p.prepare.model_dump(include=OPENING))
    say(f"reading {source.size} images, {len(source.classes)} classes")
    image_size = get_image_size(p.backbone.name, p.prepare.image_size)
    if warning := warn_of_characters(
        p.prepare.source, p.backbone.weights, p.backbone.file
    ):
        say(f"warning: {warning}")
    with (
        open_previous() as previous,
        open_checkpoint() as checkpoint,
        new_folder(PREPARED) as folder,
    ):
        before = previous.folder / PREPARED if previous else None
        counts = prepare_dataset(
            source,
            DecodedBefore(before, image_size),
            read_corrections(CORRECTIONS),
            checkpoint,
            image_size=image_size,
            fit=p.prepare.fit,
            validation=p.prepare.validation,
            test=p.prepare.test,
            seed=p.prepare.seed,
            bad_images=p.prepare.bad_images,
            group=p.prepare.group,
            duplicates=p.prepare.duplicates,
        )
        link_folder(checkpoint.folder / "prepared", folder)
        own_size = VARIANTS[p.backbone.name].image_size
        pictures = describe_pictures(Dataset(folder), own_size, p.prepare.fit)
    dataset = Dataset(PREPARED)
    say(*dataset.describe())
    dataset.write_counts(CLASSES)
    sizes = {split: len(dataset.open_labels(split)) for split in SPLITS}
    environment = describe_environment()
    write_json(
        DETAILS,
        {**sizes, **counts, "pictures": pictures, "environment": environment},
    )
    say_wrote(PREPARED, DETAILS, CLASSES)


if __name__ == "__main__":
    run_stage(main)
