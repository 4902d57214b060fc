"""A random language model small enough for an example or a test, with its tokenizer; nothing is downloaded.

As in SmolLM2-Instruct, the end token `<|im_end|>` is also the padding token and the chat template is ChatML, so that a
mistake with real models (pooling or loss by token id instead of by mask) is a mistake with this one too. Knows nothing
of juries, rewards or training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = ["tiny_causal_lm", "tiny_tokenizer"]

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = [
    "Is the United States spending too little, about the right amount, or too much on space exploration?",
    "system user assistant The people who answer are from the city and the country. yes no good bad",
    "Question: which of the options do you think is the best? Answer: too little, about right, too much",
] * 3


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of at most 400 tokens with a ChatML template; eos and pad are `<|im_end|>`.

    Any text can be encoded and decoded.

    Example:
        >>> tokenizer = tiny_tokenizer()
        >>> ids = tokenizer("Which is the best? 最好")["input_ids"]
        >>> tokenizer.decode(ids), tokenizer.eos_token
        ('Which is the best? 最好', '<|im_end|>')
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = _CHATML
    return tokenizer


def tiny_causal_lm(tokenizer: PreTrainedTokenizerBase | None = None, seed: int = 0, **config: Any) -> LlamaForCausalLM:
    """Make a random Llama of two layers, 32 wide, about 40,000 parameters; equal arguments give equal weights.

    The caller's random state is left as it was. The model is in float32, on the CPU and in evaluation mode.

    Args:
        tokenizer: Whose tokens it reads; `tiny_tokenizer()` when None.
        seed: Random seed of the weights.
        **config: Fields of `LlamaConfig` that override the defaults.

    Example:
        >>> model = tiny_causal_lm(num_hidden_layers=1)
        >>> model.config.hidden_size, model.config.num_hidden_layers, model.training
        (32, 1, False)
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tokenizer or tiny_tokenizer()
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**{**fields, **config})).eval()
