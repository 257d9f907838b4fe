import pytest
from torch import distributed

from zsvss.gathering import gather, patient_group


def test_one_process_needs_no_group():
    assert patient_group() is None
    assert gather("alone") == ["alone"]


@pytest.fixture
def unconnected(monkeypatch):
    def refuse(**_options):
        raise RuntimeError("connectFullMesh failed")

    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "new_group", refuse)


@pytest.mark.parametrize(("chosen", "said"), [(None, "not set"), ("lo", "lo")])
def test_nodes_that_do_not_reach_each_other_are_told_of_the_interface(unconnected, monkeypatch, chosen, said):
    if chosen is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    else:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", chosen)
    with pytest.raises(ConnectionError, match=rf"2 nodes.*connectFullMesh failed.*GLOO_SOCKET_IFNAME is {said}"):
        patient_group(num_nodes=2)


def test_on_one_node_the_interface_is_not_blamed(unconnected):
    with pytest.raises(RuntimeError, match=r"^connectFullMesh failed"):
        patient_group(num_nodes=1)
