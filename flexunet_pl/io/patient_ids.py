"""What file names tell: the patient, and the picture that an augmented copy was made from."""

import re
from pathlib import Path

from flexunet_pl.common.errors import UserError

# how the original's offline augmentation begins the name of a copy
_NUMBER = r"-?\d+(?:[._]\d+)?"
_COPY = re.compile(
    r"^(?:"
    r"(?:hv|h|v)flipp?ed"
    rf"|(?:(?:hv|h|v)flipp?ed_)?sheared_{_NUMBER}"
    rf"|rotated_{_NUMBER}|shrinked_{_NUMBER}|resized_{_NUMBER}"
    rf"|deformed(?:_alpha_{_NUMBER}_sigmoid_{_NUMBER})?"
    rf"|distorted_{_NUMBER}(?:_r?sigma{_NUMBER}){{0,2}}"
    rf"|(?:barr|pinc)distorted_\d+_{_NUMBER}_{_NUMBER}"
    rf"|sharpened_{_NUMBER}|brightened_{_NUMBER}(?:_{_NUMBER})?"
    r")_(?P<source>.+)$",
    re.IGNORECASE,
)


def copy_source(stem: str) -> str | None:
    """Return the stem of the picture that an augmented copy was made from.

    Args:
        stem: Name without suffix, such as ``barrdistorted_1002_0.3_0.3_76``.

    Returns:
        Such as ``76``; None for a name that is no copy's.

    >>> copy_source("hflipped_rotated_90_76")
    '76'
    """
    source = None
    while match := _COPY.fullmatch(stem if source is None else source):
        source = match["source"]
    return source


def group_of(path: Path, group_regex: re.Pattern[str] | None) -> str | None:
    """Return the group, such as the patient, that a file belongs to.

    Args:
        path: The file.
        group_regex: Searched in the stem of the picture, or of what it is a copy of; its first group, or all of it,
            is the name. None for no groups.

    Returns:
        The name, or None where the expression does not match.

    >>> group_of(Path("images/012_0034.png"), parse_group_regex("^([0-9]+)_"))
    '012'
    """
    if group_regex is None:
        return None
    match = group_regex.search(copy_source(path.stem) or path.stem)
    return None if match is None else match[1] if group_regex.groups else match[0]


def parse_group_regex(text: str | None) -> re.Pattern[str] | None:
    r"""Compile a regular expression for groups.

    Args:
        text: Such as ``^(\d+)_``, or None.

    Returns:
        The expression.

    Raises:
        UserError: If it is none.
    """
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UserError(f"group-regex `{text}` is no regular expression: {error}") from error
