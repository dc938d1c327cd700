"""`python -m tinv` is the same as `tinv`."""

import sys

from tinv.cli import main

sys.exit(main())
