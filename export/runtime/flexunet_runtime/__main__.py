"""python -m flexunet_runtime model.onnx images/ masks/."""

import sys

from flexunet_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main())
