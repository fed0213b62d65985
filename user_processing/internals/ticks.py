"""Two things that the daemons know, and Dagster says to nobody else."""

import dagster as dg
from dagster._core.definitions.run_request import DagsterRunReaction
from dagster._daemon.controller import all_daemons_live


def failure_was_told(run: dg.DagsterRun) -> DagsterRunReaction:
    """What a run failure sensor returns when it has told of a run: the tick ends, and the cursor moves past the run.

    After None, Dagster goes on to the next run in the same tick, and a skip reason for that one is an error: the tick
    is repeated for ever, and so is the first alert. Can be deleted when a sensor that returns None for one run and a
    skip reason for the next moves its cursor.
    """
    return DagsterRunReaction(run, run_status=dg.DagsterRunStatus.FAILURE)


def daemons_are_alive(instance: dg.DagsterInstance) -> bool:
    """Whether something launches what is queued. Can be deleted when `DagsterInstance` says so publicly."""
    return all_daemons_live(instance)
