"""The verb `review`: which labels look wrong, and which images to label next."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from flexunet_pl.commands.postprocess import predict_held_out
from flexunet_pl.common.cells import guard
from flexunet_pl.common.checkpoint_set import checkpoint_files
from flexunet_pl.common.console import say, show_progress
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.files import check_results_folder, written_in_place
from flexunet_pl.data.predict import PredictDataset, collate_predict
from flexunet_pl.io.cases import Case
from flexunet_pl.io.images import ImageReader
from flexunet_pl.io.pairs import list_files
from flexunet_pl.metrics.label_doubt import doubt_label
from flexunet_pl.metrics.next_images import Candidate, order_by_entropy, order_randomly
from flexunet_pl.models.inference import Answer
from flexunet_pl.models.load import SavedModel, read_saved_model
from flexunet_pl.report.review_page import Item, draw_item, write_review
from flexunet_pl.task import SegmentationTask
from flexunet_runtime.window import Window

_PAGE = "review.html"
_TABLES = ("labels.csv", "images.csv")


class _Unlabelled(NamedTuple):
    path: Path
    candidate: Candidate


def review_data(
    run: Path,
    data: Path | None = None,
    out: Path = Path("review"),
    by: Literal["entropy", "random"] = "entropy",
    top: int = 100,
    seed: int = 137,
) -> None:
    """Rank labels that look wrong, and images without a label by what they would teach.

    A label is doubted where a network that has not seen it says otherwise, and is sure of it: the cases of the run's
    validation, and of the runs of all folds every case. Images are ranked by the entropy of their probabilities, class
    by class in turn, so that no class is forgotten, and with noise, so that not all are of one kind.

    Writes labels.csv and images.csv, and review.html, a page on which labels are accepted or rejected by the keyboard.
    `split --decisions` and `fit --data.decisions` take the file that it saves, and leave out what was rejected.

    Args:
        run: Folder of a run, or of the runs of all folds.
        data: Folder of images without labels.
        out: Folder for the tables and the page.
        by: How images are ranked: entropy; or random, among those in which something is found, for comparison.
        top: Number of labels, and of images, on the page; the tables have all.
        seed: Seed of the noise.

    Raises:
        UserError: If the folder for the results holds something else.
    """
    check_results_folder(out, _PAGE, _TABLES)
    files = checkpoint_files(run)
    saved = read_saved_model(files if len(files) > 1 else files[0])
    out.mkdir(parents=True, exist_ok=True)
    labels = _doubted(files, saved, out / _TABLES[0], top)
    images = _to_label(run, data, out / _TABLES[1], by, top, seed) if data is not None else []
    write_review(out / _PAGE, f"Review of {run.resolve().name}", saved.rgb_map, labels, images)
    say(f"{out / _PAGE} written, and {_TABLES[0]}{f' and {_TABLES[1]}' if data is not None else ''}")


def _doubted(files: Sequence[Path], saved: SavedModel, table: Path, top: int) -> list[Item]:
    cases, rgb_map, items = predict_held_out(files, None), saved.rgb_map, []
    window = Window.parse(saved.image_window, "image_window")
    reader = ImageReader(saved.image_size, saved.in_channels, window, saved.neighbours).alone
    doubts = [doubt_label(case.predicted, case.truth, case.expected_dice) for case in cases]
    order = sorted(range(len(cases)), key=lambda i: (-doubts[i].score, cases[i].name))
    with written_in_place(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", "case", "doubt", *(guard(f"dice/{name}") for name in rgb_map.names[1:]), "mask"])
        for rank, i in enumerate(order, start=1):
            dice = [f"{value:.4f}" for value in doubts[i].dice]
            writer.writerow([rank, guard(cases[i].name), f"{doubts[i].score:.4f}", *dice, guard(str(cases[i].mask))])
    for i in order[:top]:
        case, doubt = cases[i], doubts[i]
        worst = int(doubt.by_class.argmax())
        text = (
            f"doubt {doubt.score:.2f}: {rgb_map.names[worst + 1]} has a Dice of {doubt.dice[worst]:.2f} with the label "
            f"where {case.expected_dice[worst]:.2f} is expected"
        )
        items.append(draw_item(case.name, text, reader.read(case.image), case.predicted, rgb_map, case.truth))
    return items


def _to_label(run: Path, data: Path, table: Path, by: Literal["entropy", "random"], top: int, seed: int) -> list[Item]:
    task = SegmentationTask.load_from_checkpoint(str(run))
    task.to("cuda" if torch.cuda.is_available() else "cpu")
    paths = list_files(data)
    found: list[_Unlabelled] = []
    for path in show_progress(paths, "predicting", len(paths)):
        answer = _predict(task, path)
        if answer is not None:
            found.append(_Unlabelled(path, Candidate.of(answer.probabilities.numpy(), answer.mask.numpy())))
    if not found:
        raise UserError(f"{data}: none of its images could be read")
    rank = order_by_entropy if by == "entropy" else order_randomly
    order = rank([one.candidate for one in found], seed)
    with written_in_place(table) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["rank", "image", "entropy"])
        for number, i in enumerate(order, start=1):
            writer.writerow([number, guard(str(found[i].path)), f"{found[i].candidate.entropy.sum():.6f}"])
    items = []
    for i in order[:top]:
        answer = _predict(task, found[i].path)
        if answer is not None:
            image = task.reader.alone.read(found[i].path)
            text = f"entropy {found[i].candidate.entropy.sum():.4f}"
            items.append(draw_item(found[i].path.stem, text, image, answer.mask.numpy(), task.rgb_map))
    return items


def _predict(task: SegmentationTask, path: Path) -> Answer | None:
    """Predict an image; one that cannot be read is named and left out."""
    tiled = bool(task.inference.tiled)
    dataset = PredictDataset([(Case(path, path.stem), 0)], task.reader, tiled=tiled, at_own_size=tiled and task.patches)
    batch: Any = collate_predict([dataset[0]])
    if batch["problems"]:
        say(f"failed: {batch['problems'][0]}")
        return None
    batch["image"] = batch["image"].to(task.device)
    with torch.inference_mode():
        (prediction,) = task.infer(batch, task.inference)
    return prediction.answer
