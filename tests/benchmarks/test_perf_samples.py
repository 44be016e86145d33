"""A profile's symbols are counted, and each belongs to one part."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.perf_samples import PARTS, REST, SYSTEM, Samples, parse_counts, part_of

NATIVE = "_native_avx512.cpython-311-x86_64-linux-gnu.so"
REPORT = f"""\
# Samples: 9  of event 'cpu-clock'
#
#      Samples|Shared Object|Symbol
# ...........|.............|......
 5           |{NATIVE}      |[.] layerscale::multiply_panel
 3           |[kernel.kallsyms]|[k] do_futex
 1           |libpython3.11.so.1.0|[.] _PyEval_EvalFrameDefault
"""


def test_a_report_is_read_line_by_line() -> None:
    samples = Samples(parse_counts(REPORT))
    assert samples.counts == Counter(
        {
            (NATIVE, "layerscale::multiply_panel"): 5,
            ("[kernel.kallsyms]", "do_futex"): 3,
            ("libpython3.11.so.1.0", "_PyEval_EvalFrameDefault"): 1,
        }
    )
    shares = samples.shares()
    assert tuple(shares) == PARTS
    assert {part: share for part, share in shares.items() if share} == {
        "matrix products": 5 / 9,
        SYSTEM: 3 / 9,
        REST: 1 / 9,
    }


@pytest.mark.parametrize(
    ("symbol", "part"),
    [
        ("layerscale::multiply_panel", "matrix products"),
        ("layerscale::(anonymous namespace)::multiply_tokens<8>", "matrix products"),
        ("layerscale::weigh_keys<3, layerscale::(anonymous namespace)::attend<3>", "attention"),
        ("layerscale::Attention::compute", "attention"),
        ("layerscale::KvFormat::store_key", "attention"),
        ("layerscale::Activations::quantize", "quantising activations"),
        ("layerscale::gated_silu", "norms and other elementwise"),
        ("layerscale::Executor::normalize", "norms and other elementwise"),
        ("layerscale::ThreadPool::wait_for_loop", "threads waiting"),
        ("layerscale::ThreadPool::call<layerscale::Executor::multiply(...)::{lambda(int, int)#1}>", "matrix products"),
        ("memset@plt", REST),
    ],
)
def test_a_native_symbol_belongs_to_what_it_computes(symbol: str, part: str) -> None:
    assert part_of(NATIVE, symbol) == part


def test_without_samples_there_are_no_shares() -> None:
    assert set(Samples().shares().values()) == {0.0}
