"""``python -m umscosod`` is ``umscosod``; ``torchrun`` starts it so."""

import sys

from umscosod.cli import main

if __name__ == "__main__":
    sys.exit(main())
