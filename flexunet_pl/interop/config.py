"""The original's ``train_eval_infer.config`` as a configuration of this package."""

import difflib
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from flexunet_pl.errors import UserError
from flexunet_pl.interop import settings as read
from flexunet_pl.interop.augmentor import SECTIONS as AUGMENTOR_SECTIONS
from flexunet_pl.interop.augmentor import convert_augmentor
from flexunet_pl.interop.class_names import name_classes
from flexunet_pl.interop.ini import Ini, Setting
from flexunet_pl.interop.meanings import CROSS_ENTROPY, LOSSES, METRICS, UNUSED, UNUSED_SECTIONS
from flexunet_pl.interop.settings import Conversion, Settings
from flexunet_pl.models.schedule import check_image_size, make_schedule
from flexunet_pl.rgb_map import RgbMap

DEFAULT_NAME = "train_eval_infer.config"
ORIGINAL_MAP = {(0, 0, 0): 0, (0, 255, 0): 1, (255, 0, 0): 2, (0, 0, 255): 3}  # where it finds no rgb_map
KERAS_PATIENCE = 10  # of Keras' learning-rate reducer: in force in the original, whatever is configured


def convert_config(
    text: str, *, like_the_original: bool = False, name: str = DEFAULT_NAME
) -> tuple[dict[str, Any], list[str]]:
    """Convert the text of a ``train_eval_infer.config``.

    Args:
        text: Content of the file: sections of ``key = Python literal``.
        like_the_original: Whether a value that cannot be read is replaced by the original's default, and the
            learning-rate reducer waits for 10 epochs whatever is configured; each with a remark.
        name: What to call the file in messages.

    Returns:
        The configuration for ``flexunet fit``, with paths relative to the file's folder; and a line for each setting
        that was not carried over, or not as it stands.

    Raises:
        UserError: If a line or value cannot be read, a value does not fit, or something stands twice; the message
            names file, line and what was expected.
    """
    conversion = convert(text, like_the_original=like_the_original, name=name)
    return conversion.config, conversion.remarks


def convert(text: str, *, like_the_original: bool = False, name: str = DEFAULT_NAME) -> Conversion:
    """Convert as `convert_config` does, and keep where each value came from.

    Args:
        text: Content of the file.
        like_the_original: See `convert_config`.
        name: What to call the file in messages.

    Returns:
        The conversion.

    Raises:
        UserError: See `convert_config`.
    """
    settings = Settings(Ini(text, name), like_the_original=like_the_original)
    settings.put("seed_everything", 137, "the original's seed")
    for part in _PARTS:
        part(settings)
    if "rgb_map" not in settings.conversion.config["model"]:
        raise UserError(
            f"{name}: there is no [mask] rgb_map, and the original would take a map of four colours of its own; add "
            "it, or use --like-the-original"
        )
    _unused(settings)
    return settings.conversion


# ---- model -----------------------------------------------------------------------------------------------------------


def _classes(settings: Settings) -> None:
    if settings.has("mask", "color_map") and not settings.has("mask", "rgb_map") and not settings.like_the_original:
        misnamed = settings.left["mask", "color_map"]
        raise settings.ini.error(
            misnamed.line,
            "[mask] color_map: the original does not read this key and takes a map of four colours of its own; call it "
            "rgb_map, or use --like-the-original",
        )
    count = settings.take("model", "num_classes", read.INTEGER)
    taken = settings.take("mask", "rgb_map", read.COLORS)
    colors = taken.value
    if colors is None and count.value == 1:
        colors = {(0, 0, 0): 0, (255, 255, 255): 1}
        settings.remark("there is no [mask] rgb_map: one class is taken as white on black")
    elif colors is None and not settings.like_the_original:
        return  # an error, but of all of them the last
    elif colors is None:
        colors = ORIGINAL_MAP
        settings.remark("there is no [mask] rgb_map that can be read: the original's own map of four colours is used")
    if list(colors.values()) != list(range(len(colors))):
        settings.remark(
            f"[mask] rgb_map gives the values {list(colors.values())}, but they are never used, here and in the "
            "original: the position of a colour is its class",
            taken.setting,
        )
    if next(iter(colors)) != (0, 0, 0):
        settings.remark("[mask] rgb_map does not begin with black; its first colour is the background", taken.setting)
    if count.value is not None and count.value != len(colors) and (count.value, len(colors)) != (1, 2):
        raise settings.ini.error(
            _line(count.setting),
            f"[model] num_classes is {count.value}, but [mask] rgb_map has {len(colors)} colours; mend one of them",
        )
    comments = [text for _, text in taken.setting.comments] if taken.setting is not None else []
    names, from_comments = name_classes(list(colors), comments)
    rgb_map = _checked(settings, taken.setting, lambda: RgbMap(tuple(names), tuple(colors)))
    origin = (
        f"{taken.origin}; names {'from the comment beside it' if from_comments else 'made up, no comment gives them'}"
    )
    settings.put("model.rgb_map", rgb_map.to_dict(), origin)
    settings.conversion.num_classes = count.value if count.value is not None else len(rgb_map)
    if count.value == 1:
        settings.remark(
            "[model] num_classes is 1: trained here as two classes by softmax, which is the same as one by sigmoid",
            count.setting,
        )


def _image(settings: Settings) -> None:
    height, width = (_or_usual(settings, "model", key, read.INTEGER, 512) for key in ("image_height", "image_width"))
    settings.put("model.image_size", [height.value, width.value], f"{height.origin}; {width.origin}")
    channels = _or_usual(settings, "model", "image_channels", read.INTEGER, 3)
    if channels.value in {1, 3}:
        settings.put("model.in_channels", channels.value, channels.origin)
    else:
        settings.remark(
            f"[model] image_channels is {channels.value}, but images with 1 or 3 channels are read here: "
            "model.in_channels is 3, and this experiment cannot be repeated as it was",
            channels.setting,
        )
    order = settings.take("image", "color_order", read.STRING, "RGB")
    settings.conversion.color_order = str(order.value).upper()
    if settings.conversion.color_order != "RGB":
        settings.remark(
            f"[image] color_order is {order.value}: networks are given RGB here, which is no difference to one that is "
            "trained anew; `flexunet import-keras` turns the first kernel of a trained one round",
            order.setting,
        )
    settings.take("mask", "mask_file_format", read.STRING, ".npz")  # found from the files here


def _network(settings: Settings) -> None:
    name = settings.take("model", "model", read.STRING, "TensorFlowFlexUNet")
    if "flexunet" not in name.value.lower():
        settings.remark(f"[model] model is {name.value}; a FlexUNet is made, check that it was one", name.setting)
    settings.put("model.network.class_path", "flexunet_pl.models.FlexUNet", name.origin if name.setting else "")
    prefix = "model.network.init_args"
    args = {
        "base_filters": _or_usual(settings, "model", "base_filters", read.INTEGER, 16),
        "base_kernels": settings.take("model", "base_kernels", read.PAIR, [3, 3]),
        "num_layers": settings.take("model", "num_layers", read.INTEGER, 6),
        "dilation": settings.take("model", "dilation", read.PAIR, [1, 1]),
        "dropout_rate": _or_usual(settings, "model", "dropout_rate", read.NUMBER, 0.0),
        "normalization": settings.take("model", "normalization", read.BOOLEAN, default=False),
        "activation": settings.take("model", "activation", read.STRING, "relu"),
        "input_normalize": settings.take("model", "input_normalize", read.BOOLEAN, default=True),
    }
    for key, taken in args.items():
        settings.put(f"{prefix}.{key}", taken.value, taken.origin)
    shape = {key: args[key] for key in ("base_filters", "base_kernels", "num_layers", "dilation", "dropout_rate")}
    if args["num_layers"].value > 16 or args["base_filters"].value > 1024:
        raise settings.ini.error(
            _line(args["num_layers"].setting or args["base_filters"].setting),
            f"a network of {args['num_layers'].value} levels from {args['base_filters'].value} filters on is too large",
        )
    first = next((taken.setting for taken in shape.values() if taken.setting is not None), None)
    _checked(settings, first, lambda: make_schedule(**{key: taken.value for key, taken in shape.items()}))
    size = settings.conversion.config["model"]["image_size"]
    levels = args["num_layers"].value
    _checked(settings, args["num_layers"].setting, lambda: check_image_size(tuple(size), 2 ** (levels - 1)))


def _loss(settings: Settings) -> None:
    loss = settings.take("model", "loss", read.STRING, "categorical_crossentropy")
    class_path, comment = LOSSES.get(loss.value, (CROSS_ENTROPY, "it is not known; cross-entropy is used"))
    if comment:
        settings.remark(f"[model] loss is {loss.value}: {comment}", loss.setting)
    settings.put("model.loss.class_path", class_path, loss.origin)


def _optimizer(settings: Settings) -> None:
    name = settings.take("model", "optimizer", read.STRING, "Adam")
    if name.value not in {"Adam", "AdamW"}:
        raise settings.ini.error(
            _line(name.setting),
            f"[model] optimizer: expected Adam or AdamW, which the original has, found `{name.value}`",
        )
    rate = settings.take("model", "learning_rate", read.NUMBER, 1e-4)
    if not 0 < rate.value < 10:
        raise settings.ini.error(
            _line(rate.setting), f"[model] learning_rate {rate.value:g} must be above 0 and below 10"
        )
    settings.put("model.optimizer.class_path", f"torch.optim.{name.value}", name.origin)
    settings.put("model.optimizer.init_args.lr", rate.value, rate.origin)
    settings.put("model.optimizer.init_args.eps", 1e-7, "Keras' epsilon")
    if name.value == "AdamW":
        settings.put("model.optimizer.init_args.weight_decay", 0.004, "Keras' weight decay")
    clip = settings.take("model", "clipvalue", read.NUMBER, 0.2)
    if clip.value <= 0:
        raise settings.ini.error(_line(clip.setting), f"[model] clipvalue {clip.value:g} must be above 0")
    settings.put("trainer.gradient_clip_val", clip.value, clip.origin)
    settings.put("trainer.gradient_clip_algorithm", "value", "")


def _scheduler(settings: Settings) -> None:
    reducer = settings.take("train", "learning_rate_reducer", read.BOOLEAN, default=False)
    factor = settings.take("train", "reducer_factor", read.NUMBER, 0.4)
    patience = settings.take("train", "reducer_patience", read.INTEGER, 4)
    if not reducer.value:
        settings.put("model.scheduler", None, reducer.origin)
        for taken, key in ((factor, "reducer_factor"), (patience, "reducer_patience")):
            if taken.setting is not None:
                settings.remark(f"[train] {key} is not used: learning_rate_reducer is off", taken.setting)
        return
    if not 0 < factor.value < 1 or patience.value < 0:
        raise settings.ini.error(
            _line(factor.setting or patience.setting),
            f"[train] reducer_factor {factor.value:g} must be between 0 and 1, and reducer_patience {patience.value} "
            "at least 0",
        )
    value, origin = patience.value, patience.origin
    if settings.like_the_original:
        value, origin = KERAS_PATIENCE, "what was in force in the original"
    in_force = "was never effective" if value == patience.value else f"is {patience.value}, but was never effective"
    settings.remark(
        f"[train] reducer_patience {in_force} in the original, which misspells it to Keras and so waits for "
        f"{KERAS_PATIENCE} epochs; {value} is used",
        patience.setting,
    )
    settings.put("model.scheduler.class_path", "lightning.pytorch.cli.ReduceLROnPlateau", reducer.origin)
    settings.put("model.scheduler.init_args.monitor", "val/loss", "")
    settings.put("model.scheduler.init_args.factor", factor.value, factor.origin)
    settings.put("model.scheduler.init_args.patience", value, origin)


def _metrics(settings: Settings) -> None:
    metrics = settings.take("model", "metrics", read.STRINGS, ["dice_coef_multiclass"])
    weights = [settings.take("model", key, read.NUMBER) for key in ("hybrid_alpha", "hybrid_beta")]
    for metric in metrics.value:
        comment = METRICS.get(metric, "it is not known; scores per class are computed in each run")
        if comment:
            settings.remark(f"[model] metrics names {metric}: {comment}", metrics.setting)
    used = [taken.setting for taken in weights if taken.setting is not None]
    if used:
        settings.remark("[model] hybrid_alpha and hybrid_beta weigh a metric that is not computed here", *used)


# ---- data and training -----------------------------------------------------------------------------------------------


def _data(settings: Settings) -> None:
    folders = {
        (split, kind): settings.take(split, f"{kind}_dir", read.PATH)
        for split in ("train", "valid", "test")
        for kind in ("images", "masks")
    }
    given = {place: taken for place, taken in folders.items() if taken.value is not None}
    roots = {
        PurePosixPath(taken.value).parents[1] for taken in given.values() if len(PurePosixPath(taken.value).parts) > 2
    }
    fits = len(roots) == 1 and all(
        PurePosixPath(taken.value).parts[-2:] == (split, kind) for (split, kind), taken in given.items()
    )
    if fits:
        settings.put("data.root", str(roots.pop()), "; ".join(taken.origin for taken in given.values()))
        settings.conversion.paths.append("data.root")
    elif given:
        settings.remark(
            "the folders of images and masks do not lie as <root>/{train,valid,test}/{images,masks}, which is how they "
            "must lie here; arrange them so and set data.root",
            *(taken.setting for taken in given.values()),
        )
    batch_size = settings.take("train", "batch_size", read.INTEGER, 4)
    if batch_size.value < 1:
        raise settings.ini.error(_line(batch_size.setting), f"[train] batch_size {batch_size.value} must be at least 1")
    settings.put("data.batch_size", batch_size.value, batch_size.origin)
    generator = settings.take("model", "generator", read.BOOLEAN, default=False)
    online = settings.take("generator", "augmentation", read.BOOLEAN, default=True)
    settings.put("data.train_transform", None, generator.origin)
    if generator.value and online.value:
        convert_augmentor(settings)
        return
    off = "[model] generator" if not generator.value else "[generator] augmentation"
    unused = [setting for place, setting in settings.left.items() if place[0] in AUGMENTOR_SECTIONS]
    if online.setting is not None:
        unused.append(online.setting)
    if unused and generator.setting is not online.setting:
        for setting in unused:
            settings.left.pop((setting.section, setting.key), None)
        sections = ", ".join(f"[{name}]" for name in dict.fromkeys(setting.section for setting in unused))
        settings.remark(f"{sections}: not used, {off} is off", *unused)


def _training(settings: Settings) -> None:
    epochs = settings.take("train", "epochs", read.INTEGER, 100)
    if epochs.value < 1:
        raise settings.ini.error(_line(epochs.setting), f"[train] epochs {epochs.value} must be at least 1")
    settings.put("trainer.max_epochs", epochs.value, epochs.origin)
    patience = settings.take("train", "patience", read.INTEGER, 10)
    if patience.value > 0:
        settings.put("early_stopping.patience", patience.value, patience.origin)
    else:
        settings.put(
            "early_stopping.patience", epochs.value, f"{patience.origin} is {patience.value}: no early stopping"
        )
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


# ---- the rest --------------------------------------------------------------------------------------------------------


def _unused(settings: Settings) -> None:
    for section, reason in UNUSED_SECTIONS.items():
        found = [setting for setting in settings.left.values() if setting.section == section]
        if found:
            values = ", ".join(f"{setting.key} = {' '.join(setting.value.split())}" for setting in found)
            settings.remark(f"[{section}]: {reason}; not carried over: {values}", *found)
            for setting in found:
                settings.left.pop((section, setting.key))
    known = {*UNUSED, *settings.known}
    for place, setting in settings.left.items():
        settings.remark(f"{setting.label}: {UNUSED.get(place) or _explain_unknown(setting, known)}", setting)


def _explain_unknown(setting: Setting, known: set[tuple[str, str]]) -> str:
    home = [section for section, key in sorted(known) if key == setting.key and section != setting.section]
    if home:
        return f"it belongs into [{home[0]}], where the original reads it; not used"
    close = difflib.get_close_matches(setting.key, [key for section, key in known if section == setting.section], n=1)
    return "not known; not used" + (f"; did you mean {close[0]}?" if close else "")


def _or_usual(settings: Settings, section: str, key: str, reader: read.Reader, usual: Any) -> Any:
    """Take a setting for which the original has no default, and say so where it is missing."""
    taken = settings.take(section, key, reader, usual)
    if taken.setting is None:
        settings.remark(f"there is no [{section}] {key}, for which the original has no default; {usual} is used")
        return taken._replace(origin=f"assumed, there is no [{section}] {key}")
    return taken


def _checked(settings: Settings, setting: Setting | None, build: Callable[[], Any]) -> Any:
    """Build something from values of the file, and name the line in its complaint."""
    try:
        return build()
    except UserError as error:
        raise settings.ini.error(_line(setting), str(error)) from error


def _line(setting: Setting | None) -> int:
    return setting.line if setting is not None else 1


# in the order in which the YAML shows what they give
_PARTS = (_classes, _image, _network, _loss, _optimizer, _scheduler, _metrics, _data, _training, _prediction)
