"""``python -m fluoronav``, where the command is not on the path."""

import sys

from fluoronav.cli import main

sys.exit(main())
