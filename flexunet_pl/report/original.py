"""What the original publishes, to stand beside our scores."""

from dataclasses import dataclass

from flexunet_pl.rgb_map import RgbMap


@dataclass(frozen=True)
class Original:
    """The published figures of an experiment of TensorFlow-FlexUNet.

    Attributes:
        dataset: Its name.
        cross_entropy: `categorical_crossentropy` of its test.
        accuracy: `dice_coef_multiclass` of its test, a soft pixel accuracy that counts the background.
        dice: Dice of its published pictures per class, mean over the images that show it.
    """

    dataset: str
    cross_entropy: float
    accuracy: float
    dice: tuple[float, ...]


_BY_CLASSES = {
    ("trachea", "heart", "lung"): Original("Chest-CT-Subset", 0.0410, 0.9792, (0.9105, 0.8161, 0.9249)),
    ("ground_glass_opacity", "consolidation", "pleural_effusion"): Original(
        "COVID-19", 0.0895, 0.9529, (0.7516, 0.8222, 0.5516)
    ),
    ("liver", "tumour"): Original("3D-Liver-Tumor", 1.3721, 0.9323, (0.8917, 0.8469)),
    ("tumour",): Original("Lung-Tumor", 0.0018, 0.9991, (0.7615,)),
    ("lesion",): Original("NBM", 0.0048, 0.9972, (0.8323,)),
}


def find_original(rgb_map: RgbMap) -> Original | None:
    """Return the experiment of the original that has these classes, if there is one.

    Args:
        rgb_map: The classes.
    """
    return _BY_CLASSES.get(rgb_map.names[1:])
