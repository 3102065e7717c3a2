"""SegmentationTask: network, loss, optimizer, scheduler and scores as one LightningModule."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from flexunet_pl.common.errors import ModelFileError, UserError
from flexunet_pl.data.batch import Batch, PredictBatch
from flexunet_pl.io.images import ImageReader
from flexunet_pl.losses import compute_loss, prepare_loss, weigh_classes
from flexunet_pl.metrics.epoch import SegmentationScores
from flexunet_pl.models.behind import check_temperature, read_steps
from flexunet_pl.models.build import for_pixels, network_spec, size_factor, without_scaling
from flexunet_pl.models.deep_supervision import AuxiliaryHeads
from flexunet_pl.models.ensemble import Ensemble, mean_logits
from flexunet_pl.models.flexunet import FlexUNet
from flexunet_pl.models.inference import Answer, Inference, all_logits, class_logits
from flexunet_pl.models.load import load_model, network_weights, read_saved_model
from flexunet_pl.models.schedule import check_image_size
from flexunet_pl.models.weight_mismatch import explain_mismatch
from flexunet_pl.optimization import (
    OptimizerFactory,
    SchedulerFactory,
    reference_optimizer,
    reference_scheduler,
)
from flexunet_pl.rgb_map import RgbMap
from flexunet_pl.scoring import ScoredModule, log_scores
from flexunet_runtime.postprocess import postprocess
from flexunet_runtime.window import Window


class Prediction(NamedTuple):
    """What the network says of one picture.

    Attributes:
        path: The file.
        slice: Number of the slice, 0 for an image.
        answer: Mask and probabilities at the picture's own size, on the CPU.
    """

    path: str
    slice: int
    answer: Answer


class SegmentationTask(ScoredModule):
    """Trains and scores a segmentation network.

    `hparams`, and so the checkpoint, holds what `test`, `predict` and `load_model` need, as plain values: `rgb_map`,
    `image_size`, `in_channels`, `image_window`, `neighbours`, and the network's class path and arguments, where it
    keeps them.

    Args:
        network: Maps images ``(N, C, H, W)`` to logits ``(N, K, H, W)``; a FlexUNet with its defaults where none is
            given. Any other network is given the pixels divided by 255.
        rgb_map: Ordered mapping ``name: [r, g, b]``, the background first; the order is the class index. The
            original's dict literal ``{(0, 0, 0): 0, ...}`` is read too.
        image_size: Height and width of the images that the network is given.
        in_channels: 3 for R, G, B, 1 for grey; any other number for TIFF files of so many bands, as they are. With
            `neighbours`, those of all slices of a picture.
        image_window: Lowest and highest value of 16-bit and float images, mapped to 0 and 255.
        neighbours: How many slices before a slice, and behind it, are its further channels; on the command line from
            `data.neighbours`.
        patches: Whether the network is given patches of `image_size` at the images' own resolution, rather than whole
            images resized to it; then validation, test and prediction cut images into overlapping tiles.
        loss: Called with logits ``(N, K, H, W)`` and class indices ``(N, H, W)``; cross-entropy where none is given.
        class_weights: Weight of each class in the loss, by name; `flexunet check --out` writes them for a data set as
            class_weights.yaml, ready to be given as one more ``-c``.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer; stepped once an epoch, after validation, or with each batch where that is
            how it counts (`OneCycleLR`, `CyclicLR`, `WarmupStableDecay`). None keeps the rate.
        temperature: What logits are divided by before they become probabilities; `flexunet postprocess` finds it.
        postprocessing: What is done with masks behind the network, in test and prediction: a list of steps, as
            `flexunet postprocess` finds them.
        never_empty: Whether each case that the network was validated on shows more than the background, which
            `flexunet postprocess` sees: then a case in which none is predicted is not to be trusted.
        deep_supervision: Number of coarser levels of the decoder that are trained too, from half the image's size
            down, by heads that nothing but training knows. 0 for none.
        inference: How the network is applied in `predict_step`; once, to the resized image, where nothing is given.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        rgb_map: dict[str, list[int]] | str | None = None,
        image_size: tuple[int, int] = (512, 512),
        in_channels: int = 3,
        image_window: tuple[float, float] | None = None,
        neighbours: int = 0,
        patches: bool = False,
        temperature: float = 1.0,
        postprocessing: list[dict[str, Any]] | None = None,
        never_empty: bool = False,
        loss: nn.Module | None = None,
        class_weights: dict[str, float] | None = None,
        optimizer: OptimizerFactory = reference_optimizer,
        scheduler: SchedulerFactory | None = reference_scheduler,
        deep_supervision: int = 0,
        inference: Inference | None = None,
    ) -> None:
        classes = RgbMap.parse(rgb_map)
        super().__init__(classes.names, optimizer, scheduler)
        self.rgb_map = classes
        self.reader = ImageReader(
            (image_size[0], image_size[1]), in_channels, Window.parse(image_window, "model.image_window"), neighbours
        )
        network = network if network is not None else FlexUNet(in_channels, len(self.rgb_map))
        check_image_size((image_size[0], image_size[1]), size_factor(network))
        self.network = for_pixels(network)
        self.auxiliary = AuxiliaryHeads(
            self.network, deep_supervision, len(self.rgb_map), (1, in_channels, image_size[0], image_size[1])
        )
        self.loss = loss if loss is not None else nn.CrossEntropyLoss()
        prepare_loss(self.loss)
        if class_weights is not None:
            weigh_classes(self.loss, _in_class_order(class_weights, self.rgb_map))
        self.patches = patches
        self.temperature = check_temperature(temperature)
        self.never_empty = never_empty
        self.steps = read_steps(postprocessing, self.rgb_map.names)
        self.inference = (inference if inference is not None else Inference()).as_trained(on_patches=patches)
        # plain values, so that a checkpoint loads with weights_only
        self.save_hyperparameters(
            {
                "network": network_spec(network),
                "rgb_map": self.rgb_map.to_dict(),
                "image_size": list(image_size),
                "in_channels": in_channels,
                "image_window": list(image_window) if image_window is not None else None,
                "neighbours": neighbours,
                "patches": patches,
                "temperature": temperature,
                "postprocessing": [step.plain() for step in self.steps] or None,
                "never_empty": never_empty,
            },
            logger=False,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Compute the logits of every class.

        Args:
            image: Shape ``(N, C, H, W)``, uint8 or float, values in 0..255.

        Returns:
            Logits, shape ``(N, K, H, W)``.
        """
        return mean_logits(self.all_logits(image), len(self.rgb_map))

    def all_logits(self, image: Tensor) -> Tensor:
        """Compute the logits of the network, or of every one of an ensemble.

        Args:
            image: Shape ``(N, C, H, W)``, uint8 or float, values in 0..255.

        Returns:
            Logits, shape ``(N, M * K, H, W)``, those of M networks.

        Raises:
            UserError: If the network has another number of classes than `rgb_map`.
        """
        pixels = image.contiguous(memory_format=self.memory_format)
        logits = class_logits(all_logits(self.network, pixels), len(self.rgb_map))
        members = len(self.network.members) if isinstance(self.network, Ensemble) else 1
        if logits.shape[1] != members * len(self.rgb_map):
            raise UserError(
                f"model.network: gives {logits.shape[1] // members} classes but model.rgb_map has {len(self.rgb_map)}; "
                "set the network's argument for it"
            )
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of a batch and add it to the epoch's scores."""
        with self.auxiliary.watch() as coarse:
            logits: Tensor = self(batch["image"]).float()
        loss = self._score(logits, batch, self.train_scores)
        self.log("train/loss_step", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=len(batch["name"]))
        if self.trainer.is_last_batch:
            log_scores(self, "train", self.train_scores)
        return self.auxiliary.add_losses(loss, coarse, batch["mask"], partial(compute_loss, self.loss))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to the scores of the validation, and return its logits, as `test_step` does."""
        return self._scored_logits(batch, self.val_scores)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Add a batch to the scores of the test.

        Args:
            batch: The batch.
            batch_idx: Its number.

        Returns:
            Logits of those images that count, shape ``(N, M * K, H, W)``, float32; see `all_logits`.
        """
        return self._scored_logits(batch, self.test_scores)

    def _scored_logits(self, batch: Batch, scores: SegmentationScores) -> Tensor:
        logits = self._logits(batch)
        self._score(mean_logits(logits, len(self.rgb_map)), batch, scores)
        return logits[: batch["counted"]]

    def _logits(self, batch: Batch) -> Tensor:
        """Compute `all_logits` of whole images, in tiles where the network knows patches."""
        if self.patches:
            return self.inference.logits(self, batch["image"], self.reader.size)
        return self.all_logits(batch["image"]).float()

    def predict_step(self, batch: PredictBatch, batch_idx: int) -> list[Prediction]:
        """Predict each picture of a batch at its own size, as `inference` says."""
        return self.infer(batch, self.inference)

    def infer(self, batch: PredictBatch, inference: Inference) -> list[Prediction]:
        """Predict each picture of a batch at its own size.

        Args:
            batch: The pictures.
            inference: How the network is applied to them.

        Returns:
            One prediction per picture.
        """
        if not len(batch["image"]):
            return []
        answers = inference.apply(
            self, batch["image"], self.reader.size, batch["size"], len(self.rgb_map), self.temperature
        )
        return [
            Prediction(path, number, self._postprocessed(answer.cpu()))
            for path, number, answer in zip(batch["path"], batch["slice"], answers, strict=True)
        ]

    def _postprocessed(self, answer: Answer) -> Answer:
        if not self.steps:
            return answer
        return answer._replace(mask=torch.from_numpy(postprocess(answer.mask.numpy(), self.steps, self.rgb_map.names)))

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, network: nn.Module | None = None, **settings: Any
    ) -> Self:
        """Load a task for validation, test or prediction; nothing but the network is taken from the file.

        Args:
            checkpoint_path: A checkpoint of this package.
            network: The network to fill, as for `load_model`.
            settings: Arguments of the task to set, such as the loss; the file's own are not used.

        Returns:
            The task, in eval mode, on the CPU.

        Raises:
            ModelFileError: If the file is no checkpoint of this package, or its weights do not fit the network.
        """
        saved = read_saved_model(checkpoint_path)
        trained = saved.build() if network is None else load_model(checkpoint_path, network)
        return cls(without_scaling(trained), **{**saved.settings, **settings}).eval()

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights and half-written scores.

        Raises:
            ModelFileError: If they do not fit this network.
        """
        if why := explain_mismatch(self.network, network_weights(state_dict)):
            raise ModelFileError(f"the checkpoint cannot be used: {why}")
        try:
            # of the rest, the scores of half an epoch are there or not
            return super().load_state_dict(state_dict, strict=False, assign=assign)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ModelFileError(f"the checkpoint cannot be used: {str(error).splitlines()[0]}") from error


def _in_class_order(weights: Mapping[str, float], rgb_map: RgbMap) -> list[float]:
    if set(weights) != set(rgb_map.names) or not all(0 <= weight < float("inf") for weight in weights.values()):
        raise UserError(
            f"model.class_weights is {dict(weights)}; expected a weight of at least 0 for each of "
            f"{', '.join(rgb_map.names)}"
        )
    if not weights[rgb_map.names[0]]:  # the mean over a picture of background alone would be 0 / 0
        raise UserError(f"model.class_weights.{rgb_map.names[0]} is 0; give the background a small weight")
    return [float(weights[name]) for name in rgb_map.names]
