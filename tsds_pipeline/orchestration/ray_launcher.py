"""Runs as jobs of a Ray cluster, by dagster-ray (docs/many-machines.md)."""

import shlex

import dagster as dg
from dagster_ray.core.run_launcher import RayRunLauncher


class RayJobRunLauncher(RayRunLauncher):
    """That of dagster-ray, for every instance; see :func:`quoted`."""

    def _launch_ray_job(self, submission_id: str, entrypoint: str, run: dg.DagsterRun) -> None:
        super()._launch_ray_job(submission_id, quoted(entrypoint), run)


def quoted(entrypoint: str) -> str:
    """The shell command ``entrypoint``, whose last word dagster-ray 0.4.8 puts between apostrophes as it is.

    It is what dagster.yaml says, as JSON, and that of `tsds dev` has apostrophes itself.
    """
    command, _, last = entrypoint.partition(" '")
    return f"{command} {shlex.quote(last.removesuffix(chr(39)))}"
