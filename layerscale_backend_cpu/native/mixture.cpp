// A mixture of experts (arXiv:2401.04088): each expert computes the tokens that chose it, one expert after the other.
#include <algorithm>
#include <cmath>

#include "elementwise.h"
#include "executor.h"

namespace layerscale {

namespace {

// Softmax over the scores of all experts, in place.
void softmax(float* scores, int size) {
    const float largest = *std::max_element(scores, scores + size);
    float sum = 0.0f;
    for (int i = 0; i < size; ++i) sum += scores[i] = std::exp(scores[i] - largest);
    for (int i = 0; i < size; ++i) scores[i] /= sum;
}

// 1 / (1 + e^-x), in place.
void sigmoid(float* scores, int size) {
    for (int i = 0; i < size; ++i) scores[i] = 1.0f / (1.0f + std::exp(-scores[i]));
}

}  // namespace

// Fills chosen_ from the router's scores. By comparisons that NaN fails, so that broken scores choose some expert, whose
// weight is then NaN.
void Executor::choose_experts(const LayerShape& shape, int num_tokens) {
    chosen_.assign(shape.num_experts, {});
    std::vector<int> best;
    for (int token = 0; token < num_tokens; ++token) {
        float* scores = router_.data() + static_cast<size_t>(token) * shape.num_experts;
        best.clear();
        for (int place = 0; place < shape.num_active; ++place) {
            int next = -1;
            for (int expert = 0; expert < shape.num_experts; ++expert)
                if (std::find(best.begin(), best.end(), expert) == best.end() &&
                    (next < 0 || scores[expert] > scores[next]))
                    next = expert;
            best.push_back(next);
        }
        if (shape.is_sigmoid) sigmoid(scores, shape.num_experts);
        else softmax(scores, shape.num_experts);
        float total = 0.0f;
        for (const int expert : best) total += scores[expert];
        for (const int expert : best)
            chosen_[expert].push_back({token, shape.normalizes_experts ? scores[expert] / total : scores[expert]});
    }
}

void Executor::mixture_block(const Layer& layer, int num_tokens) {
    const int hidden = shape_.hidden_size;
    normalize(residual_.data(), layer.mlp_norm, num_tokens);
    multiply({{layer.router, router_.data()}}, normed_.data(), num_tokens, Store::kReplace);
    choose_experts(layer.shape, num_tokens);
    const bool is_gelu = layer.shape.is_gelu, weighs_input = layer.shape.is_sigmoid;
    if (layer.shape.shared_size > 0)
        gated_mlp(layer.mlps.back(), is_gelu, normed_.data(), num_tokens, projected_.data(), Store::kReplace);
    else
        std::fill_n(projected_.data(), static_cast<size_t>(num_tokens) * hidden, 0.0f);
    for (int expert = 0; expert < layer.shape.num_experts; ++expert) {
        const std::vector<Chosen>& tokens = chosen_[expert];
        const int count = static_cast<int>(tokens.size());
        if (count == 0) continue;
        quantize_each(count, hidden, [&](int i) {
            float* row = expert_in_.data() + static_cast<size_t>(i) * hidden;
            std::copy_n(normed_.data() + static_cast<size_t>(tokens[i].token) * hidden, hidden, row);
            if (weighs_input) scale(row, hidden, tokens[i].weight);
            return row;
        });
        gated_mlp(layer.mlps[expert], is_gelu, expert_in_.data(), count, expert_out_.data(), Store::kReplace);
        for (int i = 0; i < count; ++i)
            add(projected_.data() + static_cast<size_t>(tokens[i].token) * hidden,
                expert_out_.data() + static_cast<size_t>(i) * hidden, hidden, weighs_input ? 1.0f : tokens[i].weight);
    }
    add_to_residual(layer.mlp_post_norm, num_tokens);
}

}  // namespace layerscale
