"""The helpers beside the tests are found by name, also where pytest imports without a path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
