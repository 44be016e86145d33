"""What ``--quantization`` costs on the real model; ``benchmarks/weight_precision.py`` measures whole texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.weight_precision import measure
from layerscale_core.models.quantize import Quantization

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle"), pytest.mark.timeout(600)]

TEXT_LEN = 60
MIN_AGREEMENT = {"as it is": 0.995, Quantization.INT8: 0.96, Quantization.INT4: 0.82}
MAX_MEAN_KL = {"as it is": 0.0001, Quantization.INT8: 0.003, Quantization.INT4: 0.12}


def test_predictions_stay_close_to_those_of_the_floats(real_model_path: Path) -> None:
    costs = measure(real_model_path, [Quantization.INT8, Quantization.INT4], max_text_len=TEXT_LEN)
    print(costs)
    assert costs.keys() == MIN_AGREEMENT.keys()
    for name, cost in costs.items():
        assert cost.num_positions >= 300
        assert cost.top1_agreement >= MIN_AGREEMENT[name]
        assert 0 < cost.mean_kl <= MAX_MEAN_KL[name]
