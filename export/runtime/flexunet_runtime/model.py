"""Model: an ONNX file that flexunet has exported, ready to run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flexunet_runtime.engines import start_engine
from flexunet_runtime.errors import DataError, ModelFileError, UserError
from flexunet_runtime.images import DICOM_SUFFIXES, SUFFIXES, read_image
from flexunet_runtime.masks import write_mask
from flexunet_runtime.onnx_guard import check_one_piece
from flexunet_runtime.tiles import Tiling
from flexunet_runtime.window import Window


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
        self._engine = start_engine(engine, self.path, threads, precision)
        try:
            self.metadata: dict[str, Any] = json.loads(self._engine.metadata)
            self.names = tuple(map(str, self.metadata["rgb_map"]))
            self.colors = tuple((int(r), int(g), int(b)) for r, g, b in self.metadata["rgb_map"].values())
            height, width = map(int, self.metadata["image_size"])
            fixed = self.metadata.get("fixed_size")
            of_volumes = Window.parse(self.metadata.get("volume_window"))  # which `flexunet predict` prefers too
            self.window = of_volumes or Window.parse(self.metadata.get("image_window"))
            self.fixed_size = (int(fixed[0]), int(fixed[1])) if fixed else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{self.path}: was not exported by flexunet: it does not name its classes") from error
        self.image_size = (height, width)

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
        return mask[plan.inner]

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
            if path.suffix.lower() not in SUFFIXES | DICOM_SUFFIXES or path.name.startswith("."):
                continue
            try:
                image = self.read(path)
                mask = self.predict_tiled(image) if tiled else self.predict(image)
            except (DataError, MemoryError) as error:
                yield path, str(error)
                continue
            write_mask(target / f"{path.stem}.png", mask, self.colors)
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
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise DataError(f"images have shape {images.shape} and type {images.dtype}; expected (N, H, W, 3), uint8")
        if self.fixed_size is not None and images.shape[1:3] != self.fixed_size:
            raise DataError(f"image is {images.shape[1:3]} px; this model was exported for {self.fixed_size} alone")
        return dict(zip(self._engine.outputs, self._engine.run(np.ascontiguousarray(images)), strict=True))
