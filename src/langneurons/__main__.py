"""`python -m langneurons`: the command line, where its script is not on the path."""

import sys

from langneurons.cli import main

sys.exit(main())
