#include "multiply.h"

#include "residuals.h"

namespace layerscale {

namespace {

constexpr size_t kBytesAhead = 8192;  // of weights, fetched while several tokens are multiplied by those before

// A product's partial sums: integer additions commute exactly, so a lone token may use several chains to hide latency
// and still get the bits that a token in a full tile gets.
template <int kTokens>
constexpr int kChains = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;

template <typename K, int kTokens, int kStep, int kEnd>
LAYERSCALE_INLINE void dot_steps(const GroupView& view, Vi table, const typename K::Code* codes,
                                 Vi (&sums)[kTokens][kChains<kTokens>]) {
    if constexpr (kStep < kEnd) {
        const Vi weights = unpack_step<K, kStep>(view, table);
        for (int token = 0; token < kTokens; ++token) {
            Vi& sum = sums[token][kStep % kChains<kTokens>];
            sum = dot_step<K>(sum, weights, set1_int(load_step<K>(codes + token * kGroup, kStep)));
        }
        dot_steps<K, kTokens, kStep + 1, kEnd>(view, table, codes, sums);
    }
}

// Adds scale * (codes . activations) + minimum * (sum of activations) of the index-th scale group of a group.
template <typename K, int kTokens, int kIndex>
LAYERSCALE_INLINE void add_scale_group(const Matrix& matrix, const GroupView& view, Vi table, const typename K::Code* codes,
                                       const float* scales, const float* sums, Vf (&totals)[kTokens]) {
    constexpr int kSteps = K::kGroupSize / K::kStepColumns;
    Vi dots[kTokens][kChains<kTokens>];
    for (auto& token : dots)
        for (Vi& chain : token) chain = set1_int(0);
    dot_steps<K, kTokens, kIndex * kSteps, (kIndex + 1) * kSteps>(view, table, codes, dots);

    const Vf scale = load_half(view.scales + kIndex * kLanes);
    const Vf minimum = view.minima != nullptr ? load_half(view.minima + kIndex * kLanes)
                                              : mul(scale, set1(-matrix.zero_point));
    unroll<kTokens>([&](auto token) {
        Vi dot = dots[token][0];
        for (int chain = 1; chain < kChains<kTokens>; ++chain) dot = add_int(dot, dots[token][chain]);
        totals[token] = fma(to_float(dot), mul(scale, set1(scales[token])), totals[token]);
        totals[token] = fma(minimum, set1(sums[token]), totals[token]);
    });
}

template <typename K, int kTokens>
void dot_codes(const Matrix& matrix, const uint8_t* group, const Activations& x, int token, Vf (&out)[kTokens]) {
    const int tile = token / kTokenTile, first = token % kTokenTile;
    Vf totals[kTokens];  // of this function alone, so that registers hold them
    unroll<kTokens>([&](auto i) { totals[i] = zero(); });
    alignas(kCacheLine) float residual_sums[kTokens * kLanes];  // in memory, since the totals have the registers
    unsigned has_residuals = 0;  // the tokens that have any, a bit each
    const size_t stride = matrix.group_bytes();
    const Vi table = K::kCodebook ? load_table(matrix.codebook.data()) : set1_int(0);
    for (int g = 0; g < x.num_groups(); ++g, group += stride) {
        if constexpr (kTokens > 1)  // else the processor does nothing but read, and foresees it by itself
            for (size_t line = 0; line < stride; line += kCacheLine) prefetch(group + kBytesAhead + line);
        const GroupView view = view_group(matrix, group);
        const auto* codes = x.codes<typename K::Code>(tile, g) + first * kGroup;
        const float* scales = x.scales(tile, g) + first;
        const float* sums = x.sums(tile, g) + first;
        if constexpr (K::kGroupSize == kGroup) {
            add_scale_group<K, kTokens, 0>(matrix, view, table, codes, scales, sums + 2 * kTokenTile, totals);
        } else {
            add_scale_group<K, kTokens, 0>(matrix, view, table, codes, scales, sums, totals);
            add_scale_group<K, kTokens, 1>(matrix, view, table, codes, scales, sums + kTokenTile, totals);
        }
        if constexpr (K::kIsBytes) {
            const unsigned outliers = x.outliers(tile, g) >> first & ((1 << kTokens) - 1);
            if (outliers != 0)
                add_residuals<K>(view, table, outliers, x.residuals(token) + g, x.num_groups(), has_residuals, residual_sums);
        }
    }
    unroll<kTokens>([&](auto i) {  // without a choice the compiler would keep less in registers above
        out[i] = has_residuals >> i & 1 ? add(totals[i], load(residual_sums + i * kLanes)) : totals[i];
    });
}

template <int kTokens>
void dot_floats(const Matrix& matrix, const uint8_t* panel, const float* x, Vf (&totals)[kTokens]) {
    Vf odd[kTokens];  // even and odd columns in two chains, whatever the number of tokens
    unroll<kTokens>([&](auto token) { totals[token] = odd[token] = zero(); });
    int column = 0;
    for (; column + 1 < matrix.cols; column += 2) {
        const Vf even_weights = load_weights(matrix, panel, column);
        const Vf odd_weights = load_weights(matrix, panel, column + 1);
        unroll<kTokens>([&](auto token) {
            const float* row = x + static_cast<size_t>(token) * matrix.cols + column;
            totals[token] = fma(even_weights, set1(row[0]), totals[token]);
            odd[token] = fma(odd_weights, set1(row[1]), odd[token]);
        });
    }
    unroll<kTokens>([&](auto token) {
        if (column < matrix.cols) {
            const float last = x[static_cast<size_t>(token) * matrix.cols + column];
            totals[token] = fma(load_weights(matrix, panel, column), set1(last), totals[token]);
        }
        totals[token] = add(totals[token], odd[token]);
    });
}

template <int kTokens>
void dot_any(const Matrix& matrix, const uint8_t* panel, const Activations& x, const float* floats, int token,
             Vf (&totals)[kTokens]) {
    const auto dot = [&](auto kind) { dot_codes<decltype(kind)>(matrix, panel, x, token, totals); };
    if (!matrix.is_quantized()) dot_floats(matrix, panel, floats + static_cast<size_t>(token) * matrix.cols, totals);
    else if (x.bits() == 8) with_kind<int8_t>(matrix, dot);
    else with_kind<int16_t>(matrix, dot);
}

template <int kTokens>
void multiply_tokens(const Matrix& matrix, int index, const Activations& codes, const float* floats, int token,
                     float* out, Store mode) {
    Vf totals[kTokens];
    float* row = out + static_cast<size_t>(token) * matrix.rows;
    if constexpr (kTokens > 1)
        for (int i = 0; i < kTokens; ++i) prefetch_to_write(row + static_cast<size_t>(i) * matrix.rows + index * kLanes);
    dot_any<kTokens>(matrix, matrix.panel(index), codes, floats, token, totals);
    unroll<kTokens>([&](auto i) { store_rows(matrix, index, totals[i], row + static_cast<size_t>(i) * matrix.rows, mode); });
}

void multiply_panel(const Matrix& matrix, int panel, const Activations& codes, const float* floats, int begin, int end,
                    float* out, Store mode) {
    constexpr int kWidest = kParts == 1 ? 8 : 4;  // accumulators of a wider tile would not fit the registers
    int token = begin;
    for (; token + kWidest <= end; token += kWidest)
        multiply_tokens<kWidest>(matrix, panel, codes, floats, token, out, mode);
    if (kWidest > 4 && token + 4 <= end) {
        multiply_tokens<4>(matrix, panel, codes, floats, token, out, mode);
        token += 4;
    }
    if (token + 2 <= end) {
        multiply_tokens<2>(matrix, panel, codes, floats, token, out, mode);
        token += 2;
    }
    if (token < end) multiply_tokens<1>(matrix, panel, codes, floats, token, out, mode);
}

}  // namespace

void multiply_panels(const Matrix& matrix, int first, int last, const Activations& codes, const float* floats, int begin, int end,
                     float* out, Store mode) {
    for (int panel = first; panel < last; ++panel) multiply_panel(matrix, panel, codes, floats, begin, end, out, mode);
}

}  // namespace layerscale
