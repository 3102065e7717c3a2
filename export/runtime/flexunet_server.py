"""The service under its earlier name; now ``python -m flexunet_runtime.server``."""

import sys

from flexunet_runtime.server import main

if __name__ == "__main__":
    sys.exit(main())
