"""What of the device decides a run's numbers."""

import pytest
from pretend_device import DEVICE

from zsvss.results import fingerprint
from zsvss.results.fingerprint import device_facts, differences
from zsvss.stages.precision import full_precision


def test_a_device_is_told_by_its_model_and_how_it_multiplies():
    facts = device_facts(DEVICE)
    assert facts["device"] == "pretend (Pretend)"
    assert facts["deterministic"] is False
    assert facts["tf32.convolution"] == "tf32", "PyTorch's default"
    with full_precision(DEVICE):
        assert differences(facts, device_facts(DEVICE)) == {"tf32.convolution": ("tf32", "ieee")}


@pytest.mark.parametrize("order", [1, -1])
def test_processes_on_different_models_are_no_run_of_one(monkeypatch, order):
    monkeypatch.setattr(fingerprint, "gather", lambda model: [model, "cuda (Other)"][::order])
    assert device_facts(DEVICE)["device"] == "cuda (Other), pretend (Pretend)"
