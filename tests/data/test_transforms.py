"""The reference's distortions: its formulas, one field for image and mask, no invented classes."""

import math

import albumentations
import numpy as np
import pytest

from flexunet_pl.data.transforms import RadialDistortion, SmoothDistortion


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


def test_sharpening_and_brightening_are_the_reference_s():
    import cv2

    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    kernel = np.full((3, 3), -1.0)
    kernel[1, 1] = 9.0
    sharpened = albumentations.Sharpen(alpha=(1, 1), lightness=(1, 1), p=1)(image=image)["image"]
    assert np.array_equal(sharpened, cv2.filter2D(image, -1, kernel))
    limits = {"brightness_limit": (0.039216, 0.039216), "contrast_limit": (0.2, 0.2)}
    brightened = albumentations.RandomBrightnessContrast(**limits, p=1)(image=image)["image"]
    expected = cv2.convertScaleAbs(image, alpha=1.2, beta=10)
    assert abs(brightened.astype(int) - expected).max() <= 1  # rounded by a table here


def test_elastic_deformation_moves_as_far_as_the_reference_s():
    from scipy.ndimage import gaussian_filter

    alpha, sigma, shape = 1300, 8, (128, 128)
    noise = np.random.default_rng(1).random(shape) * 2 - 1
    reference = gaussian_filter(noise, sigma, mode="constant", cval=0) * alpha
    transform = albumentations.ElasticTransform(alpha=alpha, sigma=sigma, noise_distribution="uniform", p=1)
    transform.set_random_seed(1)
    maps = transform.get_params_dependent_on_data({"shape": shape}, {})
    moved = maps["map_x"] - np.mgrid[:128, :128][1]
    assert moved.std() == pytest.approx(reference.std(), rel=0.3)
