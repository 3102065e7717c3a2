"""Write a report as one self-contained page of HTML, and as Markdown with its pictures beside it."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import escape

from flexunet_pl.common.files import written_in_place
from flexunet_pl.report.blocks import Picture, Section, Table, Text

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # names of files may hold them


def write_html(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write a page that needs nothing but itself.

    Args:
        path: The file.
        title: Its title.
        sections: What stands in it.
    """
    environment = Environment(loader=PackageLoader("flexunet_pl.report", "."), autoescape=True, trim_blocks=True)
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    page = environment.get_template("page.html.j2").render(title=title, sections=sections, kind=_kind)
    with written_in_place(path) as temporary:
        temporary.write_text(_CONTROL.sub("?", page), encoding="utf-8")


def write_markdown(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write Markdown, and the pictures to a folder beside it.

    Args:
        path: The file.
        title: Its title.
        sections: What stands in it.
    """
    pictures = path.with_name(f"{path.stem}_files")
    pictures.mkdir(exist_ok=True)
    lines = [f"# {_plain(title)}", ""]
    for section in sections:
        lines += [f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            if isinstance(block, Picture):
                with written_in_place(pictures / f"{block.name}.png") as temporary:
                    temporary.write_bytes(block.png)
                lines += [
                    f"![{_plain(block.caption)}]({pictures.name}/{block.name}.png)",
                    "",
                    _plain(block.caption),
                    "",
                ]
            else:
                lines += [*(_table_lines(block) if isinstance(block, Table) else _text_lines(block)), ""]
    with written_in_place(path) as temporary:
        temporary.write_text(_CONTROL.sub("?", "\n".join(lines)), encoding="utf-8")


def _kind(block: Text | Table | Picture) -> str:
    return type(block).__name__


def _table_lines(table: Table) -> list[str]:
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in rows]
    return [*lines, "", _plain(table.caption)] if table.caption else lines


def _text_lines(text: Text) -> list[str]:
    if text.kind == "code":
        return [
            f"<details><summary>{_plain(text.title)}</summary>",
            "",
            "<pre>",
            str(escape(text.text)),
            "</pre>",
            "</details>",
        ]
    return [f"> **Note.** {_plain(text.text)}" if text.kind == "warning" else _plain(text.text)]


def _plain(text: str) -> str:
    """Take from a text what Markdown or HTML would take for more than text; names of classes may hold anything."""
    return str(escape(" ".join(text.split()))).replace("|", "\\|").replace("`", "'").replace("](", "] (")
