"""Reading the pipeline's results back from a project folder."""

from pathlib import Path

import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.object_storage import Mirror
from tsds_pipeline.project import Project
from tsds_pipeline.storage import Artifact, artifact_path, read_artifact


def load_selection(project: Project | Path | str, name: str) -> pl.DataFrame:
    """What was drawn for the task or mixture ``name``: a row a draw, as in storage/sampled_subset/<task>.parquet.

    ``project`` is the project or its folder; of one on object storage, what any machine made last. TsdsError where
    there is no result yet.
    """
    project = project if isinstance(project, Project) else Project.load(project)
    if (mirror := Mirror.of(project)) is not None:
        mirror.pull()
    of_task = artifact_path(project.storage, "sampled_subset", name).exists()
    mixed = name in project.settings.mixtures and not of_task
    return load_result(project, "training_mixture" if mixed else "sampled_subset", name).frame


def load_result(project: Project | Path | str, asset: str, name: str) -> Artifact:
    """What ``asset`` stored for the task or mixture ``name``; TsdsError where that is nothing yet."""
    project = project if isinstance(project, Project) else Project.load(project)
    try:
        return read_artifact(artifact_path(project.storage, asset, name))
    except FileNotFoundError:
        kind = "mixture" if asset == "training_mixture" else "task"
        done = ", ".join(sorted(path.stem for path in (project.storage / asset).glob("*.parquet")))
        others = f" (there are results of: {done})" if done else ""
        raise TsdsError(f'{kind} "{name}" has no result yet{others}: run `tsds refresh`') from None
