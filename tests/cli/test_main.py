"""How a command line ends: statuses and lines."""

import pytest

from flexunet_pl.cli.main import VERBS, main
from flexunet_pl.common.errors import RunFailedError, UserError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.png: is no image"), 2, "a.png: is no image"),
        (FileNotFoundError(2, "No such file or directory", "a.png"), 2, "a.png: No such file or directory; look at"),
        (RunFailedError("loss is nan"), 3, "loss is nan"),
        (OSError(28, "No space left on device", "a.png"), 3, "a.png: No space left on device; "),
        (MemoryError("20 GiB"), 3, "memory ran out (20 GiB)"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            ValueError("shapes differ"),
            70,
            "ValueError: shapes differ; this is an error in flexunet: please report",
        ),
        (KeyError("x"), 70, "KeyError: 'x'; this is an error in flexunet"),
        (AssertionError(), 70, "AssertionError: AssertionError; this is an error in flexunet"),
    ],
)
def test_each_kind_of_error_has_its_status_and_one_line(monkeypatch, capsys, error, status, line):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("flexunet_pl.prepare.phantom.write_phantom", fail)
    monkeypatch.setattr("flexunet_pl.cli.main.run_function", lambda function, verb, args: function())
    assert main(["phantom", "x"]) == status
    said = capsys.readouterr().err
    assert said.startswith(f"flexunet: {line}")
    assert said.count("\n") == 1
    with pytest.raises(type(error)):
        main(["phantom", "x", "--debug"])


def test_every_verb_names_a_function_that_explains_itself(capsys):
    for name, verb in VERBS.items():
        if verb.function is not None:
            assert main([name, "--help"]) == 0
            assert f"usage: flexunet {name}" in capsys.readouterr().out
