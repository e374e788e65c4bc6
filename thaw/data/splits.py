"""The splits: their names, and what is special about each."""

SPLITS = ("train", "validation", "test")
TRAINED = ("train", "validation")  # evaluate alone reads test
SPLIT_NAMES = {  # of folders, and of splits of TensorFlow Datasets
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}


def count_views(split: str, views: int) -> int:
    """Views of each image of a split: train has `views`, the others one."""
    return views if split == "train" else 1
