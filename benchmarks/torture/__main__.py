"""What the tests are too short for: kills, bad files, copies, clones, disks.

python -m benchmarks.torture                      # all, about half an hour
python -m benchmarks.torture --data clothing      # copies of real photographs
python -m benchmarks.torture --only kills --kills 10
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.torture import (
    clones,
    copies,
    disk,
    files,
    interrupts,
    kills,
    mutations,
)

PARTS = {
    "files": files.count_bad_files,
    "copies": copies.count_copies,
    "mutations": mutations.mutate_params,
    "disk": disk.fill_disk,
    "clones": clones.compare_clones,
    "interrupts": interrupts.interrupt_stages,
    "kills": kills.kill_runs,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torture", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--data", type=Path, help="photographs to copy")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            for line in PARTS[name](Path(folder), options):
                print(f"{name}: {line}", flush=True)


if __name__ == "__main__":
    main()
