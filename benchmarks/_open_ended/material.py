"""What the runs of `open_ended` read: tables of votes and pairs, MiniLM, and a small base model.

Knows nothing of methods and of measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from _jury.cases import Unavailable
from _jury.polarized import load_polarized

from reward_models.whole_file import whole_file, whole_folder


__all__ = ["small_model", "write_tables"]

STEPS, TEXTS_PER_STEP, LEARNING_RATE = 700, 16, 3e-3
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


def write_tables(data: Path, topic: str, folder: Path) -> tuple[Path, Path]:
    """Write the votes and the pairs of a topic as files that a run reads.

    Args:
        data: Folder with `polarized/`.
        topic: Of the polarized-issues data.
        folder: Where they are written, unless they are there.

    Raises:
        Unavailable: The data is not there.
    """
    paths = [folder / f"{topic}-{name}.jsonl" for name in ("votes", "pairs")]
    if not all(path.exists() for path in paths):
        try:
            tables = load_polarized(data / "polarized", topic)
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error
        folder.mkdir(parents=True, exist_ok=True)
        for path, table in zip(paths, tables, strict=True):
            with whole_file(path) as file:
                file.write(table.frame.to_json(orient="records", lines=True, force_ascii=False))
    return paths[0], paths[1]


def small_model(answers: Sequence[tuple[str, str]], folder: Path) -> Path:
    """Make or find a Llama of a million parameters that has read nothing but answers, each after its question.

    It reads those to held-out prompts too, so that distances to people on held-out prompts flatter all policies alike.

    Args:
        answers: Questions with an answer each.
        folder: Where the model is kept.
    """
    if folder.exists():
        return folder
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = _untrained([text for answer in answers for text in answer])
    rows = [
        {
            "prompt": [{"role": "user", "content": question}],
            "completion": [{"role": "assistant", "content": text}],
        }
        for question, text in answers
    ]
    args = SFTConfig(
        str(folder.with_name("small-training")),
        max_steps=STEPS,
        per_device_train_batch_size=TEXTS_PER_STEP,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=STEPS // 10,
        completion_only_loss=True,
        max_length=None,
        seed=0,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    with whole_folder(folder) as unfinished:
        trainer.model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


def _untrained(texts: Sequence[str]):
    """A random Llama over 1,200 pieces of these texts' own words, and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<end>"]
    learnt = trainers.BpeTrainer(vocab_size=1200, special_tokens=special, initial_alphabet=alphabet)
    pieces.train_from_iterator(texts, learnt)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config), tokenizer
