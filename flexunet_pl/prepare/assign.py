"""Who goes where: patients to train, valid and test, or to folds, with the classes spread evenly."""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from flexunet_pl.common.errors import UserError

SHARES = {"train": 0.80, "valid": 0.15, "test": 0.05}  # the reference's
_PARTS = 20  # of 5 %


def assign_folds(labels: Sequence[str], groups: Sequence[str], folds: int, seed: int) -> list[int]:
    """Distribute cases over folds, whole groups together, so that each fold has its share of each label.

    Args:
        labels: What is to be spread evenly, such as the classes that a case shows.
        groups: Patient of each case.
        folds: Number of folds.
        seed: Seed of the draw. The order of the cases has no influence.

    Returns:
        The fold of each case, from 0.

    Raises:
        UserError: If there are fewer groups than folds.
    """
    if len(set(groups)) < folds:
        raise UserError(
            f"{len(set(groups))} groups cannot be spread over {folds} parts; give fewer parts, or tell patients apart"
        )
    order = sorted(range(len(groups)), key=lambda i: (groups[i], labels[i]))
    common = Counter(labels).most_common(1)[0][1] >= folds  # with rarer labels alone there is nothing to spread
    y = np.unique([labels[i] if common else "" for i in order], return_inverse=True)[1]
    numbered = np.unique([groups[i] for i in order], return_inverse=True)[1]
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    result = [0] * len(groups)
    with warnings.catch_warnings(action="ignore"):  # a label that fewer cases have than there are folds is no mistake
        for fold, (_, members) in enumerate(splitter.split(np.zeros(len(y)), y, numbered)):
            for member in members:
                result[order[member]] = fold
    return result


def assign_splits(labels: Sequence[str], groups: Sequence[str], seed: int) -> list[str]:
    """Distribute cases over train, valid and test, whole groups together, by the shares of the reference.

    Args:
        labels: What is to be spread evenly.
        groups: Patient of each case.
        seed: Seed of the draw. The order of the cases has no influence.

    Returns:
        The split of each case.

    Raises:
        UserError: If there are fewer than three groups.
    """
    if len(set(groups)) < len(SHARES):
        raise UserError(
            f"{len(set(groups))} groups (patients) cannot be spread over {', '.join(SHARES)}; it takes three"
        )
    parts = min(_PARTS, len(set(groups)))
    counts = {split: max(1, round(share * parts)) for split, share in SHARES.items() if split != "train"}
    order = ["test"] * counts["test"] + ["valid"] * counts["valid"]
    order += ["train"] * (parts - len(order))
    return [order[fold] for fold in assign_folds(labels, groups, parts, seed)]
