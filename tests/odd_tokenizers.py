"""Tokenizers that put special tokens after a text, and tokenizers that put a word mark before it."""

from __future__ import annotations

from dataclasses import replace

from conftest import SENTENCES, make_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from romexp.lm.model import LanguageModel

END = "<|endoftext|>"


def _with(processor: object, **special: str) -> PreTrainedTokenizerFast:
    """`make_tokenizer`'s tokens, with another post-processor."""
    inner = _copy(make_tokenizer())
    inner.post_processor = processor
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def _copy(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    return Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())


def _template(single: str) -> processors.TemplateProcessing:
    ids = make_tokenizer().get_vocab()
    names = [name for name in (END, "<s>") if name in single]
    return processors.TemplateProcessing(
        single=single, pair=f"{single} $B:1", special_tokens=[(name, ids[name]) for name in names]
    )


def ending(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens after every text: `end`, `both` sides, `two` of them, or as `bert` does.

    All tokens are those of `make_tokenizer()`; with `both`, `two` and `bert` a text begins with `<s>`.
    """
    offsets = processors.ByteLevel(trim_offsets=False)
    marks = {"eos_token": END, "bos_token": "<s>"}
    match kind:
        case "end":
            return _with(processors.Sequence([offsets, _template(f"$A {END}")]), eos_token=END)
        case "both":
            return _with(processors.Sequence([offsets, _template(f"<s> $A {END}")]), **marks)
        case "two":
            return _with(processors.Sequence([offsets, _template(f"<s> $A {END} {END}")]), **marks)
        case "bert":
            ids = make_tokenizer().get_vocab()
            bert = processors.BertProcessing((END, ids[END]), ("<s>", ids["<s>"]))
            return _with(processors.Sequence([offsets, bert]), sep_token=END, cls_token="<s>", eos_token=END)
    raise ValueError(kind)


ENDINGS = ("end", "both", "two", "bert")


def marking(kind: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts a word mark before a text: like `llama` 2, like `t5`, or like `opt` (byte-level)."""
    match kind:
        case "llama":
            inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
            inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
            inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
            inner.train_from_iterator(
                SENTENCES, trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
            )
            inner.pre_tokenizer = None
            inner.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
            inner.post_processor = processors.TemplateProcessing(
                single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
            )
            return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        case "t5":
            inner = Tokenizer(models.Unigram())
            inner.pre_tokenizer = pre_tokenizers.Metaspace()
            inner.decoder = decoders.Metaspace()
            inner.train_from_iterator(
                [*SENTENCES, "京 都"],
                trainers.UnigramTrainer(
                    vocab_size=120,
                    special_tokens=["<pad>", "</s>", "<unk>"],
                    unk_token="<unk>",
                    show_progress=False,
                ),
            )
            inner.post_processor = processors.TemplateProcessing(
                single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
            )
            return PreTrainedTokenizerFast(
                tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
            )
        case "opt":
            inner = _copy(make_tokenizer())
            inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
            return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END)
    raise ValueError(kind)


MARKINGS = ("llama", "t5", "opt")


def with_tokenizer(lm: LanguageModel, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """The same weights behind another tokenizer of the same vocabulary."""
    tokenizer.pad_token = END
    return replace(lm, tokenizer=tokenizer)
