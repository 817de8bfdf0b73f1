"""How often each task's sample was drawn again on purpose: a fresh sample with the same settings and seed.

The number is an input of the draw like the seed, kept in storage/redraws/<task>.json.
"""

import json

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.places import shown
from tsds_pipeline.project import Project
from tsds_pipeline.storage import write_atomically

FOLDER = "redraws"


def redraws(project: Project, task: str) -> int:
    """How often the sample of ``task`` was drawn again; 0 for one that never was."""
    path = project.storage / FOLDER / f"{task}.json"
    try:
        return int(json.loads(path.read_text("utf-8"))["redraws"])
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        raise TsdsError(
            f"{shown(project.root, path)}: cannot be read: delete it; the task's first sample is drawn then"
        ) from None


def add_redraw(project: Project, task: str) -> int:
    """Have the next refresh of ``task`` draw a fresh sample; the new number."""
    number = redraws(project, task) + 1
    path = project.storage / FOLDER / f"{task}.json"
    write_atomically(path, lambda p: p.write_text(json.dumps({"redraws": number}), "utf-8"))
    return number
