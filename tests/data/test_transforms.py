"""The reference's distortions: its formulas, one field for image and mask, no invented classes."""

import math

import albumentations
import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from flexunet_pl.data.augmentation import PRESETS, make_preset
from flexunet_pl.data.transforms import RadialDistortion, SmoothDistortion
from flexunet_pl.interop.config.convert import convert_config
from flexunet_pl.prepare.phantom import draw_slice


@pytest.fixture
def pair():
    rng = np.random.default_rng(137)
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return image, rng.choice(np.array([0, 3, 7], np.uint8), (40, 60))


@pytest.mark.parametrize("amount", [0.3, -0.3])
def test_radial_distortion_is_the_reference_s_formula(amount):
    width, height, (center_x, center_y), radius = 60, 40, (0.3 * 60, 0.7 * 40), 0.4 * 60
    maps = RadialDistortion(0.4, amount, (0.3, 0.7)).get_params_dependent_on_data({"shape": (height, width, 3)}, {})
    for y in range(height):
        for x in range(width):
            dx, dy = x - center_x, y - center_y
            distance = math.hypot(dx, dy)
            factor = math.sin(math.pi * distance / radius / 2) ** amount if 0 < distance < radius else 1
            assert maps["map_x"][y, x] == pytest.approx(center_x + factor * dx, abs=1e-3)
            assert maps["map_y"][y, x] == pytest.approx(center_y + factor * dy, abs=1e-3)


def test_smooth_distortion_moves_by_its_magnitude_and_smoothly():
    transform = SmoothDistortion(0.05, 6)
    transform.set_random_seed(1)
    maps = transform.get_params_dependent_on_data({"shape": (40, 60, 3)}, {})
    y, x = np.mgrid[:40, :60]
    for moved in (x - maps["map_x"], y - maps["map_y"]):
        assert abs(moved).max() == pytest.approx(0.05 * 60, abs=1e-3)
        assert max(abs(np.diff(moved, axis=axis)).max() for axis in (0, 1)) < 1.5


@pytest.mark.parametrize("transform", [RadialDistortion(0.4, 0.5, p=1), SmoothDistortion(0.05, 6, p=1)])
def test_image_and_mask_move_alike_and_no_class_is_invented(pair, transform):
    image, mask = pair
    painted = np.repeat(mask[..., None], 3, axis=2)
    result = transform(image=image, mask=mask)
    assert set(np.unique(result["mask"])) <= {0, 3, 7}
    assert not np.array_equal(result["mask"], mask)
    assert (result["image"].shape, result["image"].dtype) == (image.shape, np.uint8)
    transform.set_random_seed(3)
    moved_image = transform(image=painted, mask=mask)["image"][..., 0]
    transform.set_random_seed(3)
    moved_mask = transform(image=image, mask=mask)["mask"]
    exact = np.isin(moved_image, [0, 3, 7])  # elsewhere the image is interpolated
    assert (moved_image[exact] == moved_mask[exact]).mean() > 0.8


@pytest.mark.parametrize("transform", [RadialDistortion(p=1), SmoothDistortion(sigma=5, p=1)])
def test_the_same_seed_gives_the_same_result(pair, transform):
    image, mask = pair
    pipeline = albumentations.Compose([transform])
    results = []
    for seed in (5, 5, 6):
        pipeline.set_random_seed(seed)
        results.append(pipeline(image=image, mask=mask)["image"])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2]) == isinstance(transform, RadialDistortion)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_change_images_keep_classes_and_never_mirror(name):
    image, index = draw_slice(3, 0.6, 96, 137)
    image = np.repeat(image[..., None], 3, axis=2)
    transform = make_preset(name)
    transform.set_random_seed(1)
    results = [transform(image=image, mask=index) for _ in range(40)]
    assert all(set(np.unique(r["mask"])) <= set(np.unique(index)) for r in results)
    assert sum(not np.array_equal(r["image"], image) for r in results) > 25
    heart = [np.argwhere(r["mask"] == 2)[:, 1].mean() - np.argwhere(r["mask"] == 3)[:, 1].mean() for r in results]
    side = np.sign(np.argwhere(index == 2)[:, 1].mean() - np.argwhere(index == 3)[:, 1].mean())
    assert all(np.sign(offset) == side for offset in heart)


def test_sharpening_and_brightening_are_the_reference_s():
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 9.0
    sharpened = albumentations.Sharpen(alpha=(1, 1), lightness=(1, 1), p=1)(image=image)["image"]
    assert np.array_equal(sharpened, cv2.filter2D(image, -1, kernel))
    limits = {"brightness_limit": (0.039216, 0.039216), "contrast_limit": (0.2, 0.2)}
    brightened = albumentations.RandomBrightnessContrast(**limits, p=1)(image=image)["image"]
    expected = cv2.convertScaleAbs(image, alpha=1.2, beta=10)
    assert abs(brightened.astype(int) - expected).max() <= 1  # rounded by a table here


def _converted(augmentor):
    """The variants that a converted augmentor has besides the image itself, each applied always."""
    text = """[model]
generator = True
image_width = 64
image_height = 64
num_layers = 3
[mask]
rgb_map = {(0, 0, 0): 0, (255, 255, 255): 1}
[augmentor]
hflip = False
vflip = False
"""
    config, _ = convert_config(text + augmentor)
    (one_of,) = config["data"]["train_transform"]["init_args"]["transforms"]
    variants = one_of["init_args"]["transforms"]
    return [getattr(albumentations, v["class_path"].rpartition(".")[2])(**v["init_args"]) for v in variants]


@pytest.mark.parametrize("angle", [30, 90, 210])
def test_rotation_is_the_reference_s(blobs, angle):
    (rotate,) = _converted(f"angles = [{angle}]\nshrinks = []")
    expected = cv2.warpAffine(blobs, cv2.getRotationMatrix2D((32, 32), angle, 1), (64, 64))
    assert (
        _agreement(rotate(image=blobs)["image"], expected) > 0.97
    )  # it turns about another corner of the middle pixel


@pytest.mark.parametrize("slope", [0.1, -0.2])
def test_shear_is_the_reference_s(blobs, slope):
    (shear,) = _converted(f"rotation = False\nshrinks = []\nshears = [{slope}]")
    expected = cv2.warpAffine(blobs, np.float32([[1, 0, 0], [slope, 1, -slope * 32]]), (64, 64))
    assert _agreement(shear(image=blobs)["image"], expected) > 0.99


def test_shrinking_is_the_reference_s(blobs):
    (shrink,) = _converted("rotation = False\nshrinks = [0.75]")
    expected = np.zeros_like(blobs)
    expected[8:56, 8:56] = cv2.resize(blobs, (48, 48), interpolation=cv2.INTER_AREA)
    assert _agreement(shrink(image=blobs)["image"], expected) > 0.99


def test_elastic_deformation_moves_as_far_as_the_reference_s():
    alpha, sigma, shape = 1300, 8, (512, 512, 3)
    noise = np.random.default_rng(1).random(shape) * 2 - 1
    reference = gaussian_filter(noise, sigma, mode="constant", cval=0) * alpha  # across the channels too
    (elastic,) = _converted("rotation = False\nshrinks = []\ndeformation = True")
    elastic.set_random_seed(1)
    maps = elastic.get_params_dependent_on_data({"shape": shape[:2]}, {})
    moved = maps["map_x"] - np.mgrid[:512, :512][1]
    assert moved.std() == pytest.approx(reference[..., 1].std(), rel=0.2)


@pytest.fixture
def blobs():
    """A smooth picture without any symmetry, so that half a pixel makes little difference."""
    noise = np.random.default_rng(5).random((64, 64, 3))
    smooth = gaussian_filter(noise, (5, 5, 0))
    return np.round(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def _agreement(one, two):
    y, x = np.mgrid[:64, :64]
    inside = np.hypot(y - 31.5, x - 31.5) < 22
    return np.corrcoef(one[inside].ravel(), two[inside].ravel())[0, 1]
