// How fast this processor takes integer dot products: the floor under prefill.
#pragma once

namespace layerscale {

// Multiplications and additions a second of all threads together, the best of a few runs: the instruction that quantised
// matrix products are made of, on registers alone.
double measure_dot_rate(int num_threads);

}  // namespace layerscale
