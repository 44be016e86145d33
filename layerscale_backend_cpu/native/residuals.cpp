#include "residuals.h"

#include <algorithm>

#include "steps.h"

namespace layerscale {

namespace {

// A group of a panel, unpacked once for all tokens that need it.
template <typename K>
struct Unpacked {
    static constexpr int kScales = kGroup / K::kGroupSize;
    static constexpr int kSteps = kGroup / K::kStepColumns;
    Vi weights[kSteps];
    Vf scales[kScales];
};

template <typename K>
LAYERSCALE_INLINE Unpacked<K> unpack(const GroupView& view, Vi table) {
    Unpacked<K> group;
    unroll<group.kSteps>([&](auto step) { group.weights[step] = unpack_step<K, step>(view, table); });
    unroll<group.kScales>([&](auto index) { group.scales[index] = load_half(view.scales + index * kLanes); });
    return group;
}

// Its scaled products with one token's residuals.
template <typename K>
LAYERSCALE_INLINE Vf multiply(const Unpacked<K>& group, const Residual& residual) {
    constexpr int kSteps = group.kSteps / group.kScales;
    Vf total = zero();
    unroll<group.kScales>([&](auto index) {
        Vi sums[2] = {set1_int(0), set1_int(0)};  // two chains, to hide latency
        unroll<kSteps>([&](auto step) {
            constexpr int kStep = index * kSteps + step;
            sums[step % 2] = dot_step<K>(sums[step % 2], group.weights[kStep], set1_int(load_step<K>(residual.codes, kStep)));
        });
        total = fma(to_float(add_int(sums[0], sums[1])), mul(group.scales[index], set1(residual.scale)), total);
    });
    return total;
}

template <typename K>
void add_kind(const Matrix& matrix, int first, int last, const Activations& x, int begin, int end, float* out) {
    const size_t row_size = matrix.rows, num_groups = x.num_groups();
    const size_t group_bytes = matrix.group_bytes(), panel_bytes = matrix.panel_bytes();
    const uint8_t* panels = matrix.panel(first);
    const Vi table = K::kCodebook ? load_table(matrix.codebook.data()) : set1_int(0);
    for (int start = begin; start < end; start += 64)
        for (size_t g = 0; g < num_groups; ++g) {
            const uint64_t outliers = x.outliers(g, start, std::min(64, end - start));
            if (outliers == 0) continue;
            const Residual* residuals = x.residuals(start) + g;
            float* rows = out + start * row_size;
            const uint8_t* data = panels + g * group_bytes;
            for (int panel = first; panel < last; ++panel, data += panel_bytes) {
                const auto group = unpack<K>(view_group(matrix, data), table);
                for (uint64_t tokens = outliers; tokens != 0; tokens &= tokens - 1) {
                    const size_t token = __builtin_ctzll(tokens);
                    const Vf products = multiply(group, residuals[token * num_groups]);
                    store_rows(matrix, panel, products, rows + token * row_size, Store::kAdd);
                }
            }
        }
}

}  // namespace

void add_residuals(const Matrix& matrix, int first, int last, const Activations& x, int begin, int end, float* out) {
    with_kind<int8_t>(matrix, [&](auto kind) { add_kind<decltype(kind)>(matrix, first, last, x, begin, end, out); });
}

}  // namespace layerscale
