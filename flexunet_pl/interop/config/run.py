"""The settings of folders, augmentation, training and inference: [train], [valid], [test], [infer], [augmentor]."""

from pathlib import PurePosixPath

from flexunet_pl.interop.config import readers as read
from flexunet_pl.interop.config.augmentor import SECTIONS as AUGMENTOR_SECTIONS
from flexunet_pl.interop.config.augmentor import convert_augmentor
from flexunet_pl.interop.config.settings import Settings


def _folders(settings: Settings) -> None:
    given = {}
    for split in ("train", "valid", "test"):
        for kind in ("images", "masks"):
            taken = settings.take(split, f"{kind}_dir", read.PATH)
            if taken.setting is not None:
                given[split, kind] = taken
    ends = {place: PurePosixPath(taken.value).parts[-2:] for place, taken in given.items()}
    roots = {PurePosixPath(taken.value).parent.parent for taken in given.values()}
    if len(roots) == 1 and all(place == end for place, end in ends.items()):
        settings.put("data.root", str(roots.pop()), "; ".join(taken.origin for taken in given.values()))
        settings.conversion.paths.append("data.root")
    elif given:
        settings.remark(
            "the folders of images and masks do not lie as <root>/{train,valid,test}/{images,masks}, which is how they "
            "must lie here; arrange them so and set data.root",
            *(taken.setting for taken in given.values()),
        )


def _augmentation(settings: Settings) -> None:
    generator = settings.take("model", "generator", read.BOOLEAN, default=False)
    online = settings.take("generator", "augmentation", read.BOOLEAN, default=True)
    settings.put("data.train_transform", None, generator.origin)
    if generator.value and online.value:
        convert_augmentor(settings)
        return
    off = "[generator] augmentation" if generator.value else "[model] generator"
    for section in AUGMENTOR_SECTIONS:
        unused = settings.take_section(section)
        if unused:
            settings.remark(f"[{section}]: not used, {off} is off", *unused)
    if not generator.value and online.setting is not None:
        settings.remark("[generator] augmentation is not used: [model] generator is off", online.setting)


def _training(settings: Settings) -> None:
    epochs = settings.take("train", "epochs", read.COUNT, 100)
    batch_size = settings.take("train", "batch_size", read.COUNT, 4)
    settings.put("data.batch_size", batch_size.value, batch_size.origin)
    settings.put("trainer.max_epochs", epochs.value, epochs.origin)
    patience = settings.take("train", "patience", read.INTEGER, 10)
    if patience.value > 0:
        settings.put("early_stopping.patience", patience.value, patience.origin)
    else:
        settings.put(
            "early_stopping.patience", epochs.value, f"{patience.origin} is {patience.value}: no early stopping"
        )
    for key in ("epoch_change_tiledinfer", "epoch_change_tiled_infer"):  # both are seen
        tiled = settings.take("train", key, read.BOOLEAN, default=False)
        if tiled.value:
            settings.put("epoch_change.tiled", value=True, origin=tiled.origin)
    shown = settings.take("train", "epoch_change_infer", read.BOOLEAN, default=True)
    count = settings.take("train", "num_infer_images", read.INTEGER, 6)
    settings.put(
        "epoch_change.num_images",
        max(1, count.value) if shown.value else 0,
        count.origin if shown.value else shown.origin,
    )
    if not shown.value and count.setting is not None:
        settings.remark("[train] num_infer_images is not used: epoch_change_infer is off", count.setting)


def _prediction(settings: Settings) -> None:
    images = settings.take("infer", "images_dir", read.PATH)
    output = settings.take("infer", "output_dir", read.PATH)
    if images.value is not None:
        for path in ("epoch_change.images", "data.predict_dir"):
            settings.put(path, images.value, images.origin)
            settings.conversion.paths.append(path)
    if output.value is not None:
        settings.put("prediction.output_dir", output.value, output.origin)
        settings.conversion.paths.append("prediction.output_dir")


# in the order in which the YAML shows what they give
RUN_PARTS = (_folders, _augmentation, _training, _prediction)
