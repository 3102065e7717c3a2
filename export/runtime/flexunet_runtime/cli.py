"""The command line of the runtime."""

import argparse
import sys
from pathlib import Path

from flexunet_runtime.engines import ENGINES
from flexunet_runtime.errors import UserError
from flexunet_runtime.model import Model


def main() -> int:
    """Run the command line; returns 0, 1 where an image could not be used, or 2 where nothing could be begun."""
    parser = argparse.ArgumentParser(prog="flexunet_runtime", description="Write a mask for each image of a folder.")
    parser.add_argument("model", help="ONNX file that flexunet export has written")
    parser.add_argument("images", help="folder of images, or one image")
    parser.add_argument("out", help="folder for the masks, palette PNGs")
    parser.add_argument("--tiled", action="store_true", help="predict larger images in tiles, at their own resolution")
    parser.add_argument("--engine", default="onnxruntime", choices=ENGINES)
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"), help="of OpenVINO")
    parser.add_argument("--threads", type=int, help="by default those of the machine")
    given = parser.parse_args()
    if not Path(given.images).exists():
        sys.stderr.write(f"flexunet_runtime: {given.images}: no such folder or image\n")
        return 2
    try:
        model = Model(given.model, given.engine, given.threads, given.precision)
    except UserError as error:
        sys.stderr.write(f"flexunet_runtime: {error}\n")
        return 2
    results = list(model.predict_folder(given.images, given.out, tiled=given.tiled))
    failed = [problem for _, problem in results if problem]
    for problem in failed:
        sys.stderr.write(f"failed: {problem}\n")
    sys.stderr.write(f"{len(results) - len(failed)} masks written to {given.out}\n")
    return 1 if failed or not results else 0
