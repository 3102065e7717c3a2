"""``python -m flexunet_pl`` is the command `flexunet`."""

import sys

from flexunet_pl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
