"""What activations, losses, metrics and settings of the original are here, and why some are nothing."""

# activations that are the same function in torch and Keras, and their Keras names
ACTIVATIONS = {
    "relu": "relu",
    "relu6": "relu6",
    "elu": "elu",
    "selu": "selu",
    "celu": "celu",
    "gelu": "gelu",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "logsigmoid": "log_sigmoid",
    "softplus": "softplus",
    "softsign": "softsign",
    "tanhshrink": "tanh_shrink",
    "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_silu",
    "hardtanh": "hard_tanh",
}

_DICE_CE = "flexunet_pl.losses.DiceCELoss"
CROSS_ENTROPY = "torch.nn.CrossEntropyLoss"
# class here, and what is to be said about it
LOSSES = {
    "categorical_crossentropy": (CROSS_ENTROPY, ""),
    "binary_crossentropy": (CROSS_ENTROPY, ""),  # of one logit z it is the cross-entropy of (0, z)
    "categorical_focal_dice_loss": (
        _DICE_CE,
        "it is cross-entropy plus Dice, whatever its name; the nearest here is DiceCELoss",
    ),
    "dice_loss_multiclass": (_DICE_CE, "the nearest here is DiceCELoss, which adds cross-entropy"),
    "dice_loss": (_DICE_CE, "the nearest here is DiceCELoss, which adds cross-entropy"),
    "bce_dice_loss": (_DICE_CE, "the nearest here is DiceCELoss, cross-entropy plus Dice"),
    "bce_iou_loss": (_DICE_CE, "the nearest here is DiceCELoss, with Dice in place of IoU"),
    "iou_loss": (_DICE_CE, "the nearest here is DiceCELoss, with Dice in place of IoU, plus cross-entropy"),
    "basnet_hybrid_loss": (_DICE_CE, "the nearest here is DiceCELoss, without structural similarity"),
}
# those without a remark are computed in each run, under the same name
METRICS = {
    "dice_coef_multiclass": "",
    "dice_coef": "the nearest score here is `dice_coef_multiclass`",
    "dice_coef_foreground": "the nearest score here is `dice`, the mean over the classes without the background",
    "dice_coef_hybrid": "the nearest scores here are `dice` and `dice_coef_multiclass`, which it mixes",
    "iou_coef": "the nearest scores here are `iou/<class>`",
    "sensitivity": "the nearest scores here are `miss_rate/<class>`",
    "specificity": "the nearest scores here are `false_alarm_rate/<class>`",
}
# settings without a meaning here, and why
_NEVER_READ = "the original never reads it"
UNUSED = {
    ("model", "show_summary"): f"{_NEVER_READ}; `trainer.enable_model_summary` is the switch here",
    ("model", "dropout_seed_fixing"): "`seed_everything` fixes all that is random here",
    ("model", "final_activation"): "softmax, or sigmoid for one class, is what the original uses for masks, and here",
    ("dataset", "class_name"): "one data module here reads all kinds of masks",
    ("train", "metrics"): "the curves of all scores are drawn here",
    ("train", "model_dir"): "checkpoints lie in the run's folder here",
    ("train", "eval_dir"): "curves lie in the run's folder here",
    ("train", "create_backup"): f"{_NEVER_READ}; no folder is overwritten here",
    ("train", "save_weights_only"): f"{_NEVER_READ}; checkpoints hold what a resumed run needs here",
    ("train", "epoch_change_infer_dir"): "the pictures lie in the run's folder here",
    ("train", "epoch_change_tiledinfer_dir"): "the pictures lie in the run's folder here",
    ("train", "epoch_change_tiled_infer_dir"): "the pictures lie in the run's folder here",
    ("train", "steps_per_epoch"): "an epoch is one pass over the images here; see `trainer.limit_train_batches`",
    ("train", "validation_steps"): "all images are validated here; see `trainer.limit_val_batches`",
    ("eval", "batch_size"): "`data.batch_size` holds for all stages here",
    ("eval", "eval_dir"): "curves lie in the run's folder here",
    ("mask", "mask_datatyoe"): _NEVER_READ,
    ("mask", "mask_datatype"): "the kind of a mask is found from its file here",
    ("image", "file_format"): "images are PNG, JPEG, TIFF or BMP here",
    ("image", "npy_slice_index"): "images are PNG, JPEG, TIFF or BMP here",
    ("infer", "npy_slice_index"): "images are PNG, JPEG, TIFF or BMP here",
    ("infer", "npy_slices_dir"): "images are PNG, JPEG, TIFF or BMP here",
    ("debug", "verbose"): "see `--help` for what can be shown here",
    ("generator", "debug"): "no augmented image is written here",
    ("generator", "verbose"): "no augmented image is written here",
}
UNUSED_SECTIONS = {
    "tiledinfer": "it is part of a command: `flexunet predict --inference.tiled true --inference.overlap 0.25`, with "
    "the images as --data.predict_dir; tiles are blended",
    "infer3d": "it is part of a command: `flexunet predict --data.predict_dir VOLUMES --data.volume.window slice`, "
    "with the axis and the turn of slices as --data.volume.axis and --data.volume.rotation; pictures by "
    "--prediction.slices and --prediction.overlay",
}
