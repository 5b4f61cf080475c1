"""`python -m director`: the same as the `director` command."""

from __future__ import annotations

import sys

from director.cli import main

if __name__ == "__main__":
    sys.exit(main())
