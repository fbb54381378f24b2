"""Text to ids and back: char, bpe trained here, OpenAI's vocabularies, SentencePiece."""

from glassgpt.tokenizers.base import Tokenizer
from glassgpt.tokenizers.build import TokenizerConfig, build_tokenizer, load_tokenizer, open_tokenizer

__all__ = ["Tokenizer", "TokenizerConfig", "build_tokenizer", "load_tokenizer", "open_tokenizer"]
