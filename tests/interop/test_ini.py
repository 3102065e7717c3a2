"""The original's INI dialect."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexunet_pl.common.errors import UserError
from flexunet_pl.interop.config.ini import Ini, read_literal, read_string


def _values(text):
    return {place: setting.value for place, setting in Ini(text, "c").settings.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[a]\nk = 1", "1"),
        ("[a]\nk=1", "1"),
        ("[a]\nk : 1", "1"),
        ("[a]\nk\t=\t1\t", "1"),
        ("\ufeff[a]\r\nk = 1\r\n", "1"),
        ("[a] \nk = 1   ", "1"),
        ("[a] ; about a\nK = 1 ; about k", "1"),
        ("[a]\nk = 1 # about k", "1"),
        ("[a]\n# k = 2\n; k = 3\nk = 1", "1"),
        ('[a]\nk = "x;y#z" ; end', '"x;y#z"'),
        ("[a]\nk = 50% of it", "50% of it"),
        ("[a]\nk = {1:2,\\\n  3:4}", "{1:2,\n3:4}"),
        ("[a]\nk = {1:2,\\ \n  3:4}", "{1:2,\n3:4}"),
        ("[a]\nk = {1:2,\n\n  ; between\n  3:4} ; end", "{1:2,\n3:4}"),
        ("  [a]\n  k = 1\n  l = 2", "1"),
        ("[a]\nk = C:\\data\\train", "C:\\data\\train"),
        ("[a]\nk =", ""),
        ("[a]\nk = größe", "größe"),
    ],
)
def test_settings_are_read(text, value):
    assert _values(text)["a", "k"] == value


def test_settings_know_their_lines_and_the_comments_beside_them():
    ini = Ini("; head\n[a]\nx = 1\n; above\ny = {1,\n  ; inside\n  2} # behind\n; below\nz = 3", "c")
    y = ini.settings["a", "y"]
    assert (y.line, y.comments) == (5, ((4, "above"), (6, "inside"), (7, "behind")))
    assert ini.settings["a", "z"].comments == ((8, "below"),)
    assert y.raw == "{1,\n2} # behind"


@pytest.mark.case("F3")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nk = 1\n[b]\n[a]\n", "c, line 4: section [a] began in line 2 already"),
        ("[a]\nk = 1\n\nK = 2", "c, line 4: [a] k stands in line 2 already"),
        ("[a]\nnonsense", "c, line 2: expected `[section]` or `key = value`, found `nonsense`"),
        ("k = 1", "c, line 1: `k` stands before the first [section]"),
        ("[a\nk = 1", "c, line 1: expected `[section]`, found `[a`"),
        ("[a] b\nk = 1", "c, line 1: expected `[section]`, found `[a] b`"),
        ("[a]\n= 1", "c, line 2: expected"),
        ("[a]\nabc" + " " * 200_000 + "def", "c, line 2: expected"),
        ("[DEFAULT]\nk = 1", "c, line 1: [DEFAULT] sets keys of all sections at once"),
        ("a\0b", "is no configuration"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_place(text, message):
    text = text.replace("[a]\nk = 1\n[b]", "\n[a]\n[b]")
    with pytest.raises(UserError, match=re.escape(message)):
        Ini(text, "c")


@pytest.mark.case("F3")
@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "name",
        "1 +",
        "{(0,0,0):0,]",
        "[" * 300 + "]" * 300,
        "9" * 5000,
        "-" * 100_000 + "1",
        "{(0,0,0): 0, (0,0,0): 1}",
        "",
    ],
)
def test_what_is_no_literal_is_refused_and_never_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no literal|twice"):
        read_literal(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"./a/b"', "./a/b"),
        ("'./a/b'", "./a/b"),
        ("./a b/c", "./a b/c"),
        (r'"..\train\new"', r"..\train\new"),
        (r'"C:\\data\\x"', r"C:\data\x"),
        ('r"a\\b"', "a\\b"),
        ('" x "', "x"),
        ('"./it\'s/"', "./it's/"),
    ],
)
def test_strings_are_read_quoted_and_unquoted(text, value):
    assert read_string(text) == value


@pytest.mark.parametrize("text", ["", '""', '"a', "a'", "f(x)", "[1]", '"a" + "b"', "a\nb"])
def test_what_is_no_string_is_refused(text):
    with pytest.raises(ValueError, match="no string"):
        read_string(text)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    message = ""
    try:
        Ini(text, "c")
    except UserError as error:
        message = str(error)
    assert "\n" not in message


_NAMES = st.text(alphabet="abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8)
_LITERALS = st.recursive(
    st.one_of(st.integers(-(10**6), 10**6), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.none())
    | st.text(alphabet="abc ;#=:[]%", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=6,
)


@given(
    st.dictionaries(_NAMES, st.dictionaries(_NAMES, _LITERALS, max_size=4), max_size=4),
    st.sampled_from([" = ", "=", " : ", "\t=\t"]),
    st.sampled_from(["", "  ", " ; 1 = 2", " # [x]"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
def test_what_is_written_is_read_again(content, delimiter, tail, end, bom):
    lines = ["\ufeff" if bom else ""]
    for section, settings in content.items():
        lines += [f"[{section}]{tail}", *(f"{key}{delimiter}{value!r}{tail}" for key, value in settings.items()), "; c"]
    read = Ini(end.join(lines).replace("\ufeff" + end, "\ufeff"), "c").settings
    assert {place: read_literal(setting.value) for place, setting in read.items()} == {
        (section, key): value for section, settings in content.items() for key, value in settings.items()
    }
