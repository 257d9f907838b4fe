import importlib.util
import json
from pathlib import Path

import pytest
from warm_python import Start

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def worker():
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def one_process(worker):
    return worker.evaluate(range(len(worker.LENGTHS)))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_any_number_of_processes_gives_the_bits_of_one(world_size, worker, one_process, warm_python, tmp_path):
    code = f"import runpy; runpy.run_path({str(WORKER)!r}, run_name='__main__')"
    (finished,) = warm_python.run(Start(["-c", code, str(world_size), str(tmp_path)], str(tmp_path)))
    assert finished.returncode == 0, finished.stderr
    nothing = worker.nothing_anywhere()
    assert set(nothing.values()) == {"nan"}
    assert "nan" not in one_process.values()
    for rank in range(world_size - 1):
        assert f"process {rank} waited in vain" in (tmp_path / f"bereaved-{rank}").read_text()
    for rank in range(world_size):
        scores = json.loads((tmp_path / f"{rank}.json").read_text())
        assert scores.pop("world_size") == world_size
        assert scores.pop("gathered") == [f"of {other}" for other in range(world_size)]
        assert scores.pop("nothing") == nothing
        assert list(scores) == list(worker.SPLITS)
        for split, numbers in scores.items():
            assert numbers == one_process, split
