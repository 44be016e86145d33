"""Logits that stay on the device: what is read of them, and that the answers are the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from layerscale_core.engine.sampler import find_likeliest
from layerscale_core.gpu.logits import TorchLogits
from layerscale_core.specs import StepBatch
from tests.support.engine_harness import EngineHarness, make_harness

UNREAD = float("nan")


class LogitsOnTheDevice:
    """Makes a fake executor keep its logits, and remembers how many rows of each step were read."""

    def __init__(self, harness: EngineHarness) -> None:
        self._hosts: list[torch.Tensor] = []
        self._step: Callable[[StepBatch], NDArray[np.float32]] = harness.executor.step
        harness.executor.step = self.step  # type: ignore[assignment, method-assign]

    def step(self, batch: StepBatch) -> TorchLogits:
        logits = self._step(batch)
        self._hosts.append(torch.full(logits.shape, UNREAD))
        return TorchLogits(torch.from_numpy(logits), self._hosts[-1], find_likeliest(logits))

    @property
    def rows_read(self) -> list[int]:
        return [int((~host.isnan().all(dim=1)).sum()) for host in self._hosts]


def submit_all(harness: EngineHarness, requests: dict[str, dict[str, object]]) -> None:
    for number, (request_id, sampling) in enumerate(requests.items()):
        harness.submit(request_id, [1, 2, 3, number], **sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("requests", "rows_read"),
    [
        ({"greedy": {}, "another": {}}, [0, 0, 0, 0, 0]),
        ({"greedy": {}, "sampled": {"temperature": 1.0, "seed": 3}}, [1, 1, 1, 1, 1]),
        ({"penalised": {"repetition_penalty": 1.3}}, [1, 1, 1, 1, 1]),
        ({"with log-probabilities": {"logprobs": 2}, "greedy": {}}, [1, 1, 1, 1, 1]),
        ({"with the gap": {"logit_gap": True}}, [1, 0, 0, 0, 0]),
        ({"scored": {"prompt_logprobs": 1}}, [3, 0, 0, 0, 0]),
    ],
    ids=lambda value: " and ".join(value) if isinstance(value, dict) else "",
)
def test_rows_come_to_the_host_where_more_than_the_likeliest_token_is_wanted(
    requests: dict[str, dict[str, object]], rows_read: list[int]
) -> None:
    harness, on_host = make_harness(), make_harness()
    device = LogitsOnTheDevice(harness)
    for each in (harness, on_host):
        submit_all(each, requests)
        each.run()
        each.check_at_rest()
    assert device.rows_read == rows_read
    for request_id in requests:
        assert harness.sinks[request_id].events == on_host.sinks[request_id].events


def test_they_read_as_the_array_they_stand_for() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    logits = TorchLogits(torch.from_numpy(values), torch.empty(4, 3), [2, 2, 2, 2])
    assert logits.shape == values.shape
    np.testing.assert_array_equal(logits[-1], values[-1])
    np.testing.assert_array_equal(np.asarray(logits), values)
    kept = logits.copy()
    logits.host.fill_(UNREAD)
    np.testing.assert_array_equal(kept, values)
