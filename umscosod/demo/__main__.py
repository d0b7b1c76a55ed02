"""Write the demo pictures: ``python -m umscosod.demo OUT``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from umscosod.demo.compose import DemoGroup, make_groups
from umscosod.errors import UmscosodError, count_of


def main(out: Path, seed: int = 0) -> list[DemoGroup]:
    """Write the default groups and say where they are (see `make_groups` for arguments and errors)."""
    made = make_groups(out, seed=seed)
    count = sum(len(group.images) for group in made)
    sys.stdout.write(
        f"{count_of(count, 'picture')} in {count_of(len(made), 'group')}: {out / 'image'}\n"
        f"masks to score against: {out / 'gt'}\n"
    )
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m umscosod.demo", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that gets image/GROUP/NAME.jpg and gt/GROUP/NAME.png")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: 0)")
    given = parser.parse_args()
    try:
        main(given.out, given.seed)
    except UmscosodError as error:
        parser.exit(1, f"{error}\n")
