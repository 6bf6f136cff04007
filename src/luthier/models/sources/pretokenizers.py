"""How a GGUF's byte-level tokenizer splits text before merging, by the name the file states.

A GGUF holds no pre-tokenizer, only a name (`tokenizer.ggml.pre`) that stands for one. The names,
their regular expressions and which of them look whole words up before merging (`ignore_merges`)
are those of llama.cpp's llama-vocab.cpp, in the spelling of the models' own tokenizer.json. A name
that is not here is refused by the caller: a wrong split gives valid ids that mean something else.
"""

from dataclasses import dataclass

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, PreTokenizer, Sequence, Split

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOLS = r" ?[^\s\p{L}\p{N}]+"
LEAD = r"[^\r\n\p{L}\p{N}]?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LOWERED, RAISED = f"{LEAD}{UPPER}*{LOWER}+", f"{LEAD}{UPPER}+{LOWER}*"

LLAMA3 = rf"{CONTRACTIONS}|{LEAD}\p{{L}}+|\p{{N}}{{1,3}}|{SYMBOLS}[\r\n]*|{TAIL}"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = (
    rf"{CONTRACTIONS}|{LEAD}[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{TAIL}"
)
TEKKEN = rf"{LOWERED}|{RAISED}|\p{{N}}|{SYMBOLS}[\r\n/]*|{TAIL}"
GPT4O = rf"{LOWERED}{CONTRACTIONS}?|{RAISED}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{SYMBOLS}[\r\n/]*|{TAIL}"
GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+|{SYMBOLS}|\s+(?!\S)|\s+"
DEFAULT = (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is split, and whether a piece that is a token as it stands is left unmerged."""

    patterns: tuple[str, ...]
    """Each splits further what those before it left."""
    ignores_merges: bool = False
    composes: bool = False
    """Whether the model's own tokenizer composes characters (NFC) first."""

    @property
    def pre_tokenizer(self) -> PreTokenizer:
        """The splitting, then bytes as letters."""
        splits: list[PreTokenizer] = [Split(Regex(p), "isolated") for p in self.patterns]
        return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])


_FAMILIES = (
    ("gpt-2 phi-2 mpt olmo jais trillion exaone4 granite-docling", Splitting((GPT2,))),
    (
        "smollm starcoder refact command-r codeshell exaone minerva-7b",
        Splitting((r"\p{N}", GPT2)),
    ),
    (
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2",
        Splitting((LLAMA3,), ignores_merges=True),
    ),
    ("dbrx smaug-bpe glm4 chatglm-bpe", Splitting((LLAMA3,))),
    ("qwen2", Splitting((QWEN2,), composes=True)),
    ("deepseek-r1-qwen megrez stablelm2 hunyuan", Splitting((QWEN2,))),
    ("qwen35", Splitting((QWEN35,), composes=True)),
    ("tekken", Splitting((TEKKEN,), ignores_merges=True)),
    ("gpt-4o llama4", Splitting((GPT4O,))),
    ("default", Splitting(DEFAULT)),
)

SPLITTINGS = {name: splitting for names, splitting in _FAMILIES for name in names.split()}
"""tokenizer.ggml.pre -> splitting."""
