from __future__ import annotations

import os

from clean_environment import FIXED, clean


def test_what_the_caller_has_set_is_gone() -> None:
    callers = {
        "PATH": "/bin",
        "ZSVSS_GOLDEN": "elsewhere",
        "PYTEST_XDIST_WORKER": "gw0",
        "WANDB_MODE": "offline",
        "HF_HOME": "/weights",
        "ZSVSS_TRACEBACK": "1",
        "OMP_NUM_THREADS": "7",
        "COLUMNS": "40",
        "NO_COLOR": "1",
        "LC_ALL": "tr_TR",
        "LOCAL_RANK": "1",
        "SLURM_NTASKS": "4",
    }
    clean(callers)
    assert callers == {"PATH": "/bin", "ZSVSS_GOLDEN": "elsewhere", "PYTEST_XDIST_WORKER": "gw0", **FIXED}


def test_this_process_is_clean() -> None:
    assert {name: os.environ.get(name) for name in FIXED} == dict(FIXED)
