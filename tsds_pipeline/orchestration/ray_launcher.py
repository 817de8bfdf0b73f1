"""Runs as jobs of a Ray cluster, by dagster-ray (docs/many-machines.md)."""

import shlex

from dagster_ray.core.run_launcher import RayRunLauncher


class RayJobRunLauncher(RayRunLauncher):
    """That of dagster-ray, for any instance: 0.4.8 gives Ray a command line that breaks where dagster.yaml has an
    apostrophe, as that of `tsds dev` has.
    """

    def _launch_ray_job(self, submission_id, entrypoint, run):
        command, _, arguments = entrypoint.partition(" '")
        quoted = shlex.quote(arguments.removesuffix("'"))
        super()._launch_ray_job(submission_id, f"{command} {quoted}", run)
