"""Images of any source, decoded, resized, split and packed."""

from thaw import params
from thaw.console import run_stage, say, say_wrote
from thaw.dataset import Dataset
from thaw.files import new_folder
from thaw.preparation import prepare_dataset
from thaw.sources import open_source

PREPARED = "data/prepared"


def main() -> None:
    p = params.load()
    source = open_source(
        p.prepare.source, p.prepare.path, p.prepare.name, p.prepare.data_dir
    )
    say(f"reading {source.size} images, {len(source.classes)} classes")
    with new_folder(PREPARED) as folder:
        prepare_dataset(
            source,
            folder,
            image_size=p.image_size,
            fit=p.prepare.fit,
            validation=p.prepare.validation,
            test=p.prepare.test,
            seed=p.prepare.seed,
            bad_images=p.prepare.bad_images,
        )
    say(*Dataset(PREPARED).describe())
    say_wrote(PREPARED)


if __name__ == "__main__":
    run_stage(main)
