#include "matrix.h"

#include <cstring>

#include "panel.h"

namespace layerscale {

namespace {

size_t element_bytes(Storage storage) { return storage == Storage::kFloat ? 4 : 2; }

// One number of each row as halves; zero for rows that are not there.
void pack_halves(const uint16_t* out, const float* values, int num_rows, size_t stride) {
    float lanes[kLanes] = {};
    for (int row = 0; row < num_rows; ++row) lanes[row] = values[row * stride];
    store_half(const_cast<uint16_t*>(out), load(lanes));
}

// The codes of one row's group, to its lane.
void pack_row(Storage storage, const uint8_t* codes, uint32_t (*low)[kLanes], uint32_t (*high)[kLanes], int lane) {
    constexpr uint32_t kLow = 0x0f0f0f0f, kHigh = 0x03030303;
    for (int quad = 0; quad < kGroup / 4; quad += 2, codes += 8) {
        const Quads quads = to_quads(codes);
        if (storage == Storage::kCodes8) {
            low[quad][lane] = quads.even;
            low[quad + 1][lane] = quads.odd;
            continue;
        }
        low[quad / 2][lane] = (quads.even & kLow) | (quads.odd & kLow) << 4;
        if (storage == Storage::kCodes6)
            high[quad / 4][lane] |= (quads.even >> 4 & kHigh) << high_place(quad).bit |
                                    (quads.odd >> 4 & kHigh) << high_place(quad + 1).bit;
    }
}

uint32_t load_byte(const uint8_t* words, int word, int lane, int byte) { return words[word * kWordBytes + 4 * lane + byte]; }

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
        for (int row = 0; row < num_rows; ++row)
            pack_row(matrix.storage, codes + static_cast<size_t>(row) * matrix.cols + g * kGroup, low, high, row);
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
    const uint32_t low_mask = (1u << low_bits(matrix.storage)) - 1;
    for (int g = 0; g < matrix.cols / kGroup; ++g) {
        const GroupView view = view_group(matrix, panel + matrix.group_bytes() * g);
        for (int column = 0; column < kGroup; ++column) {
            const int quad = quad_of(column), byte = byte_in_quad(column);
            const Place low = low_place(matrix.storage, quad), high = high_place(quad);
            uint32_t code = load_byte(view.low, low.word, lane, byte) >> low.bit & low_mask;
            if (matrix.storage == Storage::kCodes6) code |= (load_byte(view.high, high.word, lane, byte) >> high.bit & 3) << 4;
            const int s = (column / matrix.group_size) * kLanes + lane;
            const float value = matrix.has_codebook ? matrix.codebook[code] : static_cast<float>(code);
            const float minimum = view.minima != nullptr ? half_to_float(view.minima[s]) : 0.0f;
            out[g * kGroup + column] = half_to_float(view.scales[s]) * (value - matrix.zero_point) + minimum;
        }
    }
}

}  // namespace layerscale
