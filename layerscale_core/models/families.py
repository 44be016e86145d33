"""The families of models that this build knows: one row each.

A family is what its models have in common and their files do not say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from layerscale_core.models.spec import Activation


@dataclass(frozen=True, slots=True)
class Family:
    """A row of the table.

    Attributes:
        gguf: ``general.architecture`` of its GGUF files; None: they go by another family's, or are not read.
        huggingface: ``model_type`` in its ``config.json``.
        has_biases, has_qk_norm: see ``AttentionSpec``.
        has_plain_qk_norm: the norms of queries and keys have no weights, and layers without rotation no such norms.
        has_post_norms: see ``LayerSpec``.
        has_scaled_embedding: embeddings are multiplied by the square root of their width.
        has_tied_output: unless a ``config.json`` says otherwise.
        has_sigmoid_experts: experts weigh what they take, and one more, as large, computes every token.
        has_fused_qkv, has_fused_gate: files hold query, key and value in one tensor, gate and up in one.
        is_interleaved: GGUF files have the rows of query and key in an order that puts rotated pairs side by side.
        has_interleaved_folders: the files of Hugging Face do, too.
        rotated_share: of each head, where a ``config.json`` does not say.
        norm_offset: what the files of Hugging Face leave out of the weights of norms.
        full_every: among windowed layers, every so-many-th sees the whole context; None: no layer does.
        window, chunk: where a file does not say.
        local_rope_base: of the rotation of windowed layers, which is not scaled; None: it is that of the others.
        unrotated_every: every so-many-th layer has no rotation; None: all have.
        score_softcap, logit_softcap: where a file does not say.
    """

    name: str
    gguf: str | None
    huggingface: tuple[str, ...]
    activation: Activation = Activation.SILU
    has_biases: bool = False
    has_qk_norm: bool = False
    has_plain_qk_norm: bool = False
    has_post_norms: bool = False
    has_scaled_embedding: bool = False
    has_tied_output: bool = False
    has_sigmoid_experts: bool = False
    has_fused_qkv: bool = False
    has_fused_gate: bool = False
    is_interleaved: bool = False
    has_interleaved_folders: bool = False
    rotated_share: float = 1.0
    norm_offset: float = 0.0
    full_every: int | None = None
    window: int | None = None
    local_rope_base: float | None = None
    chunk: int | None = None
    unrotated_every: int | None = None
    score_softcap: float | None = None
    logit_softcap: float | None = None


_LLAMA = Family("llama", "llama", ("llama",), is_interleaved=True)
_GLM = Family(
    "glm",
    None,
    ("glm",),
    has_biases=True,
    has_fused_gate=True,
    is_interleaved=True,
    has_interleaved_folders=True,
    rotated_share=0.5,
)
_GEMMA = Family(
    "gemma",
    "gemma",
    ("gemma",),
    activation=Activation.GELU_TANH,
    has_scaled_embedding=True,
    has_tied_output=True,
    norm_offset=1.0,
)

FAMILIES = (
    _LLAMA,
    replace(
        _LLAMA,
        name="llama4",
        gguf="llama4",
        huggingface=("llama4_text", "llama4"),
        has_qk_norm=True,
        has_plain_qk_norm=True,
        has_sigmoid_experts=True,
        has_interleaved_folders=True,
        full_every=4,
        chunk=8192,
        unrotated_every=4,
    ),
    replace(_LLAMA, name="mistral", gguf=None, huggingface=("mistral", "ministral")),
    replace(_LLAMA, name="mistral3", gguf="mistral3", huggingface=("ministral3",)),
    replace(_LLAMA, name="mixtral", gguf=None, huggingface=("mixtral",)),
    replace(_LLAMA, name="smollm3", gguf="smollm3", huggingface=("smollm3",), has_tied_output=True, unrotated_every=4),
    replace(_LLAMA, name="granite", gguf="granite", huggingface=("granite",), has_tied_output=True),
    _GLM,
    replace(_GLM, name="glm4", gguf="glm4", huggingface=("glm4",), has_post_norms=True),
    Family("qwen2", "qwen2", ("qwen2",), has_biases=True),
    Family("qwen3", "qwen3", ("qwen3",), has_qk_norm=True),
    Family("qwen3moe", "qwen3moe", ("qwen3_moe",), has_qk_norm=True),
    _GEMMA,
    replace(
        _GEMMA,
        name="gemma2",
        gguf="gemma2",
        huggingface=("gemma2",),
        has_post_norms=True,
        full_every=2,
        window=4096,
        score_softcap=50.0,
        logit_softcap=30.0,
    ),
    replace(
        _GEMMA,
        name="gemma3",
        gguf="gemma3",
        huggingface=("gemma3_text", "gemma3"),
        has_qk_norm=True,
        has_post_norms=True,
        full_every=6,
        local_rope_base=10_000.0,
    ),
    Family("phi3", "phi3", ("phi3",), has_fused_qkv=True, has_fused_gate=True),
)

BY_GGUF = {family.gguf: family for family in FAMILIES if family.gguf is not None}
BY_HUGGINGFACE = {model_type: family for family in FAMILIES for model_type in family.huggingface}
