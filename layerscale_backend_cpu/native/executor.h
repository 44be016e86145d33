// The forward pass of a decoder-only transformer on the CPU, one call per step.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "activations.h"
#include "arena.h"
#include "attention.h"
#include "batch.h"
#include "likeliest.h"
#include "matrix.h"
#include "multiply.h"
#include "thread_pool.h"

namespace layerscale {

struct Rope {
    std::vector<double> inv_freq;  // [rotary_dim / 2]
    float magnitude;
    bool interleaved;
};

struct LayerShape {
    AttentionShape attention;
    int rope;               // index into ModelShape::ropes
    int intermediate_size;  // of the MLP, or of each expert
    bool is_gelu;           // else SiLU
    bool has_post_norms;
    int num_experts;        // 0 = one MLP
    int num_active;
    bool normalizes_experts;
    bool is_sigmoid;             // experts weigh what they take
    int shared_size;             // of the expert for every token; 0 = none
};

struct ModelShape {
    int vocab_size;  // 0 = layers alone, without embedding and head
    int hidden_size;
    float norm_eps;
    bool tied_output;
    float embedding_scale;
    float logit_softcap;  // 0 = none
    std::vector<Rope> ropes;
    std::vector<LayerShape> layers;
};

// Weights are loaded by name, then `commit` resolves the names and allocates the KV cache, then a batch may be computed:
// all of it by `step`, or some layers by `run_layers`. Names and shapes are those of layerscale_core.models.spec. Used by one
// thread at a time.
class Executor {
public:
    // activation_bits: of the codes that quantised matrices are multiplied with, 16 or 8.
    Executor(ModelShape shape, int num_threads, int activation_bits);

    // Creates a matrix; its rows are packed afterwards, from any multiple of 16.
    Matrix& add_matrix(const std::string& name, Matrix matrix);
    Matrix& matrix(const std::string& name);
    void add_vector(const std::string& name, const float* values, int size);
    void commit(KvType kv_type, int num_pages);

    struct Logits {
        const float* values;                    // [num_logits, vocab_size]
        const std::vector<int32_t>& likeliest;  // of each row, see LikeliestTokens
    };

    // What it returns is valid until the next call.
    Logits step(const Batch& batch);

    // The residual stream [num_tokens, hidden_size] behind layers [first, last), from what is before them; valid until the
    // next call. x may be what an earlier call returned.
    const float* run_layers(const Batch& batch, const float* x, int first, int last);

    // Turns the cached keys of pages as if their tokens stood `delta` positions further.
    void shift_positions(const int32_t* pages, int num_pages, int64_t delta);

    KvCache& kv() { return *kv_; }
    const KvCache& kv() const { return *kv_; }
    ThreadPool& pool() { return pool_; }
    const ModelShape& shape() const { return shape_; }
    size_t allocated_bytes() const { return arena_.allocated_bytes(); }

private:
    struct Mlp {
        const Matrix *gate, *up, *down;
    };
    struct Layer {  // pointers are null where a model has no such weight
        LayerShape shape;
        const float *attention_norm, *mlp_norm, *attention_post_norm, *mlp_post_norm;
        const float *query_bias, *key_bias, *value_bias, *query_norm, *key_norm;
        const Matrix *query, *key, *value, *attention_output, *router;
        std::vector<Mlp> mlps;  // one, or the experts and then the shared one
    };
    struct Chosen {
        int token;
        float weight;
    };
    struct Product {
        const Matrix* matrix;
        float* out;
    };

    const Matrix* find_matrix(const std::string& name) const;
    const float* find_vector(const std::string& name) const;
    Layer find_layer(const LayerShape& shape, const std::string& prefix) const;
    void reserve(const Batch& batch);
    void run(const Batch& batch, int first, int last);
    void embed(const Batch& batch);
    void compute_rotations(const Batch& batch);
    void attention_block(int index, const Batch& batch);
    void store_kv(int index, const Batch& batch);
    void place_heads(const Layer& layer, int token, float* heads, int num_heads, const float* bias, const float* norm) const;
    void mlp_block(const Layer& layer, int num_tokens);
    void mixture_block(const Layer& layer, int num_tokens);
    void choose_experts(const LayerShape& shape, int num_tokens);
    void gated_mlp(const Mlp& mlp, bool is_gelu, const float* x, int num_tokens, float* out, Store mode);
    void project(const Matrix& matrix, const float* x, int num_tokens, const float* post_norm);
    void add_to_residual(const float* post_norm, int num_tokens);
    void rotate(const Rope& rope, int rope_index, int token, float* heads, int num_heads, int head_dim) const;
    void normalize(const float* x, const float* weight, int num_tokens);
    template <typename MakeRow>
    void quantize_each(int num_tokens, int cols, const MakeRow& make_row, float outlier = kOutlier);
    void multiply(std::initializer_list<Product> products, const float* floats, int num_tokens, Store mode);

    ModelShape shape_;
    ThreadPool pool_;
    Arena arena_;
    std::unordered_map<std::string, Matrix> matrices_;
    std::unordered_map<std::string, std::vector<float>> vectors_;
    std::vector<Layer> layers_;
    const Matrix* embedding_ = nullptr;
    const Matrix* output_ = nullptr;
    const float* output_norm_ = nullptr;
    std::unique_ptr<KvCache> kv_;
    Attention attention_;
    LikeliestTokens likeliest_;

    // One step's intermediate values, each [num_tokens, width]; they grow to the largest step and stay.
    Floats residual_, normed_, query_, key_, value_, attended_, gate_, up_, selected_, logits_;
    Floats projected_;                       // what is normalised before it is added, or added up of experts
    Floats router_, expert_in_, expert_out_;
    std::vector<std::vector<Chosen>> chosen_;            // for each expert the tokens that it computes
    std::vector<Floats> rotations_;  // for each Rope: [num_tokens, 2, rotary_dim / 2] cosines and sines
    Activations codes_;
};

// Fills codes_ with the rows [cols] that make_row(token) returns, each quantised while it is still in the cache.
template <typename MakeRow>
void Executor::quantize_each(int num_tokens, int cols, const MakeRow& make_row, float outlier) {
    const bool has_groups = cols % kGroup == 0;  // other widths occur only with float matrices, which do not read codes_
    if (has_groups) codes_.resize(num_tokens, cols);
    pool_.parallel_for(num_tiles(num_tokens), [&](int tile, int) {
        const int end = std::min(num_tokens, (tile + 1) * kTokenTile);
        for (int token = tile * kTokenTile; token < end; ++token) {
            const float* row = make_row(token);
            if (has_groups) codes_.quantize(token, row, outlier);
        }
    });
}

}  // namespace layerscale
