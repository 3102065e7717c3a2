"""The verb `report`: one page that shows a run."""

from pathlib import Path

from flexunet_pl.common.console import say
from flexunet_pl.common.errors import UserError
from flexunet_pl.report.blocks import Section, Text
from flexunet_pl.report.case_panels import case_section
from flexunet_pl.report.render import write_html, write_markdown
from flexunet_pl.report.run_folder import Run, read_run
from flexunet_pl.report.scores import original_section, score_section, spread_section, trust_section
from flexunet_pl.report.training import curve_section, data_section, film_section, run_section


def write_report(run: Path, out: Path | None = None) -> Path:
    """Show a run on one page: scores with intervals, cases, curves, film strip, data, configuration.

    Writes report.html, which needs nothing but itself, and report.md with its pictures in report_files.

    Args:
        run: Folder of the run, such as runs/flexunet/version_0.
        out: Folder for the report; by default that of the run.

    Returns:
        The page.

    Raises:
        UserError: If the folder is not that of a run, or a file in it is damaged.
    """
    found = read_run(run)
    folder = out if out is not None else run
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for the report")
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections(found)
    title = f"{run.resolve().parent.name} {run.resolve().name}: {', '.join(found.rgb_map.names[1:])}"
    write_markdown(folder / "report.md", title, sections)
    write_html(folder / "report.html", title, sections)
    say(f"report written to {folder / 'report.html'} and report.md")
    return folder / "report.html"


def _sections(run: Run) -> list[Section]:
    tested = run.test
    try:
        of_run = [f(run) for f in (curve_section, film_section, data_section, run_section)]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{run.folder}: config.yaml or run.json is damaged or was edited ({error!r})") from error
    if tested is None:
        command = f"flexunet test --ckpt_path {run.folder / 'checkpoints' / 'best.ckpt'}"
        of_test = [Section("Scores on the test data", [Text(f"The run was not tested yet: {command}", "warning")])]
    else:
        try:
            of_test = [
                f(run, tested) for f in (score_section, case_section, spread_section, trust_section, original_section)
            ]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{tested.folder}: its tables are damaged ({error!r}); run flexunet test again") from error
    return [*of_test, *of_run]
