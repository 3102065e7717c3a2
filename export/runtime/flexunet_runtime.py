"""Masks from images by an ONNX file that flexunet has exported. Needs numpy, Pillow and onnxruntime; no torch.

python -m flexunet_runtime model.onnx images/ masks/

model = Model("model.onnx")
mask = model.predict(read_image("slice.png"))  # class index per pixel; model.names, model.colors say which
"""

import argparse
import io
import json
import mmap
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__version__ = "0.1.0"

MAX_PIXELS = 50_000_000  # checked before decoding: a small file can declare billions of pixels
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_PLAIN = frozenset({"1", "L", "P", "RGB"})
_ALPHA = frozenset({"LA", "PA", "RGBA", "La", "RGBa"})
_WIDE = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


class UnusableError(ValueError):
    """A model or an image cannot be used. The message is one line and says why."""


class TooLargeError(UnusableError):
    """An image has more pixels than are allowed."""


class NoImageError(UnusableError):
    """A file is no image of a kind that is read."""


class Model:
    """A model file, ready to run.

    Args:
        path: The ONNX file.
        engine: ``onnxruntime``, or ``openvino`` where that is installed.
        threads: Threads of a prediction; by default those of the machine.
        precision: For OpenVINO: ``f32``, or ``bf16`` on machines that have it.

    Attributes:
        names: Of the classes, the background first; a mask holds their numbers.
        colors: Of the classes, R, G, B.
        image_size: Height and width of the network's images; also of a tile.
        metadata: All that the file says of itself.

    Raises:
        UnusableError: If the file is no such model, or keeps a part of itself in another file.
    """

    def __init__(
        self, path: str | Path, engine: str = "onnxruntime", threads: int | None = None, precision: str = "f32"
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UnusableError(f"{self.path}: no such file")
        check_one_piece(self.path)
        start = {"onnxruntime": _start_onnxruntime, "openvino": _start_openvino}.get(engine)
        if start is None:
            raise UnusableError(f"there is no engine {engine}; use onnxruntime or openvino")
        self._run, self._outputs, text = start(self.path, threads, precision)
        try:
            self.metadata: dict[str, Any] = json.loads(text)
            self.names = tuple(map(str, self.metadata["rgb_map"]))
            self.colors = tuple((int(r), int(g), int(b)) for r, g, b in self.metadata["rgb_map"].values())
            height, width = map(int, self.metadata["image_size"])
            window, fixed = self.metadata.get("image_window"), self.metadata.get("fixed_size")
            self.window = (float(window[0]), float(window[1])) if window else None
            self.fixed_size = (int(fixed[0]), int(fixed[1])) if fixed else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnusableError(f"{self.path}: was not exported by flexunet: it does not name its classes") from error
        self.image_size = (height, width)

    def read(self, path: str | Path) -> NDArray[np.uint8]:
        """Read an image as the model wants it; see `read_image`."""
        return read_image(path, self.window)

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class index per pixel, shape ``(H, W)``, of an image ``(H, W, 3)``, uint8."""
        mask: NDArray[np.uint8] = self.predict_batch(image[None])[0]
        return mask

    def predict_batch(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class index per pixel, shape ``(N, H, W)``, of images of one size, ``(N, H, W, 3)``, uint8."""
        mask: NDArray[np.uint8] = self.apply(images)["mask"]
        return mask

    def probabilities(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, shape ``(K, H, W)``, of an image ``(H, W, 3)``; for models that give them.

        Raises:
            UnusableError: If this one does not.
        """
        if "probabilities" not in self._outputs:
            raise UnusableError(f"{self.path}: gives no probabilities; export it with --probabilities")
        found: NDArray[np.float32] = self.apply(image[None])["probabilities"][0]
        return found

    def predict_tiled(self, image: NDArray[np.uint8], overlap: float = 0.25) -> NDArray[np.uint8]:
        """Predict an image larger than the network's at its own resolution, in tiles that are blended.

        Args:
            image: Shape ``(H, W, 3)``, uint8.
            overlap: Share of a tile's side that it has in common with the next.

        Returns:
            Class index per pixel, shape ``(H, W)``: what ``flexunet predict --inference.tiled true`` gives.

        Raises:
            UnusableError: If the model gives no probabilities, which are what is blended.
        """
        height, width = image.shape[:2]
        tile = self.image_size
        if height <= tile[0] and width <= tile[1]:
            return self.predict(image)
        grown = (max(height, tile[0]), max(width, tile[1]))
        margins = [((n - m) // 2, n - m - (n - m) // 2) for n, m in zip(grown, (height, width), strict=True)]
        image = np.pad(image, (*margins, (0, 0)), mode="edge")
        weight = _gaussian(tile)
        total = np.zeros((len(self.names), *grown), np.float32)
        for y in _starts(grown[0], tile[0], overlap):
            for x in _starts(grown[1], tile[1], overlap):
                here = slice(y, y + tile[0]), slice(x, x + tile[1])
                # to blend logits or their log-softmax is the same: they differ by what all classes have in common
                logs = np.log(np.maximum(self.probabilities(image[here]), np.float32(1e-38)))
                total[:, here[0], here[1]] += logs * weight
        mask: NDArray[np.uint8] = total.argmax(axis=0).astype(np.uint8)
        return mask[margins[0][0] : margins[0][0] + height, margins[1][0] : margins[1][0] + width]

    def predict_folder(self, images: str | Path, out: str | Path, *, tiled: bool = False) -> Iterator[tuple[Path, str]]:
        """Predict each image of a folder, or one file, and write a palette PNG under its stem.

        Args:
            images: The folder, or the file.
            out: Folder for the masks.
            tiled: Whether larger images are predicted in tiles.

        Yields:
            Each image's path, and what is wrong with it, or "".
        """
        source, target = Path(images), Path(out)
        target.mkdir(parents=True, exist_ok=True)
        for path in [source] if source.is_file() else sorted(source.iterdir()):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            try:
                image = self.read(path)
                mask = self.predict_tiled(image) if tiled else self.predict(image)
            except UnusableError as error:
                yield path, str(error)
                continue
            save_mask(target / f"{path.stem}.png", mask, self.colors)
            yield path, ""

    def apply(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            images: Images of one size, shape ``(N, H, W, 3)``, uint8.

        Returns:
            ``mask``, shape ``(N, H, W)``, uint8; and ``probabilities``, ``(N, K, H, W)``, float32, of models that give
            them.

        Raises:
            UnusableError: If the images have another shape or type, or a size that the model does not take.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise UnusableError(
                f"images have shape {images.shape} and type {images.dtype}; expected (N, H, W, 3), uint8"
            )
        if self.fixed_size is not None and images.shape[1:3] != self.fixed_size:
            raise UnusableError(f"image is {images.shape[1:3]} px; this model was exported for {self.fixed_size} alone")
        return dict(zip(self._outputs, self._run(np.ascontiguousarray(images)), strict=True))


def read_image(path: str | Path, window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Read an image by the policy of flexunet: PNG, JPEG, TIFF, BMP, whole files only.

    Args:
        path: The file.
        window: Lowest and highest value of 16-bit and float images, mapped to 0 and 255.

    Returns:
        Shape ``(H, W, 3)``, uint8.

    Raises:
        UnusableError: If it is missing, damaged, too large, transparent, CMYK, or has several frames.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            return _read(file, str(place), window, MAX_PIXELS)
    except FileNotFoundError as error:
        raise UnusableError(f"{place}: no such file") from error
    except OSError as error:
        raise UnusableError(f"{place}: cannot be read ({error.strerror})") from error


def decode_image(
    content: bytes, window: tuple[float, float] | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode the content of an image file by the same policy.

    Args:
        content: What the file holds.
        window: Lowest and highest value of 16-bit and float images.
        max_pixels: Most pixels, looked at before they are decoded.

    Returns:
        Shape ``(H, W, 3)``, uint8.

    Raises:
        UnusableError: See `read_image`; `TooLargeError` and `NoImageError` are kinds of it.
    """
    return _read(io.BytesIO(content), "image", window, max_pixels)


def _read(file: IO[bytes], name: str, window: tuple[float, float] | None, max_pixels: int) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_FORMATS) as image:
                return _decode(file, name, image, window, max_pixels)
    except UnusableError:
        raise
    except UnidentifiedImageError as error:
        raise NoImageError(f"{name}: is no PNG, JPEG, TIFF or BMP image") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name}: declares far more than {max_pixels / 1e6:g} megapixels") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise UnusableError(f"{name}: damaged or truncated ({str(error).partition(chr(10))[0]})") from error


def _decode(
    file: IO[bytes], name: str, image: Image.Image, window: tuple[float, float] | None, max_pixels: int
) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > max_pixels:
        raise TooLargeError(f"{name}: {width}x{height} px is over the limit of {max_pixels / 1e6:g} megapixels")
    if getattr(image, "n_frames", 1) > 1:
        raise UnusableError(f"{name}: holds several frames; save the one you want as its own file")
    wide = image.mode in _WIDE
    if not wide and image.format in {"PNG", "TIFF"} and ";16" in str(getattr(image, "tile", "")):
        raise UnusableError(f"{name}: has 16 bits in each of several channels; save it as 16-bit greyscale")
    if image.mode not in _PLAIN | _ALPHA | _WIDE:
        raise UnusableError(f"{name}: colour mode {image.mode} is not supported; convert it to RGB or greyscale")
    image.load()
    if image.format == "PNG" and not _has_end(file):
        raise UnusableError(f"{name}: damaged or truncated (no end mark)")
    ImageOps.exif_transpose(image, in_place=True)
    if wide:
        values = np.asarray(image).astype(np.float64)
        if window is None or not np.isfinite(values).all():
            raise UnusableError(f"{name}: has more than 8 bits per pixel, and the model knows no window for it")
        low, high = window
        grey = np.rint((values.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in _ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] != 255:
            raise UnusableError(f"{name}: has transparent pixels; flatten it onto a background first")
    return np.asarray(image.convert("RGB"))


def _has_end(file: IO[bytes]) -> bool:
    """Tell whether a PNG file is whole: Pillow is content with one that lacks its end."""
    file.seek(0)
    return b"IEND\xaeB`\x82" in file.read()


def encode_mask(mask: NDArray[np.uint8], colors: Iterable[tuple[int, int, int]]) -> bytes:
    """Return class indices as a palette PNG.

    Args:
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.
    """
    picture = Image.fromarray(mask)
    picture.putpalette([level for color in colors for level in color])
    return _png(picture)


def encode_overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colors: Iterable[tuple[int, int, int]], opacity: float = 0.4
) -> bytes:
    """Return an image as PNG, its classes but for the background tinted.

    Args:
        image: Shape ``(H, W, 3)``, uint8.
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.
        opacity: Of the tint, 0 to 1.
    """
    picture = Image.fromarray(image)
    palette = Image.fromarray(mask)
    palette.putpalette([level for color in colors for level in color])
    shown = Image.fromarray(((mask > 0) * round(opacity * 255)).astype(np.uint8))
    picture.paste(palette.convert("RGB"), mask=shown)
    return _png(picture)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)  # the default takes six times as long for a tenth less
    return buffer.getvalue()


def save_mask(path: str | Path, mask: NDArray[np.uint8], colors: Iterable[tuple[int, int, int]]) -> None:
    """Write class indices as a palette PNG, beside its name first and then moved into place.

    Args:
        path: The file.
        mask: Class index per pixel, shape ``(H, W)``, uint8.
        colors: Of the classes.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(encode_mask(mask, colors))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _start_onnxruntime(path: Path, threads: int | None, precision: str) -> tuple[Any, list[str], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # it plans memory for one size of images, and keeps a plan for each that comes
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it raises a dozen kinds of its own
        raise UnusableError(
            f"{path}: is no model that onnxruntime can run ({str(error).partition(chr(10))[0]})"
        ) from error
    names = [output.name for output in session.get_outputs()]
    text = session.get_modelmeta().custom_metadata_map.get("flexunet", "")
    return lambda images: session.run(names, {"image": images}), names, text


def _start_openvino(path: Path, threads: int | None, precision: str) -> tuple[Any, list[str], str]:
    try:
        import openvino
    except ImportError as error:
        raise UnusableError("openvino is not installed; pip install openvino") from error
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(path)
        text = str(model.get_rt_info(["framework", "flexunet"]).value)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise UnusableError(
            f"{path}: is no model that openvino can run ({str(error).partition(chr(10))[0]})"
        ) from error
    names = [output.get_any_name() for output in compiled.outputs]
    return lambda images: [compiled(images)[i].copy() for i in range(len(names))], names, text


# kinds of message in an ONNX file that can hold tensors, and which of their fields hold what; sparse tensors are none
# of ours
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
_SPARSE = {("graph", 15), ("attribute", 22), ("attribute", 23)}
_TYPE, _RAW = 2, 9  # fields of a tensor: the type of its numbers, and their bytes
_FLOATS = {1: "<f4", 10: "<f2", 11: "<f8"}
_WIDTHS = {1: 8, 2: 0, 5: 4}  # bytes of a field by its wire type; of the second kind it says so itself
_EXTERNAL = (13, 14)  # fields of a tensor that name another file, and say that there is one
_DEEPEST = 50
_CHUNK = 1 << 24  # bytes that are looked at at a time


def check_one_piece(path: Path) -> None:
    """Refuse a model that keeps tensors in other files, which could be any of the machine, or has damaged weights.

    Args:
        path: The ONNX file.

    Raises:
        UnusableError: If it does, or is no ONNX file.
    """
    with path.open("rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _walk(path, content, (0, len(content)), "model", 0)
        except UnusableError:
            raise
        except ValueError as error:
            raise UnusableError(f"{path}: is no ONNX file, or only a part of one") from error


def _walk(path: Path, content: mmap.mmap, span: tuple[int, int], kind: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise UnusableError(f"{path}: is nested too deep")
    numbers, raw = 0, (0, 0)
    for field, value in _fields(content, *span):
        if (kind, field) in _SPARSE:
            raise UnusableError(f"{path}: has sparse tensors, which flexunet does not export")
        if kind == "tensor" and field in _EXTERNAL and value != 0:
            raise UnusableError(f"{path}: keeps weights in another file; refused: a model must be one file")
        if isinstance(value, int):
            numbers = value if field == _TYPE else numbers
        elif field in _MESSAGES[kind]:
            _walk(path, content, value, _MESSAGES[kind][field], depth + 1)
        elif field == _RAW:
            raw = value
    if kind == "tensor" and raw[1] - raw[0] > 8 and not _is_finite(content, raw, _FLOATS.get(numbers)):
        raise UnusableError(f"{path}: has weights that are not finite; it is damaged, or its training was")


def _is_finite(content: mmap.mmap, raw: tuple[int, int], numbers: str | None) -> bool:
    chunks = (content[start : min(start + _CHUNK, raw[1])] for start in range(*raw, _CHUNK))
    return numbers is None or all(np.isfinite(np.frombuffer(chunk, numbers)).all() for chunk in chunks)


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Give the fields of a protobuf message: number, and value or where the bytes lie.

    Raises:
        ValueError: If it is none.
    """
    while at < end:
        tag, at = _number(content, at, end)
        wire = tag & 7
        if wire == 0:
            value, at = _number(content, at, end)
            yield tag >> 3, value
            continue
        if wire not in _WIDTHS:
            raise ValueError("no such wire type")
        length, at = (_WIDTHS[wire], at) if wire != 2 else _number(content, at, end)
        if at + length > end:
            raise ValueError("cut short")
        yield tag >> 3, (at, at + length)
        at += length


def _number(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("cut short")


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where tiles begin: at equal steps, the last one at the end."""
    step = max(1, int(tile * (1 - overlap)))
    return [min(i * step, length - tile) for i in range(-(-(length - tile) // step) + 1)]


def _gaussian(tile: tuple[int, int]) -> NDArray[np.float32]:
    """Return the weights of a tile's pixels: a Gaussian whose width is an eighth of the side."""
    lines = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (n / 8) ** 2)).astype(np.float32) for n in tile]
    weight: NDArray[np.float32] = lines[0][:, None] * lines[1][None]
    return np.maximum(weight, max(float(weight[weight > 0].min()), 1e-3))


def main() -> int:
    """Run the command line; returns 0, 1 where an image could not be used, or 2 where nothing could be begun."""
    parser = argparse.ArgumentParser(prog="flexunet_runtime", description="Write a mask for each image of a folder.")
    parser.add_argument("model", help="ONNX file that flexunet export has written")
    parser.add_argument("images", help="folder of images, or one image")
    parser.add_argument("out", help="folder for the masks, palette PNGs")
    parser.add_argument("--tiled", action="store_true", help="predict larger images in tiles, at their own resolution")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--precision", default="f32", choices=("f32", "bf16"), help="of OpenVINO")
    parser.add_argument("--threads", type=int, help="by default those of the machine")
    given = parser.parse_args()
    if not Path(given.images).exists():
        sys.stderr.write(f"flexunet_runtime: {given.images}: no such folder or image\n")
        return 2
    try:
        model = Model(given.model, given.engine, given.threads, given.precision)
    except UnusableError as error:
        sys.stderr.write(f"flexunet_runtime: {error}\n")
        return 2
    results = list(model.predict_folder(given.images, given.out, tiled=given.tiled))
    failed = [problem for _, problem in results if problem]
    for problem in failed:
        sys.stderr.write(f"failed: {problem}\n")
    sys.stderr.write(f"{len(results) - len(failed)} masks written to {given.out}\n")
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main())
