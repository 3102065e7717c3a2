import pytest

from flexunet_pl.cli.parser_errors import explain_parser_error, model_keys
from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import read_yaml


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("unrecognized arguments: --data.rooot x", "data.rooot: there is no such key; did you mean `data.root`?"),
        ("Subcommand 'fit' does not accept option 'zzz'", "zzz: there is no such key; see --help"),
        ("Parser key \"a.b\":\n  Expected a <class 'int'>. Got value: x", "a.b: x does not fit; expected int"),
        (
            "Parser key \"m.loss\":\n Problem with given class_path 'a.N':\n - Importing 'a.N' is not allowed",
            "m.loss: `a.N` was not imported: only plain values stand there; add `--trust a` if you trust its code",
        ),
        (
            "Parser key \"n\":\n Subtypes: [<class 'a.b.Module'>, <class 'NoneType'>] Errors:\n - no\n Given value: 3",
            "n: 3 does not fit; expected Module, null",
        ),
        ("something else\nentirely", "something else entirely"),
    ],
)
def test_a_parser_s_message_becomes_one_line(message, line):
    assert explain_parser_error(message, ["data.root", "data.seed"]) == line


def test_a_configuration_without_keys_is_named(tmp_path):
    for name, content in {"empty.yaml": "", "list.yaml": "- 1\n"}.items():
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=f"{name}: holds no keys"):
            model_keys(["fit", f"--config={tmp_path / name}"])


def test_the_unreadable_file_is_found(tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("model: {image_size: [32, 32]}\n")
    bad.write_text("a: 1\nb: [1,\nc: }\n")
    assert model_keys(["fit", "-c", str(good), "--model.loss.alpha=1"]) == {"image_size", "loss"}
    with pytest.raises(UserError, match=f"^{bad}, line 3: is no YAML"):
        model_keys(["fit", "-c", str(good), "--config", str(bad)])


def test_a_configuration_is_as_large_as_it_seems(tmp_path):
    rows = [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)]
    for name, text, reason in (
        ("bomb", "a: &a [x, x, x]\n" + "\n".join(rows), "its aliases stand for more than"),
        ("loop", "a: &a [*a]", "its aliases stand for more than"),
        ("deep", "[" * 5000, "is no YAML"),
        ("python", "a: !!python/object/apply:os.system ['true']", "line 1: is no YAML: could not determine"),
        ("bytes", "a: \x00", "is no YAML"),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path}.*{reason}") as refused:
            read_yaml(path)
        assert "\n" not in str(refused.value)
    (tmp_path / "plain.yaml").write_text("a: &a [1, 2]\nb: *a\n")
    assert read_yaml(tmp_path / "plain.yaml") == {"a": [1, 2], "b": [1, 2]}
