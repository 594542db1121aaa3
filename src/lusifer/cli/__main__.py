"""`python -m lusifer.cli` does what `lusifer` does."""

import sys

from lusifer.cli import main

sys.exit(main())
