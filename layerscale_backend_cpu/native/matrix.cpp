#include "matrix.h"

#include <algorithm>
#include <cstring>

namespace layerscale {

namespace {

constexpr size_t kBytesAhead = 8192;  // of weights, fetched while several tokens are multiplied by those before
constexpr size_t kWordBytes = 4 * kLanes;  // one 32-bit word for each row of a panel

constexpr int low_words(Storage storage) { return storage == Storage::kCodes8 ? 8 : 4; }
constexpr int high_words(Storage storage) { return storage == Storage::kCodes6 ? 2 : 0; }

size_t element_bytes(Storage storage) { return storage == Storage::kFloat ? 4 : 2; }

// Where the code of a column of its group lies in the low words: word, and bit within it.
struct Place {
    int word;
    int bit;
};

Place low_place(Storage storage, int column) {
    const int pair = column / 2, half = 16 * (column % 2);
    if (storage == Storage::kCodes8) return {pair / 2, 8 * (pair % 2) + half};
    return {pair / 4, 4 * (pair % 4) + half};
}

Place high_place(int column) {
    const int pair = column / 2, half = 16 * (column % 2);
    return {pair / 8, 2 * (pair % 8) + half};
}

struct GroupView {  // the parts of one group of a panel
    const uint16_t* scales;
    const uint16_t* minima;
    const uint8_t* low;
    const uint8_t* high;
};

GroupView view_group(const Matrix& matrix, const uint8_t* group) {
    const size_t scale_count = static_cast<size_t>(kGroup / matrix.group_size) * kLanes;
    GroupView view;
    view.scales = reinterpret_cast<const uint16_t*>(group);
    view.minima = matrix.has_minima ? view.scales + scale_count : nullptr;
    view.low = group + (matrix.has_minima ? 2 : 1) * scale_count * sizeof(uint16_t);
    view.high = view.low + low_words(matrix.storage) * kWordBytes;
    return view;
}

// The lowest bits of a number's four quarters, side by side.
template <int kBits>
uint32_t squeeze(uint64_t quarters) {
    constexpr uint64_t kField = (uint64_t{1} << kBits) - 1, kPair = (uint64_t{1} << 2 * kBits) - 1;
    quarters &= kField * 0x0001000100010001u;
    quarters |= quarters >> (16 - kBits);
    return static_cast<uint32_t>((quarters & kPair) | (quarters >> 32 & kPair) << 2 * kBits);
}

uint64_t load_eight(const uint8_t* codes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value |= static_cast<uint64_t>(codes[i]) << 8 * i;
    return value;
}

// A word of one row's group as `low_place` has it; `codes` are those of the group.
uint32_t pack_low_word(Storage storage, const uint8_t* codes, int word) {
    if (storage == Storage::kCodes8) {
        codes += 4 * word;
        return codes[0] | codes[2] << 8 | codes[1] << 16 | static_cast<uint32_t>(codes[3]) << 24;
    }
    const uint64_t eight = load_eight(codes + 8 * word);
    return squeeze<4>(eight) | squeeze<4>(eight >> 8) << 16;
}

// The same as `high_place` has it.
uint32_t pack_high_word(const uint8_t* codes, int word) {
    const uint64_t first = load_eight(codes + 16 * word), second = load_eight(codes + 16 * word + 8);
    const uint32_t even = squeeze<2>(first >> 4) | squeeze<2>(second >> 4) << 8;
    const uint32_t odd = squeeze<2>(first >> 12) | squeeze<2>(second >> 12) << 8;
    return even | odd << 16;
}

// One number of each row as halves; zero for rows that are not there.
void pack_halves(const uint16_t* out, const float* values, int num_rows, size_t stride) {
    float lanes[kLanes] = {};
    for (int row = 0; row < num_rows; ++row) lanes[row] = values[row * stride];
    store_half(const_cast<uint16_t*>(out), load(lanes));
}

uint32_t load_word(const uint8_t* words, int word, int lane) {
    uint32_t value;
    std::memcpy(&value, words + word * kWordBytes + 4 * lane, 4);
    return value;
}

// The codes of columns 2 * pair and 2 * pair + 1 for all 16 rows, as 16-bit numbers. `kPair` is a template parameter so
// that every shift is an immediate.
template <Storage kStorage, bool kCodebook, int kPair>
LAYERSCALE_INLINE Vi unpack_pair(const uint8_t* low, const uint8_t* high, Vi table) {
    if constexpr (kStorage == Storage::kCodes8) {
        const Vi words = load_int(low + (kPair / 2) * kWordBytes);
        return and_int(shift_right<8 * (kPair % 2)>(words), set1_int(0x00ff00ff));
    } else {
        const Vi words = load_int(low + (kPair / 4) * kWordBytes);
        const Vi nibbles = and_int(shift_right<4 * (kPair % 4)>(words), set1_int(0x000f000f));
        if constexpr (kCodebook) return lookup16(table, nibbles);
        if constexpr (kStorage == Storage::kCodes6) {
            const Vi upper = load_int(high + (kPair / 8) * kWordBytes);
            const Vi bits = and_int(shift_right<2 * (kPair % 8)>(upper), set1_int(0x00030003));
            return or_int(nibbles, shift_left<4>(bits));
        }
        return nibbles;
    }
}

// A product's partial sums: integer additions commute exactly, so a lone token may use several chains to hide latency
// and still get the bits that a token in a full tile gets.
template <int kTokens>
constexpr int kChains = kTokens == 1 ? 4 : kTokens == 2 ? 2 : 1;

template <Storage kStorage, bool kCodebook, int kTokens, int kPair, int kEnd>
LAYERSCALE_INLINE void dot_pairs_from(const GroupView& view, Vi table, const int16_t* codes, Vi (&sums)[kTokens][kChains<kTokens>]) {
    if constexpr (kPair < kEnd) {
        const Vi weights = unpack_pair<kStorage, kCodebook, kPair>(view.low, view.high, table);
        for (int token = 0; token < kTokens; ++token) {
            int32_t pair;
            std::memcpy(&pair, codes + token * kGroup + 2 * kPair, 4);
            Vi& sum = sums[token][kPair % kChains<kTokens>];
            sum = dot_pairs(sum, weights, set1_int(pair));
        }
        dot_pairs_from<kStorage, kCodebook, kTokens, kPair + 1, kEnd>(view, table, codes, sums);
    }
}

// Adds scale * (codes . activations) + minimum * (sum of activations) of one scale group, kStart in pairs.
template <Storage kStorage, bool kCodebook, int kTokens, int kStart, int kPairs>
LAYERSCALE_INLINE void add_scale_group(const Matrix& matrix, const GroupView& view, int index, Vi table, const int16_t* codes,
                            const float* scales, const float* sums, Vf (&totals)[kTokens]) {
    Vi dots[kTokens][kChains<kTokens>];
    for (auto& token : dots)
        for (Vi& chain : token) chain = set1_int(0);
    dot_pairs_from<kStorage, kCodebook, kTokens, kStart, kStart + kPairs>(view, table, codes, dots);

    const Vf scale = load_half(view.scales + index * kLanes);
    const Vf minimum = view.minima != nullptr ? load_half(view.minima + index * kLanes)
                                              : mul(scale, set1(-matrix.zero_point));
    unroll<kTokens>([&](auto token) {
        Vi dot = dots[token][0];
        for (int chain = 1; chain < kChains<kTokens>; ++chain) dot = add_int(dot, dots[token][chain]);
        totals[token] = fma(to_float(dot), mul(scale, set1(scales[token])), totals[token]);
        totals[token] = fma(minimum, set1(sums[token]), totals[token]);
    });
}

template <Storage kStorage, bool kCodebook, int kGroupSize, int kTokens>
void dot_panel(const Matrix& matrix, const uint8_t* group, const Activations& x, int tile, int first,
               Vf (&out)[kTokens]) {
    Vf totals[kTokens];  // of this function alone, so that registers hold them
    unroll<kTokens>([&](auto token) { totals[token] = zero(); });
    const size_t stride = matrix.group_bytes();
    const Vi table = kCodebook ? load_table(matrix.codebook.data()) : set1_int(0);
    for (int g = 0; g < x.num_groups(); ++g, group += stride) {
        if constexpr (kTokens > 1)  // else the processor does nothing but read, and foresees it by itself
            for (size_t line = 0; line < stride; line += kCacheLine) prefetch(group + kBytesAhead + line);
        const GroupView view = view_group(matrix, group);
        const int16_t* codes = x.codes(tile, g) + first * kGroup;
        const float* scales = x.scales(tile, g) + first;
        const float* sums = x.sums(tile, g) + first;
        if constexpr (kGroupSize == kGroup) {
            add_scale_group<kStorage, kCodebook, kTokens, 0, 16>(matrix, view, 0, table, codes, scales,
                                                                 sums + 2 * kTokenTile, totals);
        } else {
            add_scale_group<kStorage, kCodebook, kTokens, 0, 8>(matrix, view, 0, table, codes, scales, sums, totals);
            add_scale_group<kStorage, kCodebook, kTokens, 8, 8>(matrix, view, 1, table, codes, scales,
                                                                sums + kTokenTile, totals);
        }
    }
    unroll<kTokens>([&](auto token) { out[token] = totals[token]; });
}

LAYERSCALE_INLINE Vf load_weights(const Matrix& matrix, const uint8_t* panel, int column) {
    if (matrix.storage == Storage::kFloat) return load(reinterpret_cast<const float*>(panel) + column * kLanes);
    const uint16_t* half = reinterpret_cast<const uint16_t*>(panel) + column * kLanes;
    return matrix.storage == Storage::kHalf ? load_half(half) : load_bfloat(half);
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
void dot_any(const Matrix& matrix, const uint8_t* panel, const Activations& codes, const float* floats, int token,
             Vf (&totals)[kTokens]) {
    if (!matrix.is_quantized())
        return dot_floats(matrix, panel, floats + static_cast<size_t>(token) * matrix.cols, totals);
    const int tile = token / kTokenTile, first = token % kTokenTile;
    const bool wide = matrix.group_size == kGroup;
#define LAYERSCALE_DOT(storage, codebook, group) \
    dot_panel<Storage::storage, codebook, group>(matrix, panel, codes, tile, first, totals)
    switch (matrix.storage) {
        case Storage::kCodes4:
            if (matrix.has_codebook) return LAYERSCALE_DOT(kCodes4, true, 32);
            return wide ? LAYERSCALE_DOT(kCodes4, false, 32) : LAYERSCALE_DOT(kCodes4, false, 16);
        case Storage::kCodes6:
            return wide ? LAYERSCALE_DOT(kCodes6, false, 32) : LAYERSCALE_DOT(kCodes6, false, 16);
        default:
            return wide ? LAYERSCALE_DOT(kCodes8, false, 32) : LAYERSCALE_DOT(kCodes8, false, 16);
    }
#undef LAYERSCALE_DOT
}

void store_lanes(float* out, Vf values, int count, Store mode) {
    if (count == kLanes) {
        store(out, mode == Store::kAdd ? add(load(out), values) : values);
        return;
    }
    float lanes[kLanes];
    store(lanes, values);
    for (int lane = 0; lane < count; ++lane) out[lane] = mode == Store::kAdd ? out[lane] + lanes[lane] : lanes[lane];
}

template <int kTokens>
void multiply_tokens(const Matrix& matrix, int index, const Activations& codes, const float* floats, int token,
                     float* out, Store mode) {
    Vf totals[kTokens];
    dot_any<kTokens>(matrix, matrix.panel(index), codes, floats, token, totals);
    const int count = std::min(kLanes, matrix.rows - index * kLanes);
    unroll<kTokens>([&](auto i) {
        store_lanes(out + static_cast<size_t>(token + i) * matrix.rows + index * kLanes, totals[i], count, mode);
    });
}

}  // namespace

size_t Matrix::group_bytes() const {
    const size_t scale_bytes = static_cast<size_t>(kGroup / group_size) * kLanes * sizeof(uint16_t);
    return (has_minima ? 2 : 1) * scale_bytes + (low_words(storage) + high_words(storage)) * kWordBytes;
}

size_t Matrix::panel_bytes() const {
    if (is_quantized()) return group_bytes() * (cols / kGroup);
    return static_cast<size_t>(cols) * kLanes * element_bytes(storage);
}

void pack_codes(Matrix& matrix, int index, int num_rows, const uint8_t* codes, const float* scales,
                const float* minima) {
    const int scales_per_row = matrix.cols / matrix.group_size, scales_per_group = kGroup / matrix.group_size;
    const int num_low = low_words(matrix.storage), num_high = high_words(matrix.storage);
    for (int g = 0; g < matrix.cols / kGroup; ++g) {
        const GroupView view = view_group(matrix, matrix.panel(index) + matrix.group_bytes() * g);
        uint32_t low[8][kLanes] = {}, high[2][kLanes] = {};
        for (int row = 0; row < num_rows; ++row) {
            const uint8_t* source = codes + static_cast<size_t>(row) * matrix.cols + g * kGroup;
            for (int word = 0; word < num_low; ++word) low[word][row] = pack_low_word(matrix.storage, source, word);
            for (int word = 0; word < num_high; ++word) high[word][row] = pack_high_word(source, word);
        }
        std::memcpy(const_cast<uint8_t*>(view.low), low, num_low * kWordBytes);
        std::memcpy(const_cast<uint8_t*>(view.high), high, num_high * kWordBytes);
        for (int s = 0; s < scales_per_group; ++s) {
            const size_t from = static_cast<size_t>(g) * scales_per_group + s;
            pack_halves(view.scales + s * kLanes, scales + from, num_rows, scales_per_row);
            if (minima != nullptr) pack_halves(view.minima + s * kLanes, minima + from, num_rows, scales_per_row);
        }
    }
}

void pack_floats(Matrix& matrix, int index, int num_rows, const void* values) {
    const size_t size = element_bytes(matrix.storage);
    const uint8_t* source = static_cast<const uint8_t*>(values);
    for (int row = 0; row < num_rows; ++row)
        for (int column = 0; column < matrix.cols; ++column)
            std::memcpy(matrix.panel(index) + (static_cast<size_t>(column) * kLanes + row) * size,
                        source + (static_cast<size_t>(row) * matrix.cols + column) * size, size);
}

void unpack_row(const Matrix& matrix, int row, float* out) {
    const uint8_t* panel = matrix.panel(row / kLanes);
    const int lane = row % kLanes;
    if (!matrix.is_quantized()) {
        float lanes[kLanes];
        for (int column = 0; column < matrix.cols; ++column) {
            store(lanes, load_weights(matrix, panel, column));
            out[column] = lanes[lane];
        }
        return;
    }
    const int low_mask = matrix.storage == Storage::kCodes8 ? 0xff : 0x0f;
    for (int g = 0; g < matrix.cols / kGroup; ++g) {
        const GroupView view = view_group(matrix, panel + matrix.group_bytes() * g);
        for (int column = 0; column < kGroup; ++column) {
            const Place low = low_place(matrix.storage, column), high = high_place(column);
            uint32_t code = (load_word(view.low, low.word, lane) >> low.bit) & low_mask;
            if (matrix.storage == Storage::kCodes6) code |= ((load_word(view.high, high.word, lane) >> high.bit) & 3) << 4;
            const int s = (column / matrix.group_size) * kLanes + lane;
            const float value = matrix.has_codebook ? matrix.codebook[code] : static_cast<float>(code);
            const float minimum = view.minima != nullptr ? half_to_float(view.minima[s]) : 0.0f;
            out[g * kGroup + column] = half_to_float(view.scales[s]) * (value - matrix.zero_point) + minimum;
        }
    }
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

}  // namespace layerscale
