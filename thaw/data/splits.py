"""Which image belongs to which split."""

SPLITS = ("train", "validation", "test")
TRAINED = ("train", "validation")  # the test split is read by evaluate alone
SPLIT_NAMES = {  # of folders, and of splits of TensorFlow Datasets
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
