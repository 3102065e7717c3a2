"""The splits of a data set: where they lie, what is in them."""

from pathlib import Path

from flexunet_pl.common.errors import DataError, UserError
from flexunet_pl.io.checksums import find_changes
from flexunet_pl.io.pairing import PairingRule
from flexunet_pl.io.pairs import Pair, check_pair, list_pairs

_MAX_SEED = 2**32 - 1  # of numpy
_MAX_BATCH = 2**16


def split_folder(root: Path | None, split: str, fold: int | None = None) -> Path:
    """Return the folder of a split, which holds images/ and masks/.

    Args:
        root: Folder that holds train, valid and test, or folds.
        split: Such as train, valid or test.
        fold: Number of the fold; None where there are none.

    Returns:
        The folder.

    Raises:
        UserError: If no root was given.
        DataError: If the root or the fold is missing.
    """
    if root is None:
        raise UserError("data.root is missing: name the folder that holds train, valid and test")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set `data.root` to the one that holds train, valid and test")
    if fold is None:
        return root / split
    folder = root / f"fold_{fold}"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such fold; make folds with `flexunet split`, or leave data.fold out")
    return folder / split


def list_split(folder: Path, rule: PairingRule | None = None, channels: int = 3) -> list[Pair]:
    """List the pairs of a split, check their headers, and compare them with ``data.lock`` where there is one.

    Args:
        folder: The folder of the split.
        rule: How the names of images and masks go together.
        channels: Of the images.

    Returns:
        The pairs.

    Raises:
        DataError: If they do not fit each other, or were changed.
    """
    pairs = list_pairs(folder, rule)
    for pair in pairs:
        check_pair(pair, channels)
    changes = find_changes(folder.parent, pairs)
    if changes:
        rest = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise DataError(f"{changes[0]}{rest}; restore it, or write it again with flexunet check --lock")
    return pairs


def check_numbers(
    seed: int,
    batch_size: int,
    num_workers: int | None,
    foreground_share: float | None,
    epoch_samples: int | None,
) -> None:
    """Refuse settings of a data module that are out of their range.

    Args:
        seed: Of the order and the augmentation.
        batch_size: Images per step.
        num_workers: Processes; None for the default.
        foreground_share: Share of images with foreground; None for no share.
        epoch_samples: Images of an epoch; None for all.

    Raises:
        UserError: If one of them is.
    """
    if not 0 <= seed <= _MAX_SEED:
        raise UserError(f"data.seed is {seed}; it must be 0 to {_MAX_SEED}")
    if not 1 <= batch_size <= _MAX_BATCH:
        raise UserError(f"data.batch_size is {batch_size}; it must be 1 to {_MAX_BATCH}")
    if num_workers is not None and num_workers < 0:
        raise UserError(f"data.num_workers is {num_workers}; it must be at least 0")
    if foreground_share is not None and not 0 < foreground_share <= 1:
        raise UserError(f"data.foreground_share ({foreground_share}) must be above 0 and at most 1")
    if epoch_samples is not None and epoch_samples < 1:
        raise UserError(f"data.epoch_samples is {epoch_samples}; it must be at least 1")
