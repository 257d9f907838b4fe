"""The environment of all tests, whatever the caller's is; importing this module takes away what could matter to them.

A list of what stays is shorter than one of what libraries read (W&B, Hugging Face, Lightning, SLURM, Rich, OpenMP ...)
and does not age.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

# The system's own, where Python and its libraries lie, and which GPUs there are.
_KEPT = {
    *("HOME", "LOGNAME", "PATH", "PYTHONPATH", "SHELL", "TMPDIR", "USER", "VIRTUAL_ENV"),
    *("CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "NVIDIA_VISIBLE_DEVICES"),
    # What a caller may give tests to read.
    *("ZSVSS_CAMVID", "ZSVSS_CASES", "ZSVSS_GOLDEN", "ZSVSS_GPU_TESTS_ON", "ZSVSS_KILL_SEED"),
}
_KEPT_PREFIXES = ("COV_", "COVERAGE_", "PYTEST_")

FIXED: Mapping[str, str] = {
    "COLUMNS": "120",
    "HF_HOME": str(Path(tempfile.gettempdir()) / "zsvss-tests-without-a-hub"),  # weights of the caller's are not there
    "HF_HUB_OFFLINE": "1",
    "LANG": "C.UTF-8",
    # Several processes share the cores (pytest's and those that tests start): with a thread a core in each of them,
    # small operations take many times longer. Must be set before torch is imported.
    "OMP_NUM_THREADS": "1",
    "TERM": "dumb",
}
"""What is set, in place of what the caller has."""


def clean(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take away what is not known to be harmless, and set what tests rely on."""
    for name in list(environment):
        if name not in _KEPT and not name.startswith(_KEPT_PREFIXES):
            del environment[name]
    environment.update(FIXED)


clean()
