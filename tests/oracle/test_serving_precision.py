"""What smaller types cost on the real model; ``benchmarks/serving_precision.py`` measures whole texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.serving_precision import measure

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle"), pytest.mark.timeout(600)]

TEXT_LEN = 350
MIN_AGREEMENT = {"int8 KV": 0.98, "int4 KV": 0.90, "int8 activations": 0.975}
MAX_MEAN_KL = {"int8 KV": 0.001, "int4 KV": 0.06, "int8 activations": 0.002}


def test_predictions_stay_close_to_those_of_the_larger_types(real_model_path: Path) -> None:
    costs = measure(real_model_path, TEXT_LEN)
    print(costs)
    assert costs.keys() == MIN_AGREEMENT.keys()
    for name, cost in costs.items():
        assert cost.num_positions >= 2000
        assert cost.top1_agreement >= MIN_AGREEMENT[name]
        assert 0 < cost.mean_kl <= MAX_MEAN_KL[name]
