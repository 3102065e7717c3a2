"""YAML files: what is refused before anything of it is used."""

import pytest

from flexunet_pl.common.errors import UserError
from flexunet_pl.common.yaml import read_yaml


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "rgb_map: {x: [0, 0, 0], y: [1, 1, 1], x: [2, 2, 2]}\n"])
def test_a_key_that_stands_twice_is_refused_by_its_line(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError, match=r"c\.yaml: line [13]: `[ax]` stands twice"):
        read_yaml(tmp_path / "c.yaml")
