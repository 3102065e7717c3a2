"""Model: an ONNX file that flexunet has exported, ready to run."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.engines import start_engine
from flexunet_runtime.errors import DataError, ModelFileError, UserError
from flexunet_runtime.files import fingerprint_files, is_readable
from flexunet_runtime.images import DICOM_SUFFIXES, SUFFIXES, read_image
from flexunet_runtime.masks import write_mask
from flexunet_runtime.metadata import read_metadata
from flexunet_runtime.onnx_guard import check_one_piece
from flexunet_runtime.postprocess import postprocess
from flexunet_runtime.record import Record
from flexunet_runtime.tiles import Tiling
from flexunet_runtime.window import Window

MAX_SIDE = 32_768  # px; what resizing needs grows with it


def list_images(images: str | Path, out: Path) -> list[Path]:
    """List the images of a folder, or the one file, and see that masks can be written for them.

    Args:
        images: The folder, or the file. Hidden files and files of other kinds are passed over.
        out: Folder for the masks.

    Returns:
        The files, sorted by name.

    Raises:
        UserError: If the output folder holds the images, or two masks would have one name.
    """
    source = Path(images)
    if not source.exists():
        raise UserError(f"{source}: no such folder or image")
    folder = source if source.is_dir() else source.parent
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; name a folder for the masks")
    if out.resolve() == folder.resolve():
        raise UserError(f"{out}: holds the images, which the masks would replace; name another folder for the masks")
    if not source.is_dir():
        return [source]
    known = SUFFIXES | DICOM_SUFFIXES
    found = sorted(p for p in source.iterdir() if p.suffix.lower() in known and not p.name.startswith("."))
    by_stem: dict[str, Path] = {}
    for path in found:
        # some file systems take names for one that differ in case
        twin = by_stem.setdefault(path.stem.casefold(), path)
        if twin is not path:
            raise UserError(f"{path}: its mask would have the name of that of {twin.name}; rename one")
    return [path for path in found if not path.is_dir()]


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
        window: Values that become black and white in images of more than 8 bits and in DICOM.
        metadata: All that the file says of itself.

    Raises:
        ModelFileError: If the file is no such model, or keeps a part of itself in another file.
        UserError: If there is no such engine.
    """

    def __init__(
        self, path: str | Path, engine: str = "onnxruntime", threads: int | None = None, precision: str = "f32"
    ) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelFileError(f"{self.path}: no such file")
        check_one_piece(self.path)
        self._options = engine, precision
        self._engine = start_engine(engine, self.path, threads, precision)
        try:
            found = read_metadata(self._engine.metadata)
        except ValueError as error:
            raise ModelFileError(f"{self.path}: {error}") from error
        self.metadata, self.names, self.colors = found.content, found.names, found.colors
        if self._engine.inputs != ("image",) or not {"mask"} <= set(self._engine.outputs) <= {"mask", "probabilities"}:
            raise ModelFileError(f"{self.path}: has other inputs or outputs than flexunet exports; export it again")
        self.image_size, self.fixed_size = found.image_size, found.fixed_size
        self._steps = found.postprocessing
        self.window = Window.parse(found.volume_window or found.image_window)  # as `flexunet predict` prefers

    def on_one_thread(self) -> "Model":
        """Return the same model, loaded once more, that predicts on the thread that calls it."""
        engine, precision = self._options
        return Model(self.path, engine, 1, precision)

    def read(self, path: str | Path) -> NDArray[np.uint8]:
        """Read an image as the model wants it, shape ``(H, W, 3)``, uint8; see `read_image`."""
        return read_image(path, window=self.window)

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
            UserError: If this one does not.
        """
        if "probabilities" not in self._engine.outputs:
            raise UserError(f"{self.path}: gives no probabilities; export it with --probabilities")
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
            UserError: If the model gives no probabilities, which are what is blended.
        """
        plan = Tiling((image.shape[0], image.shape[1]), self.image_size, overlap)
        if plan.grown == plan.tile:
            return self.predict(image)
        grown = np.pad(image, (*plan.margins, (0, 0)), mode="edge")
        total = np.zeros((len(self.names), *plan.grown), np.float32)
        for here in plan.tiles():
            # to blend logits or their log-softmax is the same: they differ by what all classes have in common
            logs = np.log(np.maximum(self.probabilities(grown[here]), np.float32(1e-38)))
            total[:, *here] += logs * plan.weights
        mask: NDArray[np.uint8] = total.argmax(axis=0).astype(np.uint8)
        return postprocess(mask[plan.inner], self._steps, self.names)

    def predict_folder(
        self, images: str | Path, out: str | Path, *, tiled: bool = False, overwrite: bool = False
    ) -> Iterator[tuple[Path, str]]:
        """Predict each image of a folder, or one file, and write a palette PNG under its stem.

        A folder that was begun with the same model is gone on with: what is there is not predicted again.

        Args:
            images: The folder, or the file.
            out: Folder for the masks.
            tiled: Whether larger images are predicted in tiles.
            overwrite: Whether a folder that is not empty may be written to, and all of it predicted again.

        Yields:
            Path of each image that was left, and what is wrong with it, or "".

        Raises:
            UserError: If masks would replace images or files of others, or each other.
        """
        target = Path(out)
        found = list_images(images, target)
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        record = Record(target, {"model_sha256": digest, "tiled": tiled}, "--overwrite")
        done = record.done() if not overwrite and record.goes_on() else {}
        record.begin(again=overwrite)
        for path in found:
            mark = fingerprint_files([path]) if is_readable(path) else ""
            mask_path = target / f"{path.stem}.png"
            if done.get(path.stem) == mark and mask_path.is_file():
                continue
            try:
                image = self.read(path)
                mask = self.predict_tiled(image) if tiled else self.predict(image)
            except (DataError, MemoryError) as error:
                yield path, str(error)
                continue
            write_mask(mask_path, mask, self.colors)
            record.add(path.stem, mark)
            yield path, ""

    def apply(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Run the model once.

        Args:
            images: Images of one size, shape ``(N, H, W, 3)``, uint8.

        Returns:
            ``mask``, shape ``(N, H, W)``, uint8; and ``probabilities``, ``(N, K, H, W)``, float32, of models that give
            them.

        Raises:
            DataError: If the images have another shape or type, or a size that the model does not take.
            ModelFileError: If the engine fails, or gives no masks of these classes.
            MemoryError: If there is not enough.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DataError(f"images have shape {images.shape} and type {images.dtype}; expected (N, H, W, 3), uint8")
        if self.fixed_size is not None and images.shape[1:3] != self.fixed_size:
            raise DataError(f"image is {images.shape[1:3]} px; this model was exported for {self.fixed_size} alone")
        if max(images.shape[1:3]) > MAX_SIDE:
            raise DataError(
                f"image is {images.shape[2]}x{images.shape[1]} px, over the limit of {MAX_SIDE} a side; tile it"
            )
        try:
            outputs = self._engine.run(np.ascontiguousarray(images))
        except Exception as error:  # each engine raises kinds of its own
            reason = str(error).partition("\n")[0][:200] or type(error).__name__
            if isinstance(error, MemoryError) or "allocate" in reason or "bad_alloc" in reason:
                raise MemoryError("memory ran out while the image was predicted") from error
            raise ModelFileError(f"{self.path}: cannot be run ({reason})") from error
        found = dict(zip(self._engine.outputs, outputs, strict=True))
        self._check(found, images.shape[:3])
        if self._steps:
            found["mask"] = np.stack([postprocess(mask, self._steps, self.names) for mask in found["mask"]])
        return found

    def _check(self, found: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> None:
        """See that the outputs are those of the classes that the file names.

        Raises:
            ModelFileError: If they are not.
        """
        mask, probabilities = found["mask"], found.get("probabilities")
        if mask.shape != shape or mask.dtype != np.uint8:
            raise ModelFileError(
                f"{self.path}: gives masks of shape {mask.shape} and type {mask.dtype}, which are none"
            )
        classes = len(self.names)
        top = int(mask.max(initial=0))
        of_probabilities = (shape[0], classes, *shape[1:])
        if top >= classes or (probabilities is not None and probabilities.shape != of_probabilities):
            raise ModelFileError(f"{self.path}: names {classes} classes, and its network has others; export it again")
