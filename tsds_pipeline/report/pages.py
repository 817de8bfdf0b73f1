"""Self-contained HTML pages: no script, nothing loaded, every text from data escaped."""

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsds_pipeline.project import Project
from tsds_pipeline.storage import write_atomically

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_HEAD = 1000


def page_path(project: Project, task: str) -> Path:
    """Where the report of ``task`` is."""
    return project.reports / f"{task}.html"


def comparison_path(project: Project, task: str) -> Path:
    """Where the comparison of ``task`` with other methods is."""
    return project.reports / f"{task}.comparison.html"


PAGES = {"selection_report": page_path, "selection_comparison": comparison_path}
"""Where each asset that has a page for each task writes it."""


def calibration_path(project: Project) -> Path:
    """Where the page of `tsds calibrate` is: no task can have that name."""
    return project.reports / "_calibrate.html"


def svg(picture: str) -> "Markup":
    """A picture of ``pictures.as_svg``, to stand in a page as it is."""
    from markupsafe import Markup

    return Markup(picture)


def write_page(path: Path, template: str, version: str, **values: Any) -> None:
    """Fill in ``template``, an HTML file of this folder, and write it to ``path``, which names ``version``."""
    page = _environment().get_template(template).render(version=version, **values)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Pages show the texts of the project; one who wants to share a page takes it from here.
        with suppress(FileExistsError), (path.parent / ".gitignore").open("x") as ignored:
            ignored.write("*\n")
    write_atomically(path, lambda target: target.write_text(page, "utf-8", newline="\n"))


def version_of(path: Path) -> str | None:
    """The version that the page at ``path`` names; None where there is no such page."""
    try:
        with path.open(encoding="utf-8") as file:
            found = re.search(r'name="tsds-version" content="([^"]*)"', file.read(_HEAD))
    except (OSError, UnicodeDecodeError):
        return None
    return found and found[1]


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    return Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
