"""What was decided in a review of labels: the file that the page of `flexunet review` saves."""

import json
from collections.abc import Sequence
from pathlib import Path

from flexunet_pl.common.errors import UserError
from flexunet_pl.io.pairs import Pair

FORMAT = 1
_MOST_BYTES = 50_000_000
_REMEDY = "name the file that the page of flexunet review saved"


def read_rejected(path: Path) -> set[str]:
    """Read which labels were rejected.

    Args:
        path: The JSON file, ``{"format": 1, "accepted": [...], "rejected": [...]}``, of names of cases.

    Returns:
        Names of the cases whose label is not to be used.

    Raises:
        UserError: If it is no such file.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: has more than {_MOST_BYTES // 10**6} MB; decisions have not")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: holds no decisions; {_REMEDY}") from error
    rejected = content.get("rejected") if isinstance(content, dict) else None
    if not isinstance(rejected, list) or not all(isinstance(name, str) for name in rejected):
        raise UserError(f"{path}: holds no decisions; {_REMEDY}")
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: is of a format that this version does not know; update flexunet")
    return set(rejected)


def without_rejected(pairs: Sequence[Pair], rejected: set[str]) -> list[Pair]:
    """Return the pairs whose label was not rejected.

    Args:
        pairs: The pairs.
        rejected: Names of cases.
    """
    return [pair for pair in pairs if pair.image.stem not in rejected]
