"""How the names of images and masks go together: by stem, or by a rule."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from flexunet_pl.common.errors import UserError

_MOST_LENGTH = 200  # of an expression
_USUAL = 0.9  # share of the images that a proposed rule must pair


@dataclass(frozen=True)
class PairingRule:
    """What of a file's stem is common to an image and its mask.

    Args:
        image: Regular expression for the whole stem of an image; its first group is what the mask has too.
        mask: The same for a mask. Files that it does not fit are no masks of this data set.

    Raises:
        UserError: If one of them is no such expression.

    >>> rule = PairingRule(mask="(.+)_mask")
    >>> rule.key(Path("images/IDRiD_01.jpg"), "image") == rule.key(Path("masks/IDRiD_01_mask.png"), "mask")
    True
    """

    image: str = "(.+)"
    mask: str = "(.+)"

    def __post_init__(self) -> None:
        for name in ("image", "mask"):
            text = getattr(self, name)
            try:
                groups = re.compile(text).groups
            except (re.error, RecursionError, OverflowError) as error:
                raise UserError(f"pairing.{name}: `{text[:80]}` is no regular expression: {error}") from error
            if not groups or len(text) > _MOST_LENGTH:
                raise UserError(f"pairing.{name}: `{text[:80]}` needs a group in brackets, as in `(.+)_mask`")

    def key(self, path: Path, kind: str) -> str | None:
        """Return what an image and its mask have in common.

        Args:
            path: The file.
            kind: image or mask.

        Returns:
            The part of the stem, in one spelling and case; None where the rule does not fit it.
        """
        match = re.fullmatch(self.mask if kind == "mask" else self.image, path.stem)
        return None if match is None else plain(match[1] or "")

    def __str__(self) -> str:
        return f'{{image: "{self.image}", mask: "{self.mask}"}}'


def plain(stem: str) -> str:
    """Return a stem in the one spelling and case that all file systems tell apart."""
    return unicodedata.normalize("NFC", stem).casefold()


def propose_rule(images: Iterable[Path], masks: Iterable[Path]) -> PairingRule | None:
    """Find a rule for images and masks of which hardly one has the stem of the other.

    Args:
        images: The images.
        masks: The masks.

    Returns:
        A rule that gives nearly each image one mask; None where there is none.

    >>> str(propose_rule([Path("a_0000.png"), Path("b_0000.png")], [Path("a.png"), Path("b.png")]))
    '{image: "(.+)_0000", mask: "(.+)"}'
    """
    image_stems, mask_stems = {path.stem for path in images}, {path.stem for path in masks}
    if not image_stems or not mask_stems:
        return None
    candidates = [PairingRule(mask=f"(.+){re.escape(end)}") for end in _endings(image_stems, mask_stems)]
    candidates += [PairingRule(image=f"(.+){re.escape(end)}") for end in _endings(mask_stems, image_stems)]
    for rule in candidates:
        known = Counter(rule.key(Path(f"{stem}.png"), "mask") for stem in mask_stems)
        keys = [rule.key(Path(f"{stem}.png"), "image") for stem in image_stems]
        if sum(key is not None and known[key] == 1 for key in keys) >= _USUAL * len(image_stems):
            return rule
    return None


def _endings(short: Collection[str], long: Collection[str]) -> list[str]:
    """Return what most often follows one of some stems in others, the most frequent first."""
    ends: Counter[str] = Counter()
    for stem in long:
        for at in range(1, len(stem)):
            if stem[:at] in short:
                ends[stem[at:]] += 1
    return [end for end, _ in ends.most_common(5)]
