// Runs the native kernels over awkward shapes against plain loops. Built with the address and undefined-behaviour
// sanitizers by test_native_sanitized.py, once per instruction set; prints what differs and exits 1, or exits 0.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "attention.h"
#include "likeliest.h"
#include "matrix.h"
#include "multiply.h"

using namespace layerscale;

namespace {

std::mt19937 generator(7);
int failures = 0;

float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }

void expect_close(double actual, double expected, double scale, const char* what, int rows, int cols, int tokens,
                  double tolerance = 2e-3) {
    if (std::fabs(actual - expected) <= tolerance * scale + 1e-6) return;
    if (++failures <= 10) std::printf("%s %dx%d, %d tokens: %g, not %g\n", what, rows, cols, tokens, actual, expected);
}

// Memory of exactly the size asked for, so that the sanitizer sees one byte too many.
template <typename T>
std::vector<T> exactly(size_t size) { return std::vector<T>(size); }

float largest_magnitude(const float* x) {
    float largest = 0;
    for (int c = 0; c < kGroup; ++c) largest = std::fmax(largest, std::fabs(x[c]));
    return largest;
}

bool is_outlier(const float* x, int cols, int group) {
    double squares = 0;
    for (int start = 0; start < cols; start += kGroup) squares += std::pow(largest_magnitude(x + start), 2);
    return largest_magnitude(x + group * kGroup) > kOutlier * std::sqrt(squares * kGroup / cols);
}

// What the codes of a row of activations stand for, residuals included.
std::vector<float> round_activations(const float* x, int cols, int bits) {
    const float limit = static_cast<float>((1 << (bits - 1)) - 1);
    auto rounded = exactly<float>(cols);
    for (int group = 0; group < cols / kGroup; ++group) {
        const float largest = largest_magnitude(x + group * kGroup), scale = largest / limit;
        if (largest == 0) continue;
        const bool has_residuals = bits == 8 && is_outlier(x, cols, group);
        for (int c = group * kGroup; c < (group + 1) * kGroup; ++c) {
            rounded[c] = std::nearbyint(x[c] * (limit / largest)) * scale;
            if (has_residuals) rounded[c] += std::nearbyint((x[c] - rounded[c]) / (scale / 254)) * (scale / 254);
        }
    }
    return rounded;
}

// Whether rounding a row to codes is allowed for, or the exact product is asked for.
enum class Against { kRounded, kExact };

// Compares products of `tokens` rows x, each of which is taken alone as well: its bits must not change.
void check_rows(const Matrix& matrix, int bits, const std::vector<float>& x, Against against, double tolerance, const char* what) {
    const int cols = matrix.cols, rows = matrix.rows, tokens = static_cast<int>(x.size()) / cols;
    const auto multiply = [&](int first, int count) {
        Activations codes(bits);
        if (bits > 0) {
            codes.resize(count, cols);
            for (int token = 0; token < count; ++token) codes.quantize(token, &x[static_cast<size_t>(first + token) * cols]);
        }
        auto out = exactly<float>(static_cast<size_t>(count) * rows);
        multiply_panels(matrix, 0, matrix.num_panels(), codes, &x[static_cast<size_t>(first) * cols], 0, count, out.data(),
                        Store::kReplace);
        return out;
    };
    const auto out = multiply(0, tokens);
    auto row = exactly<float>(cols);
    for (int token = 0; token < tokens; ++token) {
        const float* values = &x[static_cast<size_t>(token) * cols];
        const auto taken = bits > 0 && against == Against::kRounded ? round_activations(values, cols, bits)
                                                                     : std::vector<float>(values, values + cols);
        const auto alone = multiply(token, 1);
        if (std::memcmp(alone.data(), &out[static_cast<size_t>(token) * rows], rows * sizeof(float)) != 0 && ++failures <= 10)
            std::printf("%s %dx%d: token %d of %d differs alone\n", what, rows, cols, token, tokens);
        for (int r = 0; r < rows; ++r) {
            unpack_row(matrix, r, row.data());
            double expected = 0, scale = 0;
            for (int c = 0; c < cols; ++c) {
                const double term = static_cast<double>(row[c]) * taken[c];
                expected += term;
                scale += std::fabs(term);
            }
            expect_close(out[static_cast<size_t>(token) * rows + r], expected, scale, what, rows, cols, tokens, tolerance);
        }
    }
}

// bits: of activations; 0 for a matrix of floats.
void check_product(const Matrix& matrix, int bits, const char* what) {
    for (const int tokens : {1, 2, 3, 7, 8, 17}) {
        auto x = exactly<float>(static_cast<size_t>(tokens) * matrix.cols);
        for (float& value : x) value = uniform(-2, 2);
        check_rows(matrix, bits, x, Against::kRounded, 1e-4, what);
    }
}

void expect(bool holds, const char* what) {
    if (!holds && ++failures <= 10) std::printf("%s\n", what);
}

// Rows with outliers, without, of zeros and broken ones side by side, more of them than one word has bits.
void check_outliers(const Matrix& matrix) {
    const int tokens = 70, zeros = 4, broken = 9, cols = matrix.cols;
    auto x = exactly<float>(static_cast<size_t>(tokens) * cols);
    for (float& value : x) value = uniform(-1, 1);
    std::fill_n(&x[zeros * cols], cols, 0.0f);
    const auto outlier = [&](int token) -> float& { return x[static_cast<size_t>(token) * cols + token * 7 % cols]; };
    for (int token = 0; token < tokens; token += 3) outlier(token) = 80;
    check_rows(matrix, 8, x, Against::kRounded, 1e-4, "outliers");
    check_rows(matrix, 8, x, Against::kExact, 2e-3, "outliers against the exact product");

    Activations codes(8);
    const auto multiply = [&](int count) {
        codes.resize(count, cols);
        for (int token = 0; token < count; ++token) codes.quantize(token, &x[static_cast<size_t>(token) * cols]);
        auto out = exactly<float>(static_cast<size_t>(count) * matrix.rows);
        for (int panel = 0; panel < matrix.num_panels(); ++panel)
            multiply_panels(matrix, panel, panel + 1, codes, x.data(), 0, count, out.data(), Store::kReplace);
        return out;
    };
    const auto healthy = multiply(tokens);
    for (int token = 0; token < tokens; ++token) {
        for (int group = 0; group < codes.num_groups(); ++group) {
            const bool is_marked = codes.outliers(token / 8, group) >> token % 8 & 1;
            expect(is_marked == (token % 3 == 0 && group == token * 7 % cols / kGroup), "other outliers than were put there");
        }
    }
    for (const float value : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        outlier(broken) = value;
        const auto out = multiply(tokens);
        for (size_t i = 0; i < out.size(); ++i)
            expect(i / matrix.rows == broken ? std::isnan(out[i]) : out[i] == healthy[i], "a broken row is not the one that shows");
    }
    for (int token = 0; token < tokens; token += 3) outlier(token) = 1;  // what was an outlier in this place is none now
    const auto after = multiply(3);
    for (int i = 0; i < matrix.rows; ++i) expect(after[matrix.rows + i] == healthy[matrix.rows + i], "an earlier step shows");
    check_rows(matrix, 8, x, Against::kRounded, 1e-4, "former outliers");
}

constexpr int kWithOutliers = 288;  // columns: one group among fewer is never so much larger than their root mean square

void check_codes(Storage storage, int bits, int group_size, bool has_minima, bool has_codebook) {
    for (const int rows : {1, 16, 33})
        for (const int cols : {32, 96, kWithOutliers}) {
            Matrix matrix{storage, rows, cols};
            matrix.group_size = group_size;
            matrix.has_minima = has_minima;
            matrix.has_codebook = has_codebook;
            matrix.zero_point = has_minima ? 0.0f : static_cast<float>(1 << (bits - 1));
            for (int i = 0; i < 16; ++i) matrix.codebook[i] = static_cast<uint8_t>(15 * i + 3);
            auto memory = exactly<uint8_t>(matrix.total_bytes());
            matrix.data = memory.data();
            for (int first = 0; first < rows; first += kLanes) {
                const int count = std::min(kLanes, rows - first);
                auto codes = exactly<uint8_t>(static_cast<size_t>(count) * cols);
                auto scales = exactly<float>(static_cast<size_t>(count) * cols / group_size);
                auto minima = exactly<float>(scales.size());
                for (uint8_t& code : codes) code = static_cast<uint8_t>(generator() % (1u << bits));
                for (float& scale : scales) scale = uniform(-0.1f, 0.1f);
                for (float& minimum : minima) minimum = uniform(-1, 1);
                pack_codes(matrix, first / kLanes, count, codes.data(), scales.data(),
                           has_minima ? minima.data() : nullptr);
                auto row = exactly<float>(cols);
                for (int r = 0; r < count; ++r) {  // packing loses nothing but the scales' 13 lower bits
                    unpack_row(matrix, first + r, row.data());
                    for (int c = 0; c < cols; ++c) {
                        const int code = codes[static_cast<size_t>(r) * cols + c];
                        const size_t group = (static_cast<size_t>(r) * cols + c) / group_size;
                        const float value = has_codebook ? matrix.codebook[code] : static_cast<float>(code);
                        const float expected =
                            scales[group] * (value - matrix.zero_point) + (has_minima ? minima[group] : 0.0f);
                        expect_close(row[c], expected, std::fabs(scales[group]) * (value + matrix.zero_point) + 1, "unpack", rows, cols, 1);
                    }
                }
            }
            if (cols == kWithOutliers) {
                if (rows > kLanes) check_outliers(matrix);
                continue;
            }
            check_product(matrix, 16, "codes by 16 bits");
            check_product(matrix, 8, "codes by 8 bits");
        }
}

void check_floats(Storage storage, int element_bytes) {
    for (const int rows : {1, 15, 16, 17})
        for (const int cols : {1, 2, 15, 16, 17, 33}) {
            Matrix matrix{storage, rows, cols};
            auto memory = exactly<uint8_t>(matrix.total_bytes());
            matrix.data = memory.data();
            for (int first = 0; first < rows; first += kLanes) {
                const int count = std::min(kLanes, rows - first);
                auto values = exactly<uint8_t>(static_cast<size_t>(count) * cols * element_bytes);
                for (int i = 0; i < count * cols; ++i) {
                    const float value = uniform(-1, 1);
                    uint32_t bits;
                    std::memcpy(&bits, &value, 4);
                    const uint16_t half = storage == Storage::kHalf ? float_to_half(value) : static_cast<uint16_t>(bits >> 16);
                    if (element_bytes == 4) std::memcpy(&values[i * 4], &value, 4);
                    else std::memcpy(&values[i * 2], &half, 2);
                }
                pack_floats(matrix, first / kLanes, count, values.data());
            }
            check_product(matrix, 0, "floats");
        }
}

// One sequence of `context` keys whose last `num_new` tokens are queries, over pages with holes at their edges.
void check_attention(KvType type, int head_dim, int num_heads, int num_kv_heads, int context, int num_new, int threads,
                     bool in_bfloats, int window = std::numeric_limits<int>::max(), float softcap = 0.0f,
                     int chunk = std::numeric_limits<int>::max()) {
    ThreadPool pool(threads);
    Arena arena;
    Attention attention(pool, in_bfloats);
    std::vector<int32_t> pages, starts, stops;
    std::vector<int64_t> slots;
    for (int page = 0; static_cast<int>(slots.size()) < context; ++page) {
        const int start = page % 3 == 1 ? 5 : 0;
        const int stop = std::min(page % 4 == 2 ? 11 : kPageSize, start + context - static_cast<int>(slots.size()));
        pages.push_back(2 * page + 1);  // every other page belongs to nobody
        starts.push_back(start);
        stops.push_back(stop);
        for (int slot = start; slot < stop; ++slot) slots.push_back((2 * page + 1) * kPageSize + slot);
    }
    KvCache kv(arena, type, 1, 2 * static_cast<int>(pages.size()) + 1, num_kv_heads, head_dim);
    const int kv_size = num_kv_heads * head_dim, query_size = num_heads * head_dim;
    auto nan = exactly<float>(kv_size);
    std::fill(nan.begin(), nan.end(), std::nanf(""));
    for (int64_t slot = 0; slot < kv.num_slots(); ++slot) kv.store(0, slot, nan.data(), nan.data());
    std::vector<std::vector<float>> keys, values;
    for (const int64_t slot : slots) {
        keys.emplace_back(kv_size);
        values.emplace_back(kv_size);
        for (float& k : keys.back()) k = half_to_float(float_to_half(uniform(-1, 1)));
        for (float& v : values.back()) v = half_to_float(float_to_half(uniform(-1, 1)));
        kv.store(0, slot, keys.back().data(), values.back().data());
        if (type == KvType::kFp16) continue;
        for (int head = 0; head < num_kv_heads; ++head) {  // what was rounded to codes is what attention must see
            const int page = static_cast<int>(slot / kPageSize), place = static_cast<int>(slot % kPageSize);
            kv.format().load_key(kv.keys(0, page, head), place, &keys.back()[head * head_dim]);
            kv.format().load_value(kv.values(0, page, head), place, &values.back()[head * head_dim]);
        }
    }
    auto queries = exactly<float>(static_cast<size_t>(num_new) * query_size), out = exactly<float>(queries.size());
    for (float& q : queries) q = uniform(-1, 1);
    const int32_t cu_seqlens[] = {0, num_new};
    Batch batch{};
    batch.num_tokens = num_new;
    batch.num_seqs = 1;
    batch.max_pages = static_cast<int>(pages.size());
    batch.cu_seqlens = cu_seqlens;
    batch.page_tables = pages.data();
    batch.page_starts = starts.data();
    batch.page_stops = stops.data();
    const AttentionShape shape{num_heads, num_kv_heads, head_dim, 0.3f, window, chunk, softcap, false, false, 1, 0, 0.0f};
    attention.begin_step(batch);
    attention.run(kv, 0, batch, shape, queries.data(), out.data());

    for (int token = 0; token < num_new; ++token)
        for (int head = 0; head < num_heads; ++head) {
            const int kv_head = head / (num_heads / num_kv_heads), visible = context - num_new + token + 1;
            const int first = std::max({0, visible - window, (visible - 1) / chunk * chunk});
            const float* query = &queries[static_cast<size_t>(token) * query_size + head * head_dim];
            std::vector<double> weights(visible);
            double sum = 0;
            for (int key = first; key < visible; ++key) {
                double score = 0;
                for (int d = 0; d < head_dim; ++d) score += query[d] * keys[key][kv_head * head_dim + d];
                score *= shape.scale;
                if (softcap > 0) score = softcap * std::tanh(score / softcap);
                sum += weights[key] = std::exp(score);
            }
            for (int d = 0; d < head_dim; ++d) {
                double expected = 0;
                for (int key = first; key < visible; ++key)
                    expected += weights[key] / sum * values[key][kv_head * head_dim + d];
                expect_close(out[static_cast<size_t>(token) * query_size + head * head_dim + d], expected, 1,
                             in_bfloats ? "attention in bfloats" : "attention", context, head_dim, num_new,
                             in_bfloats ? 8e-3 : 2e-3);  // a bfloat16 keeps one part in 512
            }
        }
}

// Whole pages: turned forwards and back, read, and written elsewhere.
void check_pages(KvType type, int head_dim) {
    Arena arena;
    KvCache kv(arena, type, 2, 3, 2, head_dim);
    auto key = exactly<float>(2 * head_dim), value = exactly<float>(2 * head_dim);
    for (int slot = 0; slot < kPageSize; ++slot) {
        for (float& k : key) k = uniform(-1, 1);
        for (float& v : value) v = uniform(-1, 1);
        for (int layer = 0; layer < 2; ++layer) kv.store(layer, kPageSize + slot, key.data(), value.data());
    }
    const auto load_last = [&](int page) {
        auto loaded = exactly<float>(head_dim);
        kv.format().load_key(kv.keys(1, page, 1), kPageSize - 1, loaded.data());
        return loaded;
    };
    const auto before = load_last(1);
    for (const bool interleaved : {false, true}) {
        Rotation there{{}, {}, interleaved}, back{{}, {}, interleaved};
        for (int pair = 0; pair < head_dim / 2; ++pair) {
            there.cosines.push_back(std::cos(pair + 1.0f)), there.sines.push_back(std::sin(pair + 1.0f));
            back.cosines.push_back(there.cosines.back()), back.sines.push_back(-there.sines.back());
        }
        kv.rotate_page(1, 1, there);
        kv.rotate_page(1, 1, back);
    }
    const float step = type == KvType::kFp16 ? 1e-3f : type == KvType::kInt8 ? 0.1f : 1.5f;
    auto content = exactly<uint8_t>(kv.page_bytes());
    kv.read_page(1, content.data());
    kv.write_page(2, content.data());
    kv.copy_page(2, 0);
    for (const int page : {0, 1, 2}) {
        const auto after = load_last(page);
        for (int dim = 0; dim < head_dim; ++dim)
            if (std::fabs(after[dim] - before[dim]) > step && ++failures <= 10)
                std::printf("a key of width %d does not return: %g, not %g\n", head_dim, after[dim], before[dim]);
    }
}

void check_hadamard(int head_dim) {
    const Hadamard hadamard(head_dim);
    auto x = exactly<float>(2 * head_dim), y = x;
    for (int i = 0; i < 2 * head_dim; ++i) x[i] = uniform(-1, 1), y[i] = x[i];
    hadamard.apply(y.data(), 2);
    double before = 0, after = 0;
    for (int i = 0; i < 2 * head_dim; ++i) before += x[i] * x[i], after += y[i] * y[i];
    expect_close(after, before, before, "length after rotation", 2, head_dim, 1);
    hadamard.undo(y.data(), 2);
    for (int i = 0; i < 2 * head_dim; ++i) expect_close(y[i], x[i], 1, "rotated back", 2, head_dim, 1);
}

// Elementwise functions at lengths around a vector's, against the library's.
void check_elementwise() {
    for (const int size : {1, 15, 16, 17, 33}) {
        auto gate = exactly<float>(size), up = gate, capped = gate, weight = gate;
        for (int i = 0; i < size; ++i) gate[i] = uniform(-12, 12), up[i] = uniform(-1, 1), weight[i] = uniform(0.5f, 2);
        auto before = gate;
        capped = gate;
        gated_gelu(gate.data(), up.data(), size);
        soft_cap(capped.data(), size, 3.0f);
        for (int i = 0; i < size; ++i) {
            const double x = before[i], inner = 0.7978845608 * (x + 0.044715 * x * x * x);
            expect_close(gate[i], x / 2 * (1 + std::tanh(inner)) * up[i], 1e-2, "gelu", 1, size, 1);
            expect_close(capped[i], 3 * std::tanh(x / 3), 1e-2, "soft cap", 1, size, 1);
        }
        double squares = 0;
        for (const float x : before) squares += static_cast<double>(x) * x;
        auto normed = before;
        rms_norm(normed.data(), weight.data(), size, 1e-6f, normed.data());
        for (int i = 0; i < size; ++i)
            expect_close(normed[i], before[i] / std::sqrt(squares / size + 1e-6) * weight[i], 1e-2, "norm", 1, size, 1);
    }
    auto broken = exactly<float>(16);
    broken[3] = std::nanf("");
    soft_cap(broken.data(), 16, 1.0f);
    if (!std::isnan(broken[3]) && ++failures <= 10) std::printf("a soft cap hides NaN\n");
}

// Rows of all widths, each alone and among others: a peak that comes twice, and one value that is not finite, at every edge.
void check_likeliest() {
    const float infinity = std::numeric_limits<float>::infinity();
    ThreadPool pool(3);
    LikeliestTokens likeliest(pool);
    for (const int size : {1, 15, 16, 17, 64, 65, 130, 4096, 4097, 8200}) {
        const int places[] = {0, size / 2, std::min(size - 1, 4095), std::min(size - 1, 4096), size - 1};
        std::vector<int> expected;
        auto logits = exactly<float>(0);
        const auto add_row = [&](float low, float high) {
            for (int i = 0; i < size; ++i) logits.push_back(uniform(low, high));
            return logits.end() - size;
        };
        const auto first = add_row(-9, 9);
        expected.push_back(static_cast<int>(std::max_element(first, logits.end()) - first));
        for (const int one : places)
            for (const int other : places) {
                const auto row = add_row(-9, -1);
                row[one] = 0.0f, row[other] = -0.0f;  // which are equal
                expected.push_back(std::min(one, other));
            }
        for (const float broken : {std::nanf(""), -std::nanf(""), infinity, -infinity})
            for (const int place : places) {
                add_row(-9, 9)[place] = broken;
                expected.push_back(-1);
            }
        const int num_rows = static_cast<int>(expected.size());
        auto alone = std::vector<float>(logits.begin(), logits.begin() + size);
        auto capped = logits, at_once = logits;
        if (likeliest.find(alone.data(), 1, size, 0.0f)[0] != expected[0] ||
            likeliest.find(logits.data(), num_rows, size, 0.0f) != expected)
            if (++failures <= 10) std::printf("not the likeliest of %d tokens\n", size);
        for (int row = 0; row < num_rows; ++row) soft_cap(at_once.data() + static_cast<size_t>(row) * size, size, 3.0f);
        likeliest.find(capped.data(), num_rows, size, 3.0f);
        if (std::memcmp(capped.data(), at_once.data(), at_once.size() * sizeof(float)) != 0)
            if (++failures <= 10) std::printf("%d logits are capped otherwise in parts\n", size);
    }
}

void check_halves() {
    for (uint32_t half = 0; half < 0x10000; ++half) {
        const float value = half_to_float(static_cast<uint16_t>(half));
        const bool is_nan = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0;
        if (std::isnan(value) != is_nan || (!is_nan && float_to_half(value) != half))
            if (++failures <= 10) std::printf("half %04x does not survive\n", half);
    }
}

constexpr int kHeadDims[] = {1, 15, 16, 17, 64, 80, 192};

void check_attentions(KvType type, bool in_bfloats) {
    for (const int head_dim : kHeadDims)
        for (const int context : {1, 15, 16, 17, 40})
            check_attention(type, head_dim, 6, 2, context, std::min(context, 5), 2, in_bfloats);
    for (const int num_new : {1, 2, 40}) {
        check_attention(type, 64, 3, 3, 1200, num_new, 3, in_bfloats);  // several partitions
        for (const int window : {1, 15, 16, 17, 500, 520, 1199, 1200})
            check_attention(type, 32, 3, 3, 1200, num_new, 3, in_bfloats, window, 0.5f);
        for (const int chunk : {17, 500}) check_attention(type, 32, 3, 3, 1200, num_new, 3, in_bfloats, 1100, 0.0f, chunk);
    }
}

}  // namespace

int main() {
    check_halves();
    check_elementwise();
    check_likeliest();
    for (const bool has_minima : {false, true}) {
        check_codes(Storage::kCodes4, 4, 32, has_minima, false);
        check_codes(Storage::kCodes4, 4, 16, has_minima, false);
        check_codes(Storage::kCodes6, 6, 32, has_minima, false);
        check_codes(Storage::kCodes6, 6, 16, has_minima, false);
        check_codes(Storage::kCodes8, 8, 32, has_minima, false);
        check_codes(Storage::kCodes8, 8, 16, has_minima, false);
    }
    check_codes(Storage::kCodes4, 4, 32, false, true);
    check_floats(Storage::kFloat, 4);
    check_floats(Storage::kHalf, 2);
    check_floats(Storage::kBfloat, 2);
    for (const KvType type : {KvType::kFp16, KvType::kInt8, KvType::kInt4}) {
        for (const int head_dim : kHeadDims) {
            check_hadamard(head_dim);
            check_pages(type, head_dim);
        }
        check_attentions(type, false);
    }
    if (has_bfloat_pairs()) check_attentions(KvType::kFp16, true);
    return failures == 0 ? 0 : 1;
}
