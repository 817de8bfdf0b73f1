"""Runs as processes of a code server that stays up when the daemon ends, as in production (infra/dagster.yaml).

`tsds dev` needs nothing of this: there all processes end together.
"""

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster._serdes import deserialize_value

from tsds_pipeline.errors import TsdsError

_PATIENCE = 10
"""Seconds that a code server has to answer."""


class CodeServerRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, which can also say whether the process of a run is still there.

    Dagster's run monitoring ends a run that is not: with the default launcher, one that was lost with its code
    server would stay under way, and keep its partition from being made, for ever.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """See Dagster."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """RUNNING unless the code server that ``run`` was given to answers that it has no such process.

        One that does not answer may only be busy, or starting again: what it has lost it says then. What was given
        to none runs in the process of a `tsds refresh`, of whose end its lock tells.
        """
        client = self._get_grpc_client_for_termination(run.run_id)
        if client is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "no run of a code server")
        try:
            answer = client.can_cancel_execution(
                CanCancelExecutionRequest(run_id=run.run_id), timeout=_PATIENCE
            )
        except DagsterUserCodeUnreachableError:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its code server does not answer")
        if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process ended with the code server")


def may_be_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether ``run`` outlives the daemon, as a process of a code server or a job of a cluster, and is there still.

    Raises :class:`TsdsError` where whoever runs it cannot be asked.
    """
    try:
        launcher = instance.run_launcher
        if isinstance(launcher, CodeServerRunLauncher) and GRPC_INFO_TAG not in run.tags:
            return False
        if not launcher.supports_check_run_worker_health:
            return False
        status = launcher.check_run_worker_health(run).status
    except Exception as error:  # those of Ray and of Kubernetes have nothing in common
        raise TsdsError(
            f"run {run.run_id}: the run launcher of dagster.yaml cannot be asked whether it is there "
            f"({(str(error) or type(error).__name__).splitlines()[0]}): mend it, or terminate the run in the UI"
        ) from error
    # As Dagster's run monitoring has it: what nobody knows of is lost.
    return status in (WorkerStatus.RUNNING, WorkerStatus.SUCCESS)
