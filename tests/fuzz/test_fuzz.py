"""Every reader of files of strangers: whatever the bytes, it reads them or refuses them with an error of our own.

A short round is part of the tests; ``make fuzz`` sets FLEXUNET_FUZZ to the number of mutants of the long one.
"""

import gzip
import io
import itertools
import json
import os
import random
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import SimpleITK
import tifffile
import torch
from PIL import Image
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from flexunet_pl import FlexUNet
from flexunet_pl.checkpoint import read_checkpoint
from flexunet_pl.cli.parser_errors import model_keys
from flexunet_pl.common.errors import DataError, ModelFileError, UserError
from flexunet_pl.interop.config.convert import convert
from flexunet_pl.interop.keras.file import read_keras_file
from flexunet_pl.interop.keras.weights import save_keras_weights
from flexunet_pl.io.arrays import read_array
from flexunet_pl.io.images import read_image
from flexunet_pl.io.masks import read_mask
from flexunet_pl.io.volumes import read_volume
from flexunet_pl.prepare import raw_files
from flexunet_pl.prepare.phantom import PHANTOM_MAP
from flexunet_pl.rgb_map import RgbMap
from flexunet_runtime.dicom import read_picture
from flexunet_runtime.images import decode_image
from flexunet_runtime.onnx_guard import check_one_piece
from tests.dicom import compress, picture, write_object
from tests.fuzz.mutate import mutate

LONG = int(os.environ.get("FLEXUNET_FUZZ", "0"))
KEPT = os.environ.get("FLEXUNET_FUZZ_KEEP")  # folder for the mutants that were read wrongly
SLOWEST_S = 1.0


class Target(NamedTuple):
    """A reader.

    Attributes:
        seeds: Makes files that it reads, in a folder.
        read: Reads a file.
        refuses: The errors that it may raise.
        short: Mutants of the short round.
        share: Of the mutants of the long round.
        suffix: Of its files.
        slowest_s: Seconds that it may take for a mutant.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...]
    short: int
    share: float
    suffix: str
    slowest_s: float = SLOWEST_S


def pictures(folder, *formats):
    rng = np.random.default_rng(137)
    made = []
    arrays = [rng.integers(0, 256, (12, 10, 3), dtype=np.uint8), rng.integers(0, 256, (9, 14), dtype=np.uint8),
              rng.integers(0, 60000, (8, 8)).astype(np.uint16)]  # fmt: skip
    for kind, array in itertools.product(formats, arrays):
        if array.dtype == np.uint16 and kind not in {"PNG", "TIFF"}:
            continue
        for options in ({}, {"compression": "tiff_lzw"}) if kind == "TIFF" else ({}, {"exif": exif()}):
            buffer = io.BytesIO()
            Image.fromarray(array).save(buffer, format=kind, **(options if kind != "BMP" else {}))
            made.append(buffer.getvalue())
    return made


def exif():
    made = Image.Exif()
    made[0x0112] = 6
    return made.tobytes()


def masks(folder):
    index = np.random.default_rng(137).integers(0, 4, (9, 11), dtype=np.uint8)
    made = []
    for saving in (np.savez, np.savez_compressed):
        for array in (index, np.eye(4, dtype=np.uint8)[index]):
            buffer = io.BytesIO()
            saving(buffer, mask=array)
            made.append(buffer.getvalue())
    return made


def checkpoints(folder):
    buffer = io.BytesIO()
    state = {"w": torch.arange(20.0), "b": torch.zeros(3, dtype=torch.int64)}
    plain = {"rgb_map": {"a": [0, 0, 0], "b": [1, 1, 1]}, "image_size": [32, 32], "x": (1.5, None, True)}
    torch.save({"state_dict": state, "hyper_parameters": plain, "epoch": 3, "callbacks": {}}, buffer)
    return [buffer.getvalue()]


def models(folder):
    weights = onnx.numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    nodes = [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    value = [onnx.helper.make_tensor_value_info(n, 1, [1, s]) for n, s in (("x", 2), ("y", 3))]
    graph = onnx.helper.make_graph(nodes, "g", value[:1], value[1:], initializer=[weights])
    model = onnx.helper.make_model(graph)
    onnx.helper.set_model_props(model, {"flexunet": "{}"})
    return [model.SerializeToString()]


def volumes(folder):
    made = []
    for name, packed in itertools.product(("a.nii", "a.mha", "a.nrrd"), (False, True)):
        image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
        SimpleITK.WriteImage(image, str(folder / name), packed)
        made.append((folder / name).read_bytes())
    return made


def nifti(folder):
    return volumes(folder)[:1]


def packed_nifti(folder):
    return [gzip.compress(volumes(folder)[0], mtime=0)]


def mha(folder):
    return volumes(folder)[2:4]


def nrrd(folder):
    return volumes(folder)[4:6]


def bands(folder):
    """A TIFF of four bands, plain and packed."""
    made = []
    for packed in (None, "zlib"):
        tifffile.imwrite(folder / "whole.tif", np.arange(480, dtype=np.uint16).astype(np.uint8).reshape(10, 12, 4),
                         photometric="minisblack", planarconfig="contig", compression=packed)  # fmt: skip
        made.append((folder / "whole.tif").read_bytes())
    return made


def dicom(folder):
    """A radiograph, plain and compressed."""
    made = []
    values = np.random.default_rng(0).integers(0, 4096, (12, 14))
    for syntax in (None, RLELossless, JPEGLSLossless, JPEGLosslessSV1):
        path = folder / "whole.dcm"
        write_object(path, "1.2.840.10008.5.1.4.1.1.1.1", **picture(values))
        if syntax is not None:
            compress(path, syntax)
        made.append(path.read_bytes())
    return made


def arrays(folder):
    made = []
    for array in (np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.zeros((2, 2, 2), np.float32)):
        buffer = io.BytesIO()
        np.save(buffer, array)
        made.append(buffer.getvalue())
    return made


def settings(folder):
    text = """
; a comment
[model]
image_width = 512
num_classes = 3
base_kernels = (9, 9)
activation = "relu"
[train]
learning_rate = 7.0e-5
metrics = ["dice_coef_multiclass"]
[mask]
rgb_map = {(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}
[infer]
images_dir = "./mini_test/images/"
"""
    return [text.encode()]


def configurations(folder):
    return [
        b"model:\n  rgb_map: {a: [0, 0, 0], b: [255, 1, 2]}\n  image_size: &s [32, 32]\ntrainer:\n  x: *s\n",
        b"a: 1",
    ]


def maps(folder):
    return [b"{(0,0,0):0, (255,255,255):1}", b"{(0, 0, 0): 0, (255, 0, 0): 1, (0, 255, 0): 2}"]


def archives(folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"images/{i}.jpg", b"content of a file" * 20)
    return [buffer.getvalue()]


def keras_files(folder):
    made = []
    for ending in ("h5", "weights.h5", "keras"):
        save_keras_weights(FlexUNet(3, 2, 1, (3, 3), 2), folder / f"a.{ending}", (16, 16))
        made.append((folder / f"a.{ending}").read_bytes())
    return made


def read_archive(path):
    raw_files._open_archive.cache_clear()
    files = raw_files.RawFiles(path)
    for name in files.names:
        with files.local(name) as unpacked:
            unpacked.read_bytes()


def read_one_piece(path):
    check_one_piece(path)


TARGETS = {
    "png": Target(lambda f: pictures(f, "PNG"), read_image, (DataError,), 750, 0.12, ".png"),
    "jpeg": Target(lambda f: pictures(f, "JPEG"), read_image, (DataError,), 750, 0.12, ".jpg"),
    "tiff": Target(lambda f: pictures(f, "TIFF"), read_image, (DataError,), 750, 0.12, ".tif"),
    "bmp": Target(lambda f: pictures(f, "BMP"), read_image, (DataError,), 400, 0.04, ".bmp"),
    "bands": Target(bands, lambda p: read_image(p, 4), (DataError,), 400, 0.01, ".tif"),
    "mask": Target(lambda f: pictures(f, "PNG"), lambda p: read_mask(p, PHANTOM_MAP), (DataError,), 400, 0.07, ".png"),
    "npz mask": Target(masks, lambda p: read_mask(p, PHANTOM_MAP), (DataError,), 400, 0.07, ".npz"),
    "image of the service": Target(
        lambda f: pictures(f, "PNG", "JPEG", "TIFF", "BMP"),
        lambda p: decode_image(p.read_bytes()), (UserError,), 700, 0.10, ".bin",
    ),
    "checkpoint": Target(checkpoints, read_checkpoint, (ModelFileError,), 800, 0.06, ".ckpt"),
    "onnx": Target(models, read_one_piece, (UserError,), 700, 0.10, ".onnx"),
    "nifti": Target(nifti, read_volume, (DataError,), 300, 0.03, ".nii"),
    "packed nifti": Target(packed_nifti, read_volume, (DataError,), 300, 0.02, ".nii.gz"),
    "mha": Target(mha, read_volume, (DataError,), 200, 0.01, ".mha"),
    "nrrd": Target(nrrd, read_volume, (DataError,), 200, 0.01, ".nrrd"),
    # a decoder that broke is started anew
    "dicom": Target(dicom, lambda p: read_picture(p, str(p), 1 << 20), (DataError,), 300, 0.03, ".dcm", 10),
    "npy": Target(arrays, read_array, (DataError,), 400, 0.03, ".npy"),
    "ini": Target(settings, lambda p: convert(p.read_bytes().decode("latin-1")), (UserError,), 500, 0.01, ".config"),
    "yaml": Target(configurations, lambda p: model_keys(["-c", str(p)]), (UserError,), 500, 0.01, ".yaml"),
    "rgb_map": Target(maps, lambda p: RgbMap.parse(p.read_bytes().decode("latin-1")), (UserError,), 800, 0.03, ".txt"),
    "archive": Target(archives, read_archive, (UserError,), 400, 0.0095, ".zip"),
    "keras": Target(keras_files, read_keras_file, (ModelFileError,), 6, 0.0005, ".h5", 35),
}  # fmt: skip


def test_the_long_round_is_whole():
    assert sum(target.share for target in TARGETS.values()) == pytest.approx(1, abs=1e-3)


@pytest.mark.fuzz
@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_a_reader_reads_or_refuses_them(name, tmp_path, count):
    target = TARGETS[name]
    seeds = target.seeds(tmp_path)
    for i, seed in enumerate(seeds):  # the seeds themselves are read
        whole = tmp_path / f"seed_{i}{target.suffix if name != 'keras' else ('.h5', '.weights.h5', '.keras')[i]}"
        whole.write_bytes(seed)
        if name not in {"mask", "png", "tiff", "image of the service"}:  # those have some that want a window
            target.read(whole)
    mutants = max(target.short, round(LONG * target.share))
    answer, mutant = tmp_path / "answer.json", tmp_path / f"mutant{target.suffix}"
    child = os.fork()  # readers in C can do worse than raise
    if child == 0:
        try:
            torch.set_num_threads(1)  # those of the parent are not here
            answer.write_text(json.dumps(feed(name, seeds, mutants, mutant)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if not answer.is_file():
        kept = shutil.copy(mutant, KEPT or tmp_path / f"killed{target.suffix}")
        pytest.fail(f"the reader ended its process, with status {status}, by {kept}")
    slowest, faults = json.loads(answer.read_text())
    count("fuzz", mutants - len(faults), mutants, f"mutants of {name}, the slowest {slowest:.2f} s {faults[:5] or ''}")


def feed(name, seeds, mutants, path):
    """Have mutants of some files read; the seconds of the slowest one, and what was wrong."""
    target, rng, slowest, faults = TARGETS[name], random.Random(f"{name} 137"), 0.0, []
    for number in range(mutants):
        path.write_bytes(mutate(seeds, rng))
        problem, seconds = attempt(target, path)
        slowest = max(slowest, seconds)
        if problem is not None:
            kept = Path(KEPT or path.parent) / f"{name} {number}{target.suffix}"
            shutil.copy(path, kept)
            faults.append(f"{kept}: {problem}"[:300])
            if len(faults) > 20:
                break
    return slowest, faults


def attempt(target, path):
    """What is wrong with how a file was read or refused, if anything, and the seconds that it took."""
    problem, began = None, time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(path)
    except target.refuses as error:
        if "\n" in str(error).strip() or not str(error):
            problem = f"no line of its own: {error}"
    except BaseException as error:
        problem = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    if seconds > target.slowest_s:
        problem = f"took {seconds:.1f} s"
    return problem, seconds
