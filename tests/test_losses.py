import pytest
import torch
from monai import losses as monai_losses
from segmentation_models_pytorch import losses as smp_losses

from flexunet_pl.common.errors import UserError
from flexunet_pl.losses import DiceCELoss, FocalLoss, TverskyLoss, compute_loss, weigh_classes

# of this package, and those of others that fit as they are: one tester for all
LOSSES = [
    DiceCELoss(),
    DiceCELoss(include_background=True, lambda_dice=0.5),
    DiceCELoss(pooled=True),
    FocalLoss(),
    TverskyLoss(),
    torch.nn.CrossEntropyLoss(),
    smp_losses.DiceLoss("multiclass"),
    smp_losses.LovaszLoss("multiclass"),
    smp_losses.TverskyLoss("multiclass"),
]


def batch():
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(0, 3, (2, 5, 7), generator=generator)
    return torch.randn(2, 3, 5, 7, generator=generator, requires_grad=True), mask


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{type(loss).__module__}.{type(loss).__name__}")
def test_a_loss_is_a_number_that_falls_towards_the_truth(loss):
    logits, mask = batch()
    perfect = torch.nn.functional.one_hot(mask, 3).movedim(-1, 1) * 50.0
    random = compute_loss(loss, logits, mask)
    assert random.ndim == 0
    assert torch.isfinite(random)
    assert loss(perfect, mask) < random < loss(-perfect, mask)
    random.backward()
    assert torch.isfinite(logits.grad).all()
    assert loss(logits.detach() - 0.1 * logits.grad / logits.grad.norm(), mask) < random
    assert loss(logits.flip(0), mask.flip(0)).item() == pytest.approx(random.item(), rel=1e-5)


@pytest.mark.parametrize("loss", [DiceCELoss(), TverskyLoss()])  # monai computes the focal loss in float32
def test_the_gradient_is_that_of_finite_differences(loss):
    logits, mask = batch()
    corner = logits.detach().double()[..., :2, :2].requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, mask[..., :2, :2]), corner)


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


def test_pooled_dice_counts_no_class_as_missed_that_another_image_of_the_batch_shows():
    mask = torch.zeros(2, 8, 8, dtype=torch.int64)
    mask[0, :4] = 1
    perfect = torch.nn.functional.one_hot(mask, 2).movedim(-1, 1) * 50.0
    assert DiceCELoss(pooled=True, lambda_ce=0)(perfect, mask) < 1e-3
    assert DiceCELoss(lambda_ce=0)(perfect, mask) == pytest.approx(0, abs=1e-3)  # nothing found, nothing there
    perfect[1, 1, 0, 0] = 100.0
    assert DiceCELoss(pooled=True, lambda_ce=0)(perfect, mask) < 0.05
    assert DiceCELoss(lambda_ce=0)(perfect, mask) > 0.45


def test_class_weights_enter_the_cross_entropy_and_the_focal_loss_and_no_checkpoint():
    logits, mask = batch()
    weights = [0.2, 1.5, 3.0]
    expected = torch.nn.functional.cross_entropy(logits, mask, torch.tensor(weights)).item()
    for loss in (torch.nn.CrossEntropyLoss(), DiceCELoss(lambda_dice=0)):
        weigh_classes(loss, weights)
        assert loss(logits, mask).item() == pytest.approx(expected, rel=1e-6)
        assert not loss.state_dict()
    for background in (True, False):
        focal = FocalLoss(include_background=background)
        weigh_classes(focal, weights)
        theirs = monai_losses.FocalLoss(
            include_background=background, to_onehot_y=True, use_softmax=True, weight=weights[not background :]
        )
        assert focal(logits, mask).item() == pytest.approx(theirs(logits, mask[:, None]).item(), rel=1e-6)
    with pytest.raises(UserError, match="TverskyLoss takes none"):
        weigh_classes(TverskyLoss(), weights)
