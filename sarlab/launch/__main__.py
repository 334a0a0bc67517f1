"""``python -m sarlab.launch`` and ``accelerate launch -m sarlab.launch``."""

import sys

from sarlab.launch.run import main

if __name__ == "__main__":
    sys.exit(main())
