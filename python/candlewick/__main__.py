"""``python -m candlewick`` is ``candlewick``."""

import sys

from candlewick.cli import main

sys.exit(main())
