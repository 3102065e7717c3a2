"""Thorax phantoms: a drawn data set with patients, anatomy, contrast and noise, to try things on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from flexunet_pl.common.errors import UserError
from flexunet_pl.io.images import write_image
from flexunet_pl.rgb_map import RgbMap

PHANTOM_MAP = RgbMap.parse({"background": [0, 0, 0], "trachea": [255, 0, 0], "heart": [0, 255, 0], "lung": [0, 0, 255]})
LESION_MAP = RgbMap.parse({**PHANTOM_MAP.to_dict(), "lesion": [255, 255, 0]})
_TRACHEA, _HEART, _LUNG, _LESION = 1, 2, 3, 4
_FREE = 2  # places in the lungs that no vessel takes
_SPLITS = {"train": 0.7, "valid": 0.15, "test": 0.15}

Plane = NDArray[np.float32]


def write_phantom(
    out: Path,
    patients: int = 40,
    slices: int = 5,
    size: int = 128,
    seed: int = 137,
    overwrite: bool = False,
    lesions: bool = False,
) -> None:
    """Draw a data set of thorax phantoms: train, valid and test folders of images and colour-coded masks.

    Every patient has a body of its own (size, position, tilt, contrast, noise) and lies in one split alone; the files
    are named ``<patient>_<slice>.png``. Trachea, heart and lung have the colours of the Chest-CT data set.

    Args:
        out: Folder to create.
        patients: Number of patients, at least 3; 70 % go to train, 15 % each to valid and test.
        slices: Slices per patient, from the upper chest down.
        size: Height and width of the slices in pixels, at least 64.
        seed: Seed of everything that is drawn.
        overwrite: Whether a folder that is not empty may be written to.
        lesions: Whether the lungs hold a class more, lesion: balls that are seen in one slice alone, among vessels that
            look like them in each slice and run through all. Only the slices beside one tell which is which.

    Raises:
        UserError: If a number is out of its range, or the folder is not empty.
    """
    if lesions and slices < 3:
        raise UserError(f"phantom: lesions need slices >= 3, not {slices}: those beside one tell them from vessels")
    if patients < 3 or slices < 1 or size < 64 or seed < 0:
        given = f"{patients}, {slices}, {size}, {seed}"
        raise UserError(f"phantom: needs patients >= 3, slices >= 1, size >= 64, seed >= 0, not {given}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise UserError(f"{out}: is not empty; name another folder or give --overwrite true")
    rgb_map = LESION_MAP if lesions else PHANTOM_MAP
    held_out = max(1, round(patients * _SPLITS["test"]))
    splits = ["train"] * (patients - 2 * held_out) + ["valid"] * held_out + ["test"] * held_out
    for patient, split in enumerate(splits):
        balls = _draw_balls(np.random.default_rng([seed, patient, _LESION]), slices) if lesions else [[]] * slices
        for number in range(slices):
            level = (number + 0.5) / slices
            image, index = draw_slice(patient, level, size, seed, balls[number])
            name = f"{patient:03d}_{number:02d}.png"
            write_image(out / split / "images" / name, np.repeat(image[..., None], 3, axis=2))
            write_image(out / split / "masks" / name, rgb_map.paint(index))


@dataclass(frozen=True)
class Ball:
    """A bright disc in a lung: a lesion, or a vessel that is cut across.

    Attributes:
        x: Place in units of the body's half width.
        y: Place in units of the body's half height.
        radius: In units of the picture's side.
        grey: In units of the muscles' grey value.
        is_lesion: Which of the two.
    """

    x: float
    y: float
    radius: float
    grey: float
    is_lesion: bool


def _draw_balls(rng: np.random.Generator, slices: int) -> list[list[Ball]]:
    """Draw the vessels of a patient, which run through all slices, and a lesion a slice."""
    cells = [(side * 0.46 + dx, dy) for side in (-1, 1) for dx in (-0.12, 0.12) for dy in (-0.25, 0.25)]
    behind_heart = [cell for cell in cells if cell[0] > 0 > cell[1]]  # where the heart may cover a lesion
    clear = [cell for cell in cells if cell not in behind_heart]
    places = [clear[i] for i in rng.permutation(len(clear))] + behind_heart

    def ball(place: tuple[float, float], *, is_lesion: bool) -> Ball:
        x, y = place[0] + rng.uniform(-0.02, 0.02), place[1] + rng.uniform(-0.06, 0.06)
        return Ball(x, y, rng.uniform(0.034, 0.040), rng.uniform(0.9, 1.1), is_lesion)

    free, taken = places[:_FREE], places[_FREE:]
    vessels = [ball(place, is_lesion=False) for place in taken]
    # never in one place twice in a row, which would be a vessel
    return [[*vessels, ball(free[number % _FREE], is_lesion=True)] for number in range(slices)]


def draw_slice(
    patient: int, level: float, size: int, seed: int, balls: Sequence[Ball] = ()
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one axial slice.

    Args:
        patient: Number of the patient, which decides the anatomy.
        level: Height in the chest, from 0 (upper) to 1 (lower).
        size: Height and width in pixels.
        seed: Seed of the data set.
        balls: What else is in the lungs.

    Returns:
        The image, shape ``(size, size)``, uint8, and its class indices by `LESION_MAP`, of the same shape.
    """
    body = _Anatomy.drawn(np.random.default_rng([seed, patient]))
    rng = np.random.default_rng([seed, patient, round(level * 1000)])
    return _Slice(body, level, size, rng).draw(balls)


@dataclass(frozen=True)
class _Anatomy:
    """What makes a patient: lengths in units of the picture's side, angles in radians, grey values in 0..1."""

    width: float
    height: float
    tilt: float
    center: tuple[float, float]
    fat: float
    muscle: float
    heart: float
    lung: float
    bone: float
    noise: float
    heart_size: float
    trachea_size: float
    lean: float
    offset: float
    gain: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "_Anatomy":
        u = rng.uniform
        return cls(
            width=u(0.39, 0.45),
            height=u(0.29, 0.36),
            tilt=u(-0.12, 0.12),
            center=(u(0.47, 0.53), u(0.47, 0.53)),
            fat=u(0.34, 0.44),
            muscle=u(0.52, 0.62),
            heart=u(0.56, 0.70),
            lung=u(0.10, 0.22),
            bone=u(0.80, 0.95),
            noise=u(0.03, 0.07),
            heart_size=u(0.85, 1.15),
            trachea_size=u(0.034, 0.045),
            lean=u(-0.02, 0.02),
            offset=u(-0.05, 0.05),
            gain=u(0.85, 1.1),
        )


class _Slice:
    """One slice on its way: body coordinates, the grey values and the classes drawn so far."""

    def __init__(self, body: _Anatomy, level: float, size: int, rng: np.random.Generator) -> None:
        self.body, self.level, self.size, self.rng = body, level, size, rng
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        dx, dy = x - body.center[0], y - body.center[1]
        # a smooth random field bends every outline, so that no organ is an ellipse
        dx, dy = dx + 0.012 * self._smooth(size // 8), dy + 0.012 * self._smooth(size // 8)
        cos, sin = np.cos(body.tilt), np.sin(body.tilt)
        self.x: Plane = cos * dx + sin * dy
        self.y: Plane = cos * dy - sin * dx
        self.image = np.full((size, size), 0.02, dtype=np.float32)
        self.index = np.zeros((size, size), dtype=np.uint8)

    def draw(self, balls: Sequence[Ball]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        body = self.body
        torso = self._ellipse(0, 0, body.width, body.height)
        self.image[torso] = body.fat
        self.image[self._ellipse(0, 0, body.width * 0.94, body.height * 0.92)] = body.muscle
        self._ribs()
        lungs = self._lungs()
        self._heart()
        self._great_vessels()
        self._spine()
        self._trachea()
        self._vessels(lungs)
        for ball in balls:
            cx, cy = ball.x * body.width, ball.y * body.height
            where = self._ellipse(cx, cy, ball.radius, ball.radius) & (self.index == _LUNG)
            self._paint(where, body.muscle * ball.grey, _LESION if ball.is_lesion else _LUNG)
        return self._scanned(), self.index

    def _ellipse(self, cx: float, cy: float, rx: float, ry: float) -> NDArray[np.bool_]:
        radius: Plane = np.hypot((self.x - cx) / rx, (self.y - cy) / ry)
        return np.less(radius, 1)

    def _paint(self, where: NDArray[np.bool_], grey: float, label: int) -> None:
        self.image[where] = grey
        self.index[where] = label

    def _ribs(self) -> None:
        body = self.body
        for angle in np.linspace(0, 2 * np.pi, 14, endpoint=False) + self.rng.uniform(0, 0.4):
            cx, cy = 0.9 * body.width * np.cos(angle), 0.87 * body.height * np.sin(angle)
            self.image[self._ellipse(cx, cy, 0.028, 0.016)] = body.bone * self.rng.uniform(0.85, 1)

    def _lungs(self) -> NDArray[np.bool_]:
        body = self.body
        grow = 0.75 + 0.35 * np.sin(np.pi * min(self.level * 0.8 + 0.2, 1))
        for side in (-1, 1):
            where = self._ellipse(side * 0.46 * body.width, 0.02, 0.36 * body.width * grow, 0.74 * body.height * grow)
            self._paint(where, body.lung * self.rng.uniform(0.9, 1.1), _LUNG)
        # the mediastinum parts the lungs; its tissue is that of the heart, which must be told by its place
        middle = self._ellipse(body.lean, 0.0, 0.16 * body.width, 0.95 * body.height)
        self._paint(middle, body.muscle, 0)
        return np.equal(self.index, _LUNG)

    def _heart(self) -> None:
        if self.level < 0.35:
            return
        body = self.body
        size = body.heart_size * (0.55 + 0.6 * (self.level - 0.35))
        where = self._ellipse(
            0.17 * body.width + body.lean, -0.2 * body.height, 0.40 * body.width * size, 0.36 * body.height * size
        )
        self._paint(where, body.heart, _HEART)

    def _great_vessels(self) -> None:
        body = self.body
        self._paint(self._ellipse(0.1 * body.width, 0.36 * body.height, 0.032, 0.032), body.heart * 1.02, 0)  # aorta
        if self.level < 0.35:
            for cx in (-0.12, 0.02, 0.14):
                where = self._ellipse(cx * body.width + body.lean, -0.32 * body.height, 0.022, 0.022)
                self._paint(where, body.heart * 1.02, 0)

    def _spine(self) -> None:
        body = self.body
        self._paint(self._ellipse(0, 0.62 * body.height, 0.062, 0.055), body.bone * 0.9, 0)
        self._paint(self._ellipse(0, 0.84 * body.height, 0.018, 0.018), body.muscle, 0)

    def _trachea(self) -> None:
        body = self.body
        if self.level < 0.55:
            self._paint(self._ellipse(body.lean, 0.03, body.trachea_size, body.trachea_size * 0.95), 0.06, _TRACHEA)
        elif self.level < 0.75:  # behind the bifurcation: two bronchi
            for side in (-1, 1):
                where = self._ellipse(body.lean + side * 0.052, 0.08, body.trachea_size * 0.75, body.trachea_size * 0.7)
                self._paint(where, 0.06, _TRACHEA)

    def _vessels(self, lungs: NDArray[np.bool_]) -> None:
        for _ in range(40):
            cx, cy = self.rng.uniform(-0.8, 0.8) * self.body.width, self.rng.uniform(-0.7, 0.7) * self.body.height
            radius = self.rng.uniform(0.004, 0.012)
            where = self._ellipse(cx, cy, radius, radius * self.rng.uniform(0.6, 1.6)) & lungs & (self.index == _LUNG)
            self.image[where] = self.body.muscle * self.rng.uniform(0.6, 1)

    def _scanned(self) -> NDArray[np.uint8]:
        """Add texture, partial volume, shading, noise and the patient's contrast."""
        textured = self.image * (1 + 0.06 * self._smooth(self.size // 20))
        blurred = _blurred(textured, radius=self.size / 256)
        shading = 0.04 * self._smooth(self.size // 3)
        noisy = blurred + shading + self.rng.normal(0, self.body.noise, blurred.shape)
        grey = self.body.offset + self.body.gain * noisy
        pixels: NDArray[np.uint8] = np.rint(255 * grey.clip(0, 1)).astype(np.uint8)
        return pixels

    def _smooth(self, radius: int) -> Plane:
        """Draw a smooth random field of mean 0 and standard deviation 1."""
        coarse = max(2, self.size // max(radius, 1))
        field = Image.fromarray(self.rng.normal(0, 1, (coarse, coarse)).astype(np.float32))
        plane = np.asarray(field.resize((self.size, self.size), Image.Resampling.BICUBIC), dtype=np.float32)
        return plane / np.float32(plane.std())


def _blurred(plane: Plane, radius: float) -> Plane:
    """Blur slightly, on 8-bit levels; the noise that is added later hides the rounding."""
    picture = Image.fromarray(np.rint(255 * plane.clip(0, 1)).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / np.float32(255)
