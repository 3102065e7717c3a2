"""The original's online augmentation as albumentations transforms: each image is drawn in one of its variants."""

import math
from typing import Any

from flexunet_pl.interop.config import readers as read
from flexunet_pl.interop.config.settings import Settings, Taken

SECTIONS = (
    "augmentor",
    "deformation",
    "distortion",
    "barrdistortion",
    "pincdistortion",
    "sharpening",
    "brightening",
)

_OWN = "flexunet_pl.data.transforms"
_CENTER = [[0.5, 0.5]]
_FLIPS = {"hflip": "HorizontalFlip", "vflip": "VerticalFlip"}


def convert_augmentor(settings: Settings) -> None:
    """Put ``data.train_transform`` for the sections of the augmentor.

    The original adds each variant of an image to the images that it draws from, so each variant, and the image itself,
    is as likely as the others. Where it draws different fields for image and mask, or changes the mask's colours, ours
    transforms image and mask alike.

    Args:
        settings: The settings; those of the augmentor are taken out.
    """
    flips = [name for key, name in _FLIPS.items() if _switch(settings, key, default=True)]
    variants = [_transform(name) for name in flips]
    angles = settings.take("augmentor", "angles", read.NUMBERS, [90.0, 180.0, 270.0])
    if _switch(settings, "rotation", default=True):
        variants += [_transform("Rotate", limit=[a, a]) for a in angles.value]
    elif angles.setting is not None:
        settings.remark("[augmentor] angles is not used: rotation is off", angles.setting)
    shrinks = settings.take("augmentor", "shrinks", read.NUMBERS, [0.8])
    variants += [_transform("Affine", scale=[s, s]) for s in shrinks.value]
    variants += _shears(settings, flips)
    for convert in (_deformation, _distortion, _barrel, _pincushion, _sharpening, _brightening):
        variants += convert(settings)
    each = {"class_path": "albumentations.OneOf", "init_args": {"transforms": variants, "p": _share(len(variants))}}
    settings.put(
        "data.train_transform",
        {"class_path": "albumentations.Compose", "init_args": {"transforms": [each] if variants else []}},
        "[augmentor]: the image itself, or one of its variants, all equally likely",
    )
    settings.remark(
        "[augmentor]: image and mask are transformed alike here, borders are black, masks are never smoothed, and "
        "validation images stay as they are; the original draws different fields for image and mask, continues the "
        "colour of a corner, sharpens and brightens masks too, and augments validation images"
    )


def _share(variants: int) -> float:
    return round(variants / (variants + 1), 4)


def _transform(name: str, **init_args: Any) -> dict[str, Any]:
    package = "albumentations" if name not in {"RadialDistortion", "SmoothDistortion"} else _OWN
    return {"class_path": f"{package}.{name}", "init_args": {**init_args, "p": 1.0}}


def _switch(settings: Settings, key: str, *, default: bool = False) -> bool:
    return bool(settings.take("augmentor", key, read.BOOLEAN, default).value)


def _shears(settings: Settings, flips: list[str]) -> list[dict[str, Any]]:
    """Shear along y, by the slope of the horizontal lines; each as it is, and flipped in the ways that are on."""
    ways = [[], *([flip] for flip in flips), *([flips] if len(flips) > 1 else [])]
    variants = []
    for slope in settings.take("augmentor", "shears", read.NUMBERS, []).value:
        degrees = round(-math.degrees(math.atan(slope)), 4)
        shear = _transform("Affine", shear={"x": [0, 0], "y": [degrees, degrees]})
        for way in ways:
            steps = [shear, *map(_transform, way)]
            variants.append(_transform("Sequential", transforms=steps) if way else shear)
    return variants


def _deformation(settings: Settings) -> list[dict[str, Any]]:
    if not _on(settings, "deformation"):
        return []
    alpha = settings.take("deformation", "alpah", read.NUMBER, 1300.0)  # the original's spelling
    sigma = settings.take("deformation", "sigmoid", read.NUMBER, 8.0)
    sigmas: Taken = settings.take("deformation", "sigmoids", read.NUMBERS, [8.0])
    if settings.has("augmentor", "brightening"):
        settings.remark(
            "[deformation] alpah: where brightening is on, the original overwrites it with the alpha of [brightening], "
            "and deforms by next to nothing; it is used here",
            alpha.setting,
        )
    variants = []
    for value in sigmas.value or [sigma.value]:
        s = max(1, int(value))
        strength = round(alpha.value * _across_channels(s), 3)
        variants.append(
            _transform("ElasticTransform", alpha=strength, sigma=float(s), noise_distribution="uniform", border_mode=1)
        )
    return variants


def _across_channels(sigma: int) -> float:
    """Return by how much the original's field shrinks, because its filter runs across the three channels too."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-4 * sigma, 4 * sigma + 1)]
    middle = weights[4 * sigma - 1 : 4 * sigma + 2]  # those that meet the middle channel
    return math.sqrt(sum((weight / sum(weights)) ** 2 for weight in middle))


def _distortion(settings: Settings) -> list[dict[str, Any]]:
    if not _on(settings, "distortion"):
        return []
    sigma = settings.take("distortion", "gaussian_filter_rsigma", read.POSITIVE, 40.0)
    smoothing = settings.take("distortion", "gaussian_filter_sigma", read.NUMBER, 0.5)
    if smoothing.setting is not None:
        settings.remark(
            "[distortion] gaussian_filter_sigma: the original computes with it and drops the result", smoothing.setting
        )
    shares = settings.take("distortion", "distortions", read.NUMBERS, [0.02])
    return [_transform("SmoothDistortion", magnitude=share, sigma=sigma.value) for share in shares.value]


def _barrel(settings: Settings) -> list[dict[str, Any]]:
    return _radial(settings, "barrdistortion", 0.5)


def _pincushion(settings: Settings) -> list[dict[str, Any]]:
    return _radial(settings, "pincdistortion", -0.5)


def _radial(settings: Settings, section: str, usual: float) -> list[dict[str, Any]]:
    if not _on(settings, section):
        return []
    radius = settings.take(section, "radius", read.POSITIVE, 0.5)
    amount = settings.take(section, "amount", read.NUMBER, usual)
    centers = settings.take(section, "centers", read.POINTS, _CENTER)
    return [
        _transform("RadialDistortion", radius=radius.value, amount=amount.value, center=center)
        for center in centers.value
    ]


def _sharpening(settings: Settings) -> list[dict[str, Any]]:
    if not _on(settings, "sharpening"):
        return []
    k = settings.take("sharpening", "k", read.NUMBER, 1.0)
    if not 0 <= k.value <= 1:
        settings.remark(f"[sharpening] k is {k.value:g}, but at most 1 here", k.setting)
    strength = min(max(k.value, 0.0), 1.0)
    # (1 - alpha) * identity + alpha * kernel with 8 + lightness in the middle is the original's kernel for lightness 1
    return [_transform("Sharpen", alpha=[strength, strength], lightness=[1.0, 1.0])]


def _brightening(settings: Settings) -> list[dict[str, Any]]:
    if not _on(settings, "brightening"):
        return []
    factor = settings.take("brightening", "alpha", read.NUMBER, 1.2)
    offset = settings.take("brightening", "beta", read.NUMBER, 10.0)
    contrast, brightness = round(factor.value - 1, 6), round(offset.value / 255, 6)
    return [
        _transform(
            "RandomBrightnessContrast", brightness_limit=[brightness, brightness], contrast_limit=[contrast, contrast]
        )
    ]


def _on(settings: Settings, section: str) -> bool:
    """Tell whether a variant is switched on; else remark on the section's settings."""
    if _switch(settings, section):
        return True
    unused = settings.take_section(section)
    if unused:
        settings.remark(f"[{section}] is not used: [augmentor] {section} is off", *unused)
    return False
