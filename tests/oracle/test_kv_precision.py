"""What int8 and int4 cost on the real model; ``benchmarks/kv_precision.py`` measures whole texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kv_precision import measure
from layerscale_core.specs import KVType

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("oracle"), pytest.mark.timeout(600)]

TEXT_LEN = 350
MIN_AGREEMENT = {KVType.INT8: 0.98, KVType.INT4: 0.90}
MAX_MEAN_KL = {KVType.INT8: 0.001, KVType.INT4: 0.06}


def test_predictions_stay_close_to_those_of_fp16(real_model_path: Path) -> None:
    costs = measure(real_model_path, list(MIN_AGREEMENT), TEXT_LEN)
    print(costs)
    for kv_type, cost in costs.items():
        assert cost.num_positions >= 2000
        assert cost.top1_agreement >= MIN_AGREEMENT[kv_type]
        assert 0 < cost.mean_kl <= MAX_MEAN_KL[kv_type]
