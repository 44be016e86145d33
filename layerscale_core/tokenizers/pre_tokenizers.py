"""How byte-level BPE models cut text into words before merging, by the name GGUF gives each way.

The expressions are those of the models' own ``tokenizer.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One way of cutting.

    Attributes:
        patterns: Oniguruma expressions, applied in order; each cuts every piece so far into its matches and what is
            between them.
        ignore_merges: a word that is itself a token is taken whole, whatever the merges say.
        add_bos: what such models do when the metadata does not say.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


_DIGIT, _DIGITS, _UP_TO_3_DIGITS = r"\p{N}", r"\p{N}+", r"\p{N}{1,3}"
_NEWLINES = r"[\r\n]+"
_CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PHRASE = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _whitespace(newlines: str) -> str:
    """Spaces up to line ends; other spaces but the last, which belongs to the word after it."""
    return rf"\s*{newlines}|\s+(?!\S)|\s+"


def _llama3(
    digits: str,
    *,
    letter: str = r"\p{L}",
    other: str = r"[^\s\p{L}\p{N}]",
    after_other: str = r"[\r\n]*",
    newlines: str = _NEWLINES,
) -> str:
    """Llama 3's expression; its descendants group digits and line ends otherwise, or take marks for letters."""
    word = rf"[^\r\n\p{{L}}\p{{N}}]?{letter}+"
    return rf"{_CONTRACTION}|{word}|{digits}| ?{other}+{after_other}|{_whitespace(newlines)}"


def _cased(digits: str, suffix: str = "") -> str:
    """Tekken's expression and its like: capitals only begin a word, so that ``camelCase`` is two."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    words = "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?{word}{suffix}" for word in (f"{upper}*{lower}+", f"{upper}+{lower}*"))
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_whitespace(_NEWLINES)}"


# The letters with case that DeepSeek's first models list one range after the other; no Unicode property equals them.
_DEEPSEEK_LETTERS = (
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}\x{370}-\x{373}"
    r"\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}"
    r"\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}"
    r"\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}"
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}"
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}"
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}"
    r"\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}"
    r"\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}"
    r"\x{A722}-\x{A76F}\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}"
    r"\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}"
    r"\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}"
)
_DEEPSEEK_CJK = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"

_PLAIN = PreTokenizer((_GPT2,))
_DIGIT_BY_DIGIT = PreTokenizer((_DIGIT, _GPT2))
_LLAMA3 = PreTokenizer((_llama3(_UP_TO_3_DIGITS),), ignore_merges=True, add_bos=True)
_LLAMA3_MERGED = PreTokenizer((_llama3(_UP_TO_3_DIGITS),))
_MINICPM5 = PreTokenizer((_UP_TO_3_DIGITS, _llama3(_DIGITS)), ignore_merges=True)
_QWEN2 = PreTokenizer((_llama3(_DIGIT),))
_QWEN35 = PreTokenizer((_llama3(_DIGIT, letter=r"[\p{L}\p{M}]", other=r"[^\s\p{L}\p{M}\p{N}]"),))
_SEED_CODER = PreTokenizer((_llama3(_DIGIT, after_other=""),))
_BAILING = PreTokenizer((_llama3(_DIGIT, newlines=r"[\r\n]"),))
_TEKKEN = PreTokenizer((_cased(_DIGIT),), ignore_merges=True, add_bos=True)
_GPT4O = PreTokenizer((_cased(_UP_TO_3_DIGITS, suffix=f"{_CONTRACTION}?"),))
_FALCON = PreTokenizer((r"[\p{P}$+<=>^~|`]+", _GPT2, "[0-9][0-9][0-9]"))
_DEFAULT = PreTokenizer((r"[\p{P}$+<=>^~|]+", _GPT2, _DIGITS, "[0-9][0-9][0-9]"))
_DEEPSEEK_LLM = PreTokenizer(
    (
        r"[\r\n]",
        rf"\s?[{_DEEPSEEK_LETTERS}]+",
        r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+",
        r"\s+$",
        _DEEPSEEK_CJK,
        _DIGITS,
    )
)
_DEEPSEEK_CODER = PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, _DIGIT))
_DEEPSEEK_V3 = PreTokenizer(
    (
        _UP_TO_3_DIGITS,
        r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+",
        r"[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
        + _whitespace(_NEWLINES),
    )
)
_BLOOM = PreTokenizer((_PHRASE,))
_VIKING = PreTokenizer((_PHRASE, _DIGIT))

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    name: pre_tokenizer
    for names, pre_tokenizer in {
        "default": _DEFAULT,
        "gpt-2 phi-2 mpt olmo jais trillion exaone4 gigachat a.x-4.0 mellum granite-docling": _PLAIN,
        "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2": _DIGIT_BY_DIGIT,
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2": _LLAMA3,
        "dbrx smaug-bpe glm4 chatglm-bpe": _LLAMA3_MERGED,
        "minicpm5": _MINICPM5,
        "qwen2 stablelm2 deepseek-r1-qwen megrez hunyuan kormo grok-2 solar-open": _QWEN2,
        "qwen35": _QWEN35,
        "seed-coder": _SEED_CODER,
        "bailingmoe bailingmoe2 llada-moe": _BAILING,
        "tekken": _TEKKEN,
        "gpt-4o llama4 kanana2 minimax-m2": _GPT4O,
        "falcon": _FALCON,
        "deepseek-llm": _DEEPSEEK_LLM,
        "deepseek-coder": _DEEPSEEK_CODER,
        "deepseek-v3 hunyuan-dense joyai-llm": _DEEPSEEK_V3,
        "bloom poro-chat gpt3-finnish": _BLOOM,
        "viking": _VIKING,
    }.items()
    for name in names.split()
}
"""Every pre-tokenizer this build has, by the value of ``tokenizer.ggml.pre``."""
