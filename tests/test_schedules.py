"""The rate over a training, whose end is a time, a number of steps or of epochs."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from torch import nn

from flexunet_pl.common.errors import UserError
from flexunet_pl.optimization import share_of_training
from flexunet_pl.schedules import WarmupStableDecay


def schedule(**options):
    optimizer = torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=1.0)
    return WarmupStableDecay(optimizer, **options)


def rates(of, shares):
    found = []
    for share in shares:
        found.append(of.get_last_lr()[0])
        of.optimizer.step()
        of.advance(share)
    return found


def test_the_rate_rises_stays_and_falls_to_0_at_the_end():
    one = schedule(warmup_steps=4, decay=0.5)
    found = rates(one, [(i + 1) / 20 for i in range(20)])
    assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert found[5:10] == [1.0] * 5
    assert found[10:] == pytest.approx([1 - i / 11 for i in range(1, 11)])
    assert one.is_done
    assert one.get_last_lr() == [0.0]


def test_only_the_moment_of_the_fall_depends_on_the_clock():
    even = rates(schedule(warmup_steps=0), [(i + 1) / 100 for i in range(100)])
    uneven = rates(schedule(warmup_steps=0), [(i / 100) ** 1.01 for i in range(69)] + [0.7] + [0.71] * 30)
    assert even == uneven


def test_a_resumed_run_takes_the_same_rates():
    whole, first, second = schedule(), schedule(), schedule()
    shares = [(i + 1) / 60 for i in range(60)]
    expected = rates(whole, shares)
    assert rates(first, shares[:50]) == expected[:50]
    second.load_state_dict(first.state_dict())
    assert second.falls_from == 42
    # a clock that went another way meanwhile
    assert rates(second, [0.8] * 10) == expected[50:]


def test_where_steps_become_slow_the_rate_still_falls_to_0():
    one = schedule(warmup_steps=0)
    shares = [(i + 1) / 100 for i in range(70)] + [0.7 + 0.02 * (i + 1) for i in range(15)]
    found = rates(one, shares)
    assert one.is_done or one.get_last_lr()[0] < 0.1
    assert found[70:] == sorted(found[70:], reverse=True)


@pytest.mark.parametrize("options", [{"warmup_steps": -1}, {"decay": 0.0}, {"decay": 1.1}])
def test_values_out_of_range_are_said(options):
    with pytest.raises(UserError, match=r"model\.scheduler"):
        schedule(**options)


def test_the_share_is_that_of_the_limit_which_comes_first(monkeypatch):
    trainer = Trainer(max_time={"seconds": 100}, max_steps=10, logger=False, enable_checkpointing=False)
    (timer,) = (c for c in trainer.callbacks if isinstance(c, Timer))
    monkeypatch.setattr(timer, "time_elapsed", lambda *_: 49.0)
    monkeypatch.setattr(Trainer, "global_step", 2)
    assert share_of_training(trainer) == pytest.approx(0.5)  # which is a little ahead of the clock
    monkeypatch.setattr(Trainer, "global_step", 8)
    assert share_of_training(trainer) == pytest.approx(0.8)
    monkeypatch.setattr(timer, "time_elapsed", lambda *_: 200.0)
    assert share_of_training(trainer) == 1.0
