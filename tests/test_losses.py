import pytest
import torch
from monai import losses as monai_losses

from flexunet_pl.losses import DiceCELoss, FocalLoss, TverskyLoss

LOSSES = [DiceCELoss(), FocalLoss(), TverskyLoss()]


def batch():
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(0, 3, (2, 5, 7), generator=generator)
    return torch.randn(2, 3, 5, 7, generator=generator, requires_grad=True), mask


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_perfect_prediction_is_better_than_a_random_one_and_both_have_gradients(loss):
    logits, mask = batch()
    perfect = torch.nn.functional.one_hot(mask, 3).movedim(-1, 1) * 50.0
    random = loss(logits, mask)
    assert random.ndim == 0
    assert loss(perfect, mask) < random
    random.backward()
    assert logits.grad.abs().sum() > 0


def test_focal_loss_without_focus_is_cross_entropy():
    logits, mask = batch()
    assert FocalLoss(gamma=0)(logits, mask).item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, mask).item() / 3, rel=1e-5
    )  # monai averages over classes too


def test_tversky_with_equal_weights_is_dice():
    logits, mask = batch()
    dice = monai_losses.DiceLoss(include_background=False, to_onehot_y=True, softmax=True)(logits, mask[:, None])
    assert TverskyLoss(alpha=0.5, beta=0.5)(logits, mask).item() == pytest.approx(dice.item(), rel=1e-5)


def test_the_parts_of_dice_and_cross_entropy_add_up():
    logits, mask = batch()
    parts = DiceCELoss(lambda_ce=0)(logits, mask) + DiceCELoss(lambda_dice=0)(logits, mask)
    assert DiceCELoss()(logits, mask).item() == pytest.approx(parts.item(), rel=1e-6)
    assert DiceCELoss(lambda_dice=0)(logits, mask).item() == pytest.approx(
        torch.nn.functional.cross_entropy(logits, mask).item(), rel=1e-6
    )
