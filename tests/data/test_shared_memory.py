import pickle

import pytest
import torch
from pretend_device import running

from zsvss.data.shared_memory import Slot


def images(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(256, shape, dtype=torch.uint8, generator=generator) for shape in shapes]


@pytest.fixture(params=[True, False], ids=["anonymous", "in a folder"])
def slot(request, monkeypatch, tmp_path):
    if not request.param:
        monkeypatch.delattr("os.memfd_create", raising=False)
    slot = Slot(str(tmp_path))
    yield slot
    slot.close()
    assert not list(tmp_path.iterdir())


def test_another_process_takes_what_one_has_put(slot):
    theirs = pickle.loads(pickle.dumps(slot))
    # Smaller, larger, empty and odd contents one after the other: the slot grows, and nothing old shines through.
    for seed, shapes in enumerate([[(2, 3, 5, 3)], [(1, 1)], [(7, 40, 50, 3), (7, 40, 50), (3,)], [], [(2, 3, 5, 3)]]):
        wanted = images(*shapes, seed=seed)
        taken = slot.take(theirs.put(wanted))
        assert len(taken) == len(wanted)
        assert all(torch.equal(*pair) for pair in zip(taken, wanted, strict=True))


def test_what_was_taken_stays(slot):
    first, second = images((4, 5), (4, 5))
    (taken,) = slot.take(slot.put([first]))
    slot.put([second])
    assert torch.equal(taken, first)


def test_what_was_taken_is_pinned_where_a_run_is_on_a_device_and_nowhere_else(slot):
    places = slot.put(images((4, 5)))
    with running():
        assert [slot.take(places, pinned=pinned)[0].is_pinned() for pinned in (True, False)] == [True, False]
