"""The places of a configuration that take a class, and what may stand in each: the rules, as data.

`flexunet_pl.common.class_paths` keeps to them.
"""

from dataclasses import dataclass

LIBRARIES = (
    "albumentations",
    "flexunet_pl",
    "lightning",
    "monai",
    "segmentation_models_pytorch",
    "torch",
    "torchmetrics",
    "torchvision",
)


@dataclass(frozen=True)
class Position:
    """A kind of place in a configuration, and what may stand there.

    Attributes:
        name: What stands there, such as "an optimizer".
        bases: Import paths of the classes of which what is named must be a subclass.
        homes: Modules or classes; what is named must be one of them, or lie below one, and be defined there.
        refused: Modules or classes below those that are refused all the same, since their classes read files, call
            functions by name, or reach out of this machine.
        names_paths: Whether arguments may name local files and folders, for what is written there.
        parts: Positions of what the arguments may name; the position itself where there are none.
    """

    name: str
    bases: tuple[str, ...]
    homes: tuple[str, ...]
    refused: tuple[str, ...] = ()
    names_paths: bool = False
    parts: tuple["Position", ...] = ()

    @property
    def rule(self) -> str:
        """The rule in words."""
        return f"{self.name} is a subclass of {' or '.join(self.bases)} from {', '.join(self.homes)}"


NETWORK = Position(
    "a network",
    bases=("torch.nn.Module",),
    homes=(
        "flexunet_pl.models",
        "flexunet_pl.FlexUNet",
        "segmentation_models_pytorch",
        "monai.networks.nets",
        "torchvision.models",
        "torch.nn",
    ),
    refused=(
        "torch.nn.parallel",
        "torch.nn.DataParallel",
        "torch.nn.modules.rnn",  # this and the next: no networks for images, and layers without end by one number
        "torch.nn.modules.transformer",
        "monai.networks.nets.transchex",
    ),
)
LOSS = Position(
    "a loss",
    bases=("torch.nn.Module",),
    homes=("flexunet_pl.losses", "torch.nn", "segmentation_models_pytorch.losses", "monai.losses"),
    refused=("torch.nn.parallel", "torch.nn.DataParallel", "monai.losses.perceptual"),  # which runs code from a hub
)
OPTIMIZER = Position("an optimizer", bases=("torch.optim.Optimizer",), homes=("torch.optim", "monai.optimizers"))
SCHEDULER = Position(
    "a scheduler",
    bases=("torch.optim.lr_scheduler.LRScheduler",),
    homes=("torch.optim", "monai.optimizers", "lightning.pytorch.cli.ReduceLROnPlateau", "flexunet_pl.schedules"),
    names_paths=True,  # names of scores have a slash; no scheduler opens anything
)
TRANSFORM = Position(
    "a transform",
    bases=("albumentations.BasicTransform", "albumentations.BaseCompose"),
    homes=("albumentations", "flexunet_pl.data.transforms"),
    refused=(
        "albumentations.augmentations.mixing.domain_adaptation",  # reads reference images
        "albumentations.augmentations.other.lambda_transform",
        "albumentations.augmentations.text",
        "albumentations.core.hub_mixin",
        "albumentations.core.serialization",
    ),
)
CALLBACK = Position(
    "a callback",
    bases=("lightning.pytorch.Callback",),
    homes=("lightning.pytorch.callbacks", "flexunet_pl.callbacks"),
    names_paths=True,
)
LOGGER = Position(
    "a logger",
    bases=("lightning.pytorch.loggers.Logger",),
    homes=("lightning.pytorch.loggers",),
    # these start programs, or send what they log to a server
    refused=tuple(f"lightning.pytorch.loggers.{name}" for name in ("comet", "litlogger", "mlflow", "neptune", "wandb")),
    names_paths=True,
)
PROFILER = Position(
    "a profiler",
    bases=("lightning.pytorch.profilers.Profiler",),
    homes=("lightning.pytorch.profilers",),
    names_paths=True,
)
ACCELERATOR = Position(
    "an accelerator",
    bases=("lightning.pytorch.accelerators.Accelerator",),
    homes=("lightning.pytorch.accelerators",),
)
PLUGIN = Position(
    "a plugin",  # none that reads or writes checkpoints: flexunet_pl.checkpoint does, and runs nothing from them
    bases=(
        "lightning.pytorch.plugins.Precision",
        "lightning.pytorch.plugins.LayerSync",
        "lightning.fabric.plugins.ClusterEnvironment",
    ),
    homes=("lightning.pytorch.plugins", "lightning.fabric.plugins"),
    refused=("lightning.pytorch.plugins.io", "lightning.fabric.plugins.io"),
)
STRATEGY = Position(
    "a strategy",
    bases=("lightning.pytorch.strategies.Strategy",),
    homes=("lightning.pytorch.strategies",),
    refused=("lightning.pytorch.strategies.deepspeed", "lightning.pytorch.strategies.launchers"),
    parts=(ACCELERATOR, PLUGIN),
)

# by key of the command line; nothing else of a configuration names a class
POSITIONS = {
    "model.network": NETWORK,
    "model.loss": LOSS,
    "model.optimizer": OPTIMIZER,
    "model.scheduler": SCHEDULER,
    "data.train_transform": TRANSFORM,
    "trainer.accelerator": ACCELERATOR,
    "trainer.callbacks": CALLBACK,
    "trainer.logger": LOGGER,
    "trainer.plugins": PLUGIN,
    "trainer.profiler": PROFILER,
    "trainer.strategy": STRATEGY,
}


def importable_places() -> tuple[list[str], list[str]]:
    """Return the modules and classes that any position takes, and those below them that it refuses."""
    homes = {home for position in POSITIONS.values() for home in position.homes}
    refused = {place for position in POSITIONS.values() for place in position.refused}
    return sorted(homes), sorted(refused)
