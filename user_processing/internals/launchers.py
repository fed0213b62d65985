"""The launcher of runs, named in `dagster.yaml`: Dagster's own, mended in two places.

A run that its code server did not start waits in the queue. Dagster's queue waits for a server that cannot be reached,
as often as `max_user_code_failure_retries` in `dagster.yaml` says (dagster-io/dagster#11406, with 0 as the default).
It does not wait for one that answers and refuses, as it does while it ends (dagster-io/dagster#14154). `launch_run` can
be deleted when Dagster's queue waits for that, too.

A run whose process is gone is noticed. Dagster's own launcher cannot tell (dagster-io/dagster#4319), and the run
stays STARTED until its maximum runtime. `check_run_worker_health` can be deleted when DefaultRunLauncher has one that
covers the runs of a command line.
"""

from dagster._core.errors import DagsterLaunchFailedError, DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, LaunchRunContext, WorkerStatus
from dagster._core.storage.dagster_run import DagsterRun
from dagster._serdes import ConfigurableClassData

from user_processing.internals.storage import PROCESS, WatchedRuns


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts runs as Dagster does by default, in processes of the code server, and can tell whether one lives."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._missed: set[str] = set()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Ask the code server to start the run.

        Raises:
            DagsterUserCodeUnreachableError: the server cannot be reached, or it refused: it is ending, it could not
                load the code, or the process of the run died before the run began. None of that is the run's fault, and
                nothing of it has happened yet. The queue keeps the run, and tries it again.
        """
        try:
            super().launch_run(context)
        except DagsterLaunchFailedError as error:
            told = error.serializable_error_info
            reason = error.args[0] or (told.message if told else "It does not say why.")
            raise DagsterUserCodeUnreachableError(
                f"The code server did not start the run, which waits in the queue. {reason}"
            ) from error

    @property
    def supports_check_run_worker_health(self) -> bool:
        """True: the monitoring daemon asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Look whether a process holds the run's lock; one whose connection broke has until the next look for it."""
        process, runs = run.tags.get(PROCESS), self._instance.run_storage
        if process is None or not isinstance(runs, WatchedRuns) or not runs.run_lock_is_free(run.run_id):
            self._missed.discard(run.run_id)
        elif run.run_id in self._missed:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Process {process}, which executed it, is gone.")
        else:
            self._missed.add(run.run_id)
        return CheckRunHealthResult(WorkerStatus.RUNNING)
