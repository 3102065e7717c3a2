"""The table of scores on the console."""

from rich.table import Table

from flexunet_pl.rgb_map import RgbMap


def make_score_table(scores: dict[str, float], rgb_map: RgbMap, title: str) -> Table:
    """Lay the scores out, one row per class but the background.

    Args:
        scores: As `flexunet_pl.metrics.summarise_counts` returns them.
        rgb_map: The classes.
        title: Title of the table.

    Returns:
        A table for rich.
    """
    columns = {
        "Dice": "dice",
        "IoU": "iou",
        "pooled Dice": "dice_pooled",
        "miss rate": "miss_rate",
        "false-alarm rate": "false_alarm_rate",
    }
    table = Table("class", title=title)
    for column in columns:
        table.add_column(column, justify="right")
    for name in rgb_map.names[1:]:
        values = [scores.get(f"{key}/{name}") for key in columns.values()]
        table.add_row(name, *("n/a" if value is None else f"{value:.4f}" for value in values))
    return table
