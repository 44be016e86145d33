#include "executor.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "elementwise.h"

namespace layerscale {

namespace {

// Tokens whose activations stay in a core's own cache while it runs over the panels.
constexpr int kTokenBlock = 128;
// Up to so many tokens a step waits for weights more than for arithmetic.
constexpr int kFewTokens = 2 * kTokenTile;
// Bytes of weights that one thread takes at once while few tokens share them: enough for memory to stream (two Zen 4 cores
// decode a quarter faster than with 24 KiB), few enough that threads end together.
constexpr size_t kBytesPerIndex = size_t{96} << 10;

// What a query is multiplied by (arXiv:2501.19399).
float temperature(const AttentionShape& shape, int64_t position) {
    const double intervals = static_cast<double>((position + shape.temperature_offset) / shape.temperature_interval);
    return static_cast<float>(1.0 + shape.temperature_slope * std::log1p(intervals));
}

}  // namespace

Executor::Executor(ModelShape shape, int num_threads, int activation_bits)
    : shape_(std::move(shape)),
      pool_(num_threads),
      attention_(pool_, activation_bits == 8),
      likeliest_(pool_),
      rotations_(shape_.ropes.size()),
      codes_(activation_bits) {}

Matrix& Executor::add_matrix(const std::string& name, Matrix matrix) {
    matrix.data = arena_.allocate(matrix.total_bytes());
    return matrices_.emplace(name, matrix).first->second;
}

Matrix& Executor::matrix(const std::string& name) { return const_cast<Matrix&>(*find_matrix(name)); }

void Executor::add_vector(const std::string& name, const float* values, int size) {
    vectors_[name].assign(values, values + size);
}

const Matrix* Executor::find_matrix(const std::string& name) const {
    const auto found = matrices_.find(name);
    if (found == matrices_.end()) throw std::invalid_argument("no weight matrix named " + name);
    return &found->second;
}

const float* Executor::find_vector(const std::string& name) const {
    const auto found = vectors_.find(name);
    if (found == vectors_.end()) throw std::invalid_argument("no weight vector named " + name);
    return found->second.data();
}

Executor::Layer Executor::find_layer(const LayerShape& shape, const std::string& prefix) const {
    const auto matrix = [&](const std::string& name) { return find_matrix(prefix + name); };
    const auto vector = [&](bool is_there, const char* name) { return is_there ? find_vector(prefix + name) : nullptr; };
    const bool biases = shape.attention.has_biases, qk_norm = shape.attention.has_qk_norm;
    Layer layer{};
    layer.shape = shape;
    layer.attention_norm = vector(true, "attention_norm");
    layer.mlp_norm = vector(true, "mlp_norm");
    layer.attention_post_norm = vector(shape.has_post_norms, "attention_post_norm");
    layer.mlp_post_norm = vector(shape.has_post_norms, "mlp_post_norm");
    layer.query_bias = vector(biases, "query_bias");
    layer.key_bias = vector(biases, "key_bias");
    layer.value_bias = vector(biases, "value_bias");
    layer.query_norm = vector(qk_norm, "query_norm");
    layer.key_norm = vector(qk_norm, "key_norm");
    layer.query = matrix("query");
    layer.key = matrix("key");
    layer.value = matrix("value");
    layer.attention_output = matrix("attention_output");
    const auto add_mlp = [&](const std::string& of) {
        layer.mlps.push_back({matrix(of + "gate"), matrix(of + "up"), matrix(of + "down")});
    };
    if (shape.num_experts == 0) add_mlp("");
    else layer.router = matrix("router");
    for (int expert = 0; expert < shape.num_experts; ++expert) add_mlp("experts." + std::to_string(expert) + ".");
    if (shape.shared_size > 0) add_mlp("shared.");
    return layer;
}

void Executor::commit(KvType kv_type, int num_pages) {
    for (size_t i = 0; i < shape_.layers.size(); ++i)
        layers_.push_back(find_layer(shape_.layers[i], "layers." + std::to_string(i) + "."));
    if (shape_.vocab_size > 0) {
        embedding_ = find_matrix("embedding");
        output_ = shape_.tied_output ? embedding_ : find_matrix("output");
        output_norm_ = find_vector("output_norm");
    }
    const AttentionShape& attention = shape_.layers.front().attention;
    kv_ = std::make_unique<KvCache>(arena_, kv_type, static_cast<int>(layers_.size()), num_pages, attention.num_kv_heads,
                                    attention.head_dim);
}

Executor::Logits Executor::step(const Batch& batch) {
    reserve(batch);
    embed(batch);
    run(batch, 0, static_cast<int>(layers_.size()));
    const int hidden = shape_.hidden_size;
    for (int i = 0; i < batch.num_logits; ++i)
        std::copy_n(residual_.data() + static_cast<size_t>(batch.logits_indices[i]) * hidden, hidden,
                    selected_.data() + static_cast<size_t>(i) * hidden);
    normalize(selected_.data(), output_norm_, batch.num_logits);
    multiply({{output_, logits_.data()}}, normed_.data(), batch.num_logits, Store::kReplace);
    return {logits_.data(), likeliest_.find(logits_.data(), batch.num_logits, shape_.vocab_size, shape_.logit_softcap)};
}

const float* Executor::run_layers(const Batch& batch, const float* x, int first, int last) {
    reserve(batch);
    if (x != residual_.data()) std::copy_n(x, static_cast<size_t>(batch.num_tokens) * shape_.hidden_size, residual_.data());
    run(batch, first, last);
    return residual_.data();
}

// Layers [first, last) over residual_.
void Executor::run(const Batch& batch, int first, int last) {
    compute_rotations(batch);
    attention_.begin_step(batch);
    for (int i = first; i < last; ++i) {
        attention_block(i, batch);
        if (layers_[i].router) mixture_block(layers_[i], batch.num_tokens);
        else mlp_block(layers_[i], batch.num_tokens);
    }
}

// The cached keys carry the rope's magnitude already.
void Executor::shift_positions(const int32_t* pages, int num_pages, int64_t delta) {
    std::vector<Rotation> rotations;
    for (const Rope& rope : shape_.ropes) {
        Rotation& rotation = rotations.emplace_back();
        rotation.interleaved = rope.interleaved;
        for (const double inv_freq : rope.inv_freq) {
            const double angle = static_cast<double>(delta) * inv_freq;
            rotation.cosines.push_back(static_cast<float>(std::cos(angle)));
            rotation.sines.push_back(static_cast<float>(std::sin(angle)));
        }
    }
    const int num_layers = static_cast<int>(layers_.size());
    pool_.parallel_for(num_layers * num_pages, [&](int index, int) {
        const int layer = index / num_pages;
        kv_->rotate_page(layer, pages[index % num_pages], rotations[layers_[layer].shape.rope]);
    });
}

void Executor::reserve(const Batch& batch) {
    const size_t tokens = batch.num_tokens, logits = batch.num_logits;
    size_t query = 0, kv = 0, intermediate = 0, experts = 0;
    bool has_post_norms = false;
    for (const LayerShape& layer : shape_.layers) {
        const AttentionShape& attention = layer.attention;
        query = std::max<size_t>(query, static_cast<size_t>(attention.num_heads) * attention.head_dim);
        kv = std::max<size_t>(kv, static_cast<size_t>(attention.num_kv_heads) * attention.head_dim);
        intermediate = std::max<size_t>(intermediate, std::max(layer.intermediate_size, layer.shared_size));
        experts = std::max<size_t>(experts, layer.num_experts);
        has_post_norms |= layer.has_post_norms;
    }
    if (has_post_norms || experts > 0) grow(projected_, tokens * shape_.hidden_size);
    if (experts > 0) {
        grow(router_, tokens * experts);
        grow(expert_in_, tokens * shape_.hidden_size);
        grow(expert_out_, tokens * shape_.hidden_size);
    }
    grow(residual_, tokens * shape_.hidden_size);
    grow(normed_, std::max(tokens, logits) * shape_.hidden_size);
    grow(query_, tokens * query);
    grow(attended_, tokens * query);
    grow(key_, tokens * kv);
    grow(value_, tokens * kv);
    grow(gate_, tokens * intermediate);
    grow(up_, tokens * intermediate);
    grow(selected_, logits * shape_.hidden_size);
    grow(logits_, logits * shape_.vocab_size);
    for (size_t i = 0; i < shape_.ropes.size(); ++i) grow(rotations_[i], 2 * tokens * shape_.ropes[i].inv_freq.size());
}

void Executor::embed(const Batch& batch) {
    pool_.parallel_for(num_tiles(batch.num_tokens), [&](int tile, int) {
        const int end = std::min(batch.num_tokens, (tile + 1) * kTokenTile);
        for (int token = tile * kTokenTile; token < end; ++token) {
            float* row = residual_.data() + static_cast<size_t>(token) * shape_.hidden_size;
            unpack_row(*embedding_, batch.token_ids[token], row);
            if (shape_.embedding_scale != 1.0f) scale(row, shape_.hidden_size, shape_.embedding_scale);
        }
    });
}

// Angles are taken in double precision: at a position of a million, float would be off by a twentieth of a radian.
void Executor::compute_rotations(const Batch& batch) {
    for (size_t r = 0; r < shape_.ropes.size(); ++r) {
        const Rope& rope = shape_.ropes[r];
        float* out = rotations_[r].data();
        const size_t num_pairs = rope.inv_freq.size();
        for (int token = 0; token < batch.num_tokens; ++token, out += 2 * num_pairs)
            for (size_t pair = 0; pair < num_pairs; ++pair) {
                const double angle = batch.positions[token] * rope.inv_freq[pair];
                out[pair] = static_cast<float>(std::cos(angle)) * rope.magnitude;
                out[num_pairs + pair] = static_cast<float>(std::sin(angle)) * rope.magnitude;
            }
    }
}

void Executor::rotate(const Rope& rope, int rope_index, int token, float* heads, int num_heads, int head_dim) const {
    const int num_pairs = static_cast<int>(rope.inv_freq.size());
    const float* cosines = rotations_[rope_index].data() + 2 * static_cast<size_t>(token) * num_pairs;
    for (int head = 0; head < num_heads; ++head)
        rotate_pairs(heads + head * head_dim, cosines, cosines + num_pairs, num_pairs, rope.interleaved);
}

void Executor::attention_block(int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const AttentionShape& attention = layer.shape.attention;
    normalize(residual_.data(), layer.attention_norm, batch.num_tokens);
    multiply({{layer.query, query_.data()}, {layer.key, key_.data()}, {layer.value, value_.data()}}, normed_.data(),
             batch.num_tokens, Store::kReplace);
    store_kv(index, batch);
    attention_.run(*kv_, index, batch, attention, query_.data(), attended_.data());
    const int query_size = attention.num_heads * attention.head_dim;
    const Hadamard* hadamard = kv_->hadamard();
    quantize_each(batch.num_tokens, query_size, [&](int token) {
        float* row = attended_.data() + static_cast<size_t>(token) * query_size;
        if (hadamard) hadamard->undo(row, attention.num_heads);
        return row;
    });
    project(*layer.attention_output, attended_.data(), batch.num_tokens, layer.attention_post_norm);
}

// A token's queries or keys as attention takes them: with their bias, normalised, and turned to its position.
void Executor::place_heads(const Layer& layer, int token, float* heads, int num_heads, const float* bias,
                           const float* norm) const {
    const int head_dim = layer.shape.attention.head_dim;
    if (bias) add(heads, bias, num_heads * head_dim);
    if (norm)
        for (int head = 0; head < num_heads; ++head)
            rms_norm(heads + head * head_dim, norm, head_dim, shape_.norm_eps, heads + head * head_dim);
    rotate(shape_.ropes[layer.shape.rope], layer.shape.rope, token, heads, num_heads, head_dim);
}

// Finishes queries, keys and values, and writes the latter two into their slots.
void Executor::store_kv(int index, const Batch& batch) {
    const Layer& layer = layers_[index];
    const AttentionShape& attention = layer.shape.attention;
    const Hadamard* hadamard = kv_->hadamard();
    const int query_size = attention.num_heads * attention.head_dim;
    const int kv_size = attention.num_kv_heads * attention.head_dim;
    pool_.parallel_for(num_tiles(batch.num_tokens), [&](int tile, int) {
        const int end = std::min(batch.num_tokens, (tile + 1) * kTokenTile);
        for (int token = tile * kTokenTile; token < end; ++token) {
            float* query = query_.data() + static_cast<size_t>(token) * query_size;
            float* key = key_.data() + static_cast<size_t>(token) * kv_size;
            float* value = value_.data() + static_cast<size_t>(token) * kv_size;
            place_heads(layer, token, query, attention.num_heads, layer.query_bias, layer.query_norm);
            place_heads(layer, token, key, attention.num_kv_heads, layer.key_bias, layer.key_norm);
            if (layer.value_bias) add(value, layer.value_bias, kv_size);
            if (attention.temperature_slope != 0.0f) scale(query, query_size, temperature(attention, batch.positions[token]));
            if (hadamard) {
                hadamard->apply(query, attention.num_heads);
                hadamard->apply(key, attention.num_kv_heads);
                hadamard->apply(value, attention.num_kv_heads);
            }
            kv_->store(index, batch.slot_mapping[token], key, value);
        }
    });
}

void Executor::mlp_block(const Layer& layer, int num_tokens) {
    normalize(residual_.data(), layer.mlp_norm, num_tokens);
    if (!layer.mlp_post_norm)
        return gated_mlp(layer.mlps[0], layer.shape.is_gelu, normed_.data(), num_tokens, residual_.data(), Store::kAdd);
    gated_mlp(layer.mlps[0], layer.shape.is_gelu, normed_.data(), num_tokens, projected_.data(), Store::kReplace);
    add_to_residual(layer.mlp_post_norm, num_tokens);
}

// x and codes_ hold the same.
void Executor::gated_mlp(const Mlp& mlp, bool is_gelu, const float* x, int num_tokens, float* out, Store mode) {
    const int intermediate = mlp.gate->rows;
    multiply({{mlp.gate, gate_.data()}, {mlp.up, up_.data()}}, x, num_tokens, Store::kReplace);
    const auto gated = is_gelu ? gated_gelu : gated_silu;
    quantize_each(num_tokens, intermediate, [&](int token) {
        float* row = gate_.data() + static_cast<size_t>(token) * intermediate;
        gated(row, up_.data() + static_cast<size_t>(token) * intermediate, intermediate);
        return row;
    }, kGatedOutlier);
    multiply({{mlp.down, out}}, gate_.data(), num_tokens, mode);
}

// Adds a product to the residual stream. x and codes_ hold the same.
void Executor::project(const Matrix& matrix, const float* x, int num_tokens, const float* post_norm) {
    if (!post_norm) return multiply({{&matrix, residual_.data()}}, x, num_tokens, Store::kAdd);
    multiply({{&matrix, projected_.data()}}, x, num_tokens, Store::kReplace);
    add_to_residual(post_norm, num_tokens);
}

// Adds projected_ to the residual stream, normalised first where there is a norm.
void Executor::add_to_residual(const float* post_norm, int num_tokens) {
    const int hidden = shape_.hidden_size;
    pool_.parallel_for(num_tiles(num_tokens), [&](int tile, int) {
        const int end = std::min(num_tokens, (tile + 1) * kTokenTile);
        for (int token = tile * kTokenTile; token < end; ++token) {
            float* row = projected_.data() + static_cast<size_t>(token) * hidden;
            if (post_norm) rms_norm(row, post_norm, hidden, shape_.norm_eps, row);
            add(residual_.data() + static_cast<size_t>(token) * hidden, row, hidden);
        }
    });
}

// Fills normed_ and, for quantised matrices, codes_.
void Executor::normalize(const float* x, const float* weight, int num_tokens) {
    const int hidden = shape_.hidden_size;
    quantize_each(num_tokens, hidden, [&](int token) {
        float* row = normed_.data() + static_cast<size_t>(token) * hidden;
        rms_norm(x + static_cast<size_t>(token) * hidden, weight, hidden, shape_.norm_eps, row);
        return row;
    });
}

// Several matrices over the same input in one parallel loop. Token blocks are the outer loop: their activations stay in
// the cache while the weights stream by.
void Executor::multiply(std::initializer_list<Product> products, const float* floats, int num_tokens, Store mode) {
    const auto panels_per_index = [&](const Matrix& matrix) {
        const size_t streamed = kBytesPerIndex / matrix.panel_bytes();
        return num_tokens <= kFewTokens ? std::max(1, static_cast<int>(streamed)) : 1;
    };
    const auto num_indices = [&](const Matrix& matrix) {
        return (matrix.num_panels() + panels_per_index(matrix) - 1) / panels_per_index(matrix);
    };
    int per_block = 0;
    for (const Product& product : products) per_block += num_indices(*product.matrix);
    const int num_blocks = (num_tokens + kTokenBlock - 1) / kTokenBlock;
    pool_.parallel_for(num_blocks * per_block, [&](int index, int) {
        const int begin = index / per_block * kTokenBlock, end = std::min(num_tokens, begin + kTokenBlock);
        int rest = index % per_block;
        for (const Product& product : products) {
            const int indices = num_indices(*product.matrix), panels = panels_per_index(*product.matrix);
            if (rest >= indices) {
                rest -= indices;
                continue;
            }
            const int last = std::min(product.matrix->num_panels(), (rest + 1) * panels);
            multiply_panels(*product.matrix, rest * panels, last, codes_, floats, begin, end, product.out, mode);
            return;
        }
    });
}

}  // namespace layerscale
