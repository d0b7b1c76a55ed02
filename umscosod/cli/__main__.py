"""``python -m umscosod.cli`` is ``umscosod``."""

import sys

from umscosod.cli import main

if __name__ == "__main__":
    sys.exit(main())
