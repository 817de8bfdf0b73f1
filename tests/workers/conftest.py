"""The modules of tests/encoders are for the tests here, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "encoders"))
