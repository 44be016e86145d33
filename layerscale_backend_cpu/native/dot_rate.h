// How fast this processor takes integer dot products: the floor under prefill.
#pragma once

namespace layerscale {

// Multiplications and additions a second of all threads together, the best of a few runs: the instruction that quantised
// products of 4-bit matrices with activations of so many bits are made of, on registers alone.
double measure_dot_rate(int num_threads, int activation_bits);

}  // namespace layerscale
