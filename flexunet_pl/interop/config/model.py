"""The settings of network, classes, loss and optimization: [model], [mask], [image] and the reducer of [train]."""

from dataclasses import replace

from flexunet_pl.interop.config import readers as read
from flexunet_pl.interop.config.class_names import name_classes
from flexunet_pl.interop.config.settings import Settings, Taken
from flexunet_pl.interop.equivalents import CROSS_ENTROPY, LOSSES, METRICS
from flexunet_pl.models.schedule import check_image_size, make_schedule
from flexunet_pl.rgb_map import RgbMap

ORIGINAL_MAP = {(0, 0, 0): 0, (0, 255, 0): 1, (255, 0, 0): 2, (0, 0, 255): 3}  # where it finds no rgb_map
WHITE_ON_BLACK = {(0, 0, 0): 0, (255, 255, 255): 1}
KERAS_PATIENCE = 10  # of Keras' learning-rate reducer: in force in the original, whatever is configured


def _classes(settings: Settings) -> None:
    count = settings.take("model", "num_classes", read.COUNT)
    taken = _take_map(settings, count)
    colors = taken.value
    if colors is None:
        return  # an error, but of all of them the last
    if count.value is not None and count.value != len(colors) and (count.value, len(colors)) != (1, 2):
        raise settings.error(
            count.setting,
            f"[model] num_classes is {count.value}, but [mask] rgb_map has {len(colors)} colours; correct one of them",
        )
    comments = [text for _, text in taken.setting.comments] if taken.setting is not None else []
    names, from_comments = name_classes(list(colors), comments)
    rgb_map = settings.checked(taken.setting, lambda: RgbMap(tuple(names), tuple(colors)))
    named = "names from the comment beside it" if from_comments else "names made up, no comment gives them"
    settings.put("model.rgb_map", rgb_map.to_dict(), f"{taken.origin}; {named}")
    settings.conversion.num_classes = count.value if count.value is not None else len(rgb_map)
    if count.value == 1:
        settings.remark(
            "[model] num_classes is 1: trained here as two classes by softmax, which is the same as one by sigmoid",
            count.setting,
        )


def _take_map(settings: Settings, count: Taken) -> Taken:
    """Take the map, or what stands in for it where it is missing; None where that is an error."""
    misnamed = settings.left.get(("mask", "color_map"))
    if misnamed is not None and not settings.has("mask", "rgb_map") and not settings.like_the_original:
        raise settings.error(
            misnamed,
            "[mask] color_map: the original does not read this key and takes a map of four colours of its own; call it "
            "rgb_map, or use --like-the-original",
        )
    taken = settings.take("mask", "rgb_map", read.COLORS)
    if taken.value is None and count.value == 1:
        settings.remark("there is no [mask] rgb_map: one class is taken as white on black")
        return replace(taken, value=WHITE_ON_BLACK)
    if taken.value is None:
        if not settings.like_the_original:
            return taken
        settings.remark("there is no [mask] rgb_map that can be read: the original's own map of four colours is used")
        return replace(taken, value=ORIGINAL_MAP)
    indices = list(taken.value.values())
    if indices != list(range(len(indices))):
        settings.remark(
            "[mask] rgb_map gives other values than 0, 1, 2 and so on, but they are never used, here and in the "
            "original: the position of a colour is its class",
            taken.setting,
        )
    if next(iter(taken.value)) != (0, 0, 0):
        settings.remark("[mask] rgb_map does not begin with black; its first colour is the background", taken.setting)
    return taken


def _image(settings: Settings) -> None:
    height, width = (settings.take_or_usual("model", key, read.COUNT, 512) for key in ("image_height", "image_width"))
    settings.put("model.image_size", [height.value, width.value], f"{height.origin}; {width.origin}")
    channels = settings.take_or_usual("model", "image_channels", read.COUNT, 3)
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
            "trained again; `flexunet import-keras` turns the first kernel of a trained one round",
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
        "base_filters": settings.take_or_usual("model", "base_filters", read.COUNT, 16),
        "base_kernels": _square_kernels(settings),
        "num_layers": settings.take("model", "num_layers", read.COUNT, 6),
        "dilation": settings.take("model", "dilation", read.PAIR, [1, 1]),
        "dropout_rate": settings.take_or_usual("model", "dropout_rate", read.NUMBER, 0.0),
        "normalization": settings.take("model", "normalization", read.BOOLEAN, default=False),
        "activation": settings.take("model", "activation", read.ACTIVATION, "relu"),
        "input_normalize": settings.take("model", "input_normalize", read.BOOLEAN, default=True),
    }
    for key, taken in args.items():
        settings.put(f"{prefix}.{key}", taken.value, taken.origin)
    shape = {key: args[key] for key in ("base_filters", "base_kernels", "num_layers", "dilation", "dropout_rate")}
    if args["num_layers"].value > 16 or args["base_filters"].value > 1024:
        raise settings.error(
            args["num_layers"].setting or args["base_filters"].setting,
            f"a network of {args['num_layers'].value} levels from {args['base_filters'].value} filters on is too large",
        )
    first = next((taken.setting for taken in shape.values() if taken.setting is not None), None)
    settings.checked(first, lambda: make_schedule(**{key: taken.value for key, taken in shape.items()}))
    size = settings.conversion.config["model"]["image_size"]
    levels = args["num_layers"].value
    settings.checked(args["num_layers"].setting, lambda: check_image_size(tuple(size), 2 ** (levels - 1)))


def _square_kernels(settings: Settings) -> Taken:
    kernels = settings.take("model", "base_kernels", read.PAIR, [3, 3])
    last = kernels.value[1]
    if kernels.value[0] != last:
        settings.remark(
            f"[model] base_kernels are not square; the original uses the last, {last}, for both sides", kernels.setting
        )
    return replace(kernels, value=[last, last])


def _loss(settings: Settings) -> None:
    loss = settings.take("model", "loss", read.STRING, "categorical_crossentropy")
    class_path, comment = LOSSES.get(loss.value, (CROSS_ENTROPY, "it is not known; cross-entropy is used"))
    if comment:
        settings.remark(f"[model] loss is {loss.value}: {comment}", loss.setting)
    if loss.value == "binary_crossentropy" and settings.conversion.num_classes > 1:
        settings.remark(
            "[model] loss is binary_crossentropy, which takes each class by itself; the nearest here is cross-entropy",
            loss.setting,
        )
    settings.put("model.loss.class_path", class_path, loss.origin)
    if class_path != CROSS_ENTROPY:
        settings.put("model.loss.init_args", {"include_background": True}, "as in the original's Dice")


def _optimizer(settings: Settings) -> None:
    name = settings.take("model", "optimizer", read.STRING, "Adam")
    if name.value not in {"Adam", "AdamW"}:
        raise settings.error(
            name.setting,
            f"[model] optimizer: expected Adam or AdamW, which the original has, found `{name.value}`",
        )
    rate = settings.take("model", "learning_rate", read.POSITIVE, 1e-4)
    settings.put("model.optimizer.class_path", f"torch.optim.{name.value}", name.origin)
    settings.put("model.optimizer.init_args.lr", rate.value, rate.origin)
    settings.put("model.optimizer.init_args.eps", 1e-7, "Keras' epsilon")
    if name.value == "AdamW":
        settings.put("model.optimizer.init_args.weight_decay", 0.004, "Keras' weight decay")
    clip = settings.take("model", "clipvalue", read.POSITIVE, 0.2)
    settings.put("trainer.gradient_clip_val", clip.value, clip.origin)
    settings.put("trainer.gradient_clip_algorithm", "value", "")


def _scheduler(settings: Settings) -> None:
    reducer = settings.take("train", "learning_rate_reducer", read.BOOLEAN, default=False)
    factor = settings.take("train", "reducer_factor", read.SHARE, 0.4)
    patience = settings.take("train", "reducer_patience", read.NATURAL, 4)
    if not reducer.value:
        settings.put("model.scheduler", None, reducer.origin)
        for taken, key in ((factor, "reducer_factor"), (patience, "reducer_patience")):
            if taken.setting is not None:
                settings.remark(f"[train] {key} is not used: learning_rate_reducer is off", taken.setting)
        return
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
    settings.put("model.scheduler.init_args.patience", value, f"{origin}; torch waits one epoch longer than Keras")
    settings.put("model.scheduler.init_args.threshold", 1e-4, "Keras' min_delta")
    settings.put("model.scheduler.init_args.threshold_mode", "abs", "")


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


# in the order in which the YAML shows what they give
MODEL_PARTS = (
    _classes,
    _image,
    _network,
    _loss,
    _optimizer,
    _scheduler,
    _metrics,
)
