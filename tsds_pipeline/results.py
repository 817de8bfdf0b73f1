"""Reading the pipeline's results back from a project folder."""

from pathlib import Path

import polars as pl

from tsds_pipeline.errors import TsdsError
from tsds_pipeline.object_storage import Mirror
from tsds_pipeline.project import Project
from tsds_pipeline.storage import Artifact, artifact_path, read_artifact


def load_selection(project: Project | Path | str, task: str) -> pl.DataFrame:
    """The sampled subset of ``task``: a row a draw, as in storage/sampled_subset/<task>.parquet.

    ``project`` is the project or its folder; of one on object storage, what any machine made last. TsdsError where
    there is no result yet.
    """
    project = project if isinstance(project, Project) else Project.load(project)
    if (mirror := Mirror.of(project)) is not None:
        mirror.pull()
    return load_result(project, "sampled_subset", task).frame


def load_result(project: Project | Path | str, asset: str, task: str) -> Artifact:
    """What ``asset`` stored for ``task``; TsdsError where that is nothing yet."""
    project = project if isinstance(project, Project) else Project.load(project)
    try:
        return read_artifact(artifact_path(project.storage, asset, task))
    except FileNotFoundError:
        done = ", ".join(sorted(path.stem for path in (project.storage / asset).glob("*.parquet")))
        others = f" (there are results of: {done})" if done else ""
        raise TsdsError(f'task "{task}" has no result yet{others}: run `tsds refresh`') from None
