"""The parts of Dagster's instance that are this project's own."""

import os
import time
from pathlib import Path

from user_processing.instance import AgeingComputeLogs

DAY = 24 * 60 * 60  # seconds


def test_what_runs_print_is_kept_for_a_time(tmp_path: Path) -> None:
    logs = AgeingComputeLogs.from_config_value(None, {"base_dir": str(tmp_path), "days_kept": 30})
    for run, days in {"old": 31, "young": 29}.items():
        with logs.capture_logs([run, "compute_logs", "step"]):
            pass
        moment = time.time() - days * DAY
        os.utime(tmp_path / run / "compute_logs", (moment, moment))
    with logs.capture_logs(["new", "compute_logs", "step"]):
        pass
    assert {run.name for run in tmp_path.iterdir()} == {"young", "new"}
    assert logs.is_capture_complete(["young", "compute_logs", "step"])
