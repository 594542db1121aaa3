"""A toy model trains on one thread of torch, where the user has not set how many."""

import pytest
import torch

from lusifer.training import processes


@pytest.mark.parametrize(
    ("parameters", "setting", "during"), [(processes.TOY - 1, None, 1), (processes.TOY, None, 2), (1, "2", 2)]
)
def test_a_toy_model_has_one_thread_while_it_trains(monkeypatch, parameters, setting, during) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if setting is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError), processes.threads_for(parameters):
            assert torch.get_num_threads() == during
            raise RuntimeError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
