"""`JuryRewardTrainer`: a `trl.RewardTrainer` that fine-tunes the backbone of a jury reward model.

Soft EM during gradient descent: the memberships of raters follow the likelihood of their judgements under the current
heads (`fitting.running_memberships`), and the heads follow the judgements of their members. With one cluster and pairs
without ties the loss is that of TRL's own trainer. Private attributes of TRL are named in `_trl.py` only. Knows
nothing of reinforcement learning or welfare rules: the scalar it saves is the mean over the population.

Shapes: `N` judgements, `V` texts of a batch, `U` texts of a table, `R` raters, `K` clusters.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, PreTrainedModel, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import RewardTrainer

from reward_models.errors import JuryError
from reward_models.jury.features import pooled_features
from reward_models.jury.folder import save_jury
from reward_models.jury.modeling_jury import JuryRewardModel
from reward_models.jury.reading import ReadingSettings
from reward_models.process_group import leave_process_group_at_exit
from reward_models.progress import progress_bars
from reward_models.trainer import _trl, checkpoint
from reward_models.trainer.data import JuryData, divide, read_data, read_evaluation
from reward_models.trainer.heads import base_jury, freeze_heads, prepare_jury, set_heads
from reward_models.trainer.jury_reward_config import JuryRewardConfig
from reward_models.trainer.kept_change import best_share_kept
from reward_models.trainer.metrics import batch_metrics, jury_metrics, table_log_lik
from reward_models.trainer.milestones import Milestones, revive_empty_clusters
from reward_models.trainer.model_card import JuryCard, data_counts
from reward_models.trainer.rows import COLUMNS, JudgementCollator, JudgementRows, PromptSampler
from reward_models.trainer.start import joint_start, start_memberships
from reward_models.trainer.terms import observe, squared_level, tempered_loss
from reward_models.trainer.text_format import resumed_reading, training_reading


if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

    from reward_models.judgements.records import Judgements

__all__ = ["JuryRewardTrainer"]


class JuryRewardTrainer(RewardTrainer):
    """Train a reward model with one head per cluster of raters.

    Parameters:
        model (`str`, [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            A backbone (path, hub id, causal language model or decoder), which gets K new heads; a reward model with
            one head, from which all K start; or a [`JuryRewardModel`], whose heads are trained further.
        args ([`JuryRewardConfig`], *optional*):
            Configuration; the defaults if not given.
        train_dataset ([`Judgements`], [`~datasets.Dataset`] or `pandas.DataFrame`):
            Judgements of any kind, or TRL preference data (`chosen`, `rejected`, optional `prompt`, `margin`) with a
            column `rater_id`; without it there is one cluster. Repeated judgements of a rater are kept.
        eval_dataset ([`Judgements`], [`~datasets.Dataset`], `pandas.DataFrame` or a dictionary of them, *optional*):
            Judgements of the same kind, of the same or of other raters.
        peft_config ([`~peft.PeftConfig`], *optional*):
            Adapter of the backbone. The heads are trained in full, whether or not `modules_to_save` names `"score"`.

    The other parameters are those of [`~trl.RewardTrainer`], except `data_collator`, `compute_metrics` and
    `preprocess_logits_for_metrics`, which this trainer defines itself. The finished jury reads texts as the trainer's
    `reading` says.

    Metrics, besides TRL's: `jury/membership_entropy`, `jury/temperature` and `jury/prevalence/<cluster>` in training;
    in evaluation those of `metrics.jury_metrics`, among them `eval_loss` (nats per judgement),
    `eval_accuracy_<cluster>` and `eval_prevalence_<cluster>`.

    Raises:
        JuryError: Data or model do not allow the number of clusters; or the checkpoint is of another training.
        JudgementError: The table cannot be used.

    Example:
        >>> import tempfile
        >>> from reward_models import planted_judgements
        >>> from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer
        >>> judgements = planted_judgements("preference", num_raters=10, num_items=4).judgements
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = {"report_to": "none", "logging_strategy": "no", "use_cpu": True, "bf16": False}
        ...     args = JuryRewardConfig(folder, num_clusters=2, max_steps=2, **options)
        ...     trainer = JuryRewardTrainer(tiny_causal_lm(), args, judgements, processing_class=tiny_tokenizer())
        ...     steps = trainer.train().global_step
        {'train_runtime': ...}
        >>> steps, trainer.jury.config.cluster_names
        (2, ['cluster 1', 'cluster 2'])
    """

    _tag_names = ["trl", "jury-reward-trainer"]  # noqa: RUF012  (TRL's own convention)
    _name = "JuryReward"

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: JuryRewardConfig | None = None,
        train_dataset: Judgements | Dataset | None = None,
        eval_dataset: Judgements | Dataset | Mapping[str, Judgements | Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        quantization_config: BitsAndBytesConfig | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        if args is None:
            name = model if isinstance(model, str) else model.config.name_or_path
            args = JuryRewardConfig(f"{name.split('/')[-1]}-JuryReward")
        if train_dataset is None:
            raise ValueError("`train_dataset` is required")
        data = read_data(train_dataset)
        if args.heldout_texts > 0:
            data, eval_dataset = divide(data, eval_dataset, args.heldout_texts, args.data_seed or args.seed)
            callbacks = [*(callbacks or []), EarlyStoppingCallback(args.patience)]
        evaluation = dict(eval_dataset) if isinstance(eval_dataset, Mapping) else {"": eval_dataset}
        self._tables: list[JuryData] = [data]
        # `RewardTrainer` accepts data sets only: it gets the numbers of these tables, and asks for their rows later.
        stand_ins = {}
        for name, dataset in evaluation.items():
            if dataset is not None:
                stand_ins[name] = Dataset.from_dict({"table": [len(self._tables)]})
                self._tables.append(read_evaluation(dataset, data))
        jury, self._was_jury = prepare_jury(model, args, data, quantization_config)
        self._untrained = base_jury(jury)
        if peft_config is not None and "score" not in (peft_config.modules_to_save or []):
            peft_config = copy.copy(peft_config)
            peft_config.modules_to_save = [*(peft_config.modules_to_save or []), "score"]
        with _trl.model_is_loaded(args):
            super().__init__(
                model=jury,
                args=args,
                data_collator=JudgementCollator(args.pad_to_multiple_of),
                train_dataset=Dataset.from_dict({"table": [0]}),
                eval_dataset=stand_ins if isinstance(eval_dataset, Mapping) else stand_ins.get(""),
                processing_class=processing_class,
                callbacks=callbacks,
                optimizers=optimizers,
                optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
                peft_config=peft_config,
            )
        if not args.train_heads:
            freeze_heads(self.jury)
        self.cluster_names: list[str] = list(self.jury.config.cluster_names)
        self._last_metrics: dict[str, float] = {}
        self._start()
        if args.save_raters and self.train_dataset.data.anonymous:
            raise JuryError("save_raters=True, but the data do not say who judged. Add rater_id, or leave it out.")
        self.add_callback(Milestones(self))
        leave_process_group_at_exit()

    def _start(self) -> None:
        """Start memberships and terms, and note in the model how texts are read."""
        self.jury.read_as(self.reading)
        self.memberships, self.terms, self._memberships_from = start_memberships(
            self.train_dataset, self.args, self.jury.config, self._was_jury
        )
        # Every process computed the same start, up to the last digits if their machines differ.
        state = broadcast_object_list([checkpoint.get_state(self.memberships, self.terms)])[0]
        checkpoint.set_state(self.memberships, self.terms, state)

    @property
    def jury(self) -> JuryRewardModel:
        """Return the model in training, without the wrappers of accelerate and PEFT."""
        return base_jury(self.accelerator.unwrap_model(self.model))

    # ── data ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> JudgementRows:
        if isinstance(dataset, JudgementRows):
            return dataset
        train = self._tables[0]
        stand_in = isinstance(dataset, Dataset) and dataset.column_names == ["table"]
        data = self._tables[dataset[0]["table"]] if stand_in else read_evaluation(dataset, train)
        if data is train:  # TRL prepares it first
            self.reading = training_reading(args, train, processing_class, self._untrained)
        return JudgementRows(
            data,
            processing_class,
            reading=self.reading,
            judgements_per_row=args.judgements_per_row,
            name="training" if data is train else dataset_name,
            train=None if data is train else train,
        )

    def _read_as(self, reading: ReadingSettings, *, by_rows: bool = False) -> None:
        """Read all tables anew, as the training of a checkpoint does that is resumed."""
        self.reading, trainer = reading, cast(Any, self)  # transformers takes the data sets for its own
        trainer.train_dataset = trainer.train_dataset.read_as(reading, by_rows=by_rows)
        self._tables[0] = trainer.train_dataset.data
        several = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
        read = {name: rows and rows.read_as(reading, by_rows=by_rows) for name, rows in several.items()}
        trainer.eval_dataset = read if isinstance(trainer.eval_dataset, dict) else read[""]
        self._start()

    def _set_signature_columns_if_needed(self) -> None:
        _trl.set_signature_columns(self, COLUMNS)

    def _get_train_sampler(self, train_dataset: JudgementRows | None = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        if self.args.group_by_prompt:
            return PromptSampler(rows.prompts(), self.args.data_seed or self.args.seed)
        return super()._get_train_sampler(rows)

    # ── training ────────────────────────────────────────────────────────────────────────────────────────────────────

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train, as `Trainer.train`, but resume from whole checkpoints only; memberships may need all texts scored."""
        folder = checkpoint.folder_to_resume(resume_from_checkpoint, self.args.output_dir)
        if folder:  # before the weights are loaded, so that another training's is refused with our message
            reading = resumed_reading(folder, self.reading, self.args, self._tables[0])
            if reading != self.reading:
                self._read_as(reading)
            if not checkpoint.is_of(folder, self.memberships):
                self._read_as(reading, by_rows=True)  # earlier versions numbered judgements by the rows of the table
            checkpoint.read_state(folder, self.memberships, self.terms)
        elif self._memberships_from == "model" and self.state.global_step == 0:
            rewards = self._score(self.get_eval_dataloader(self.train_dataset), self.train_dataset.enc.n_texts)
            log_lik, _ = table_log_lik(self.train_dataset, rewards, self.terms)
            self.memberships.record(np.arange(len(log_lik)), log_lik)
        elif self._memberships_from == "joint" and self.state.global_step == 0:
            self._start_jointly()
        output = super().train(folder or resume_from_checkpoint, *args, **kwargs)
        self._write_prevalence()
        return output

    def _start_jointly(self) -> None:
        """Start heads, memberships and terms from a joint fit on the features of the backbone as it is."""
        texts, reading = self.train_dataset.enc.texts, self.reading
        batch_size = self.args.per_device_eval_batch_size
        shown = not self.args.disable_tqdm
        features = pooled_features(
            self.jury.model, self.processing_class, texts, batch_size=batch_size, reading=reading, progress=shown
        )
        with progress_bars(shown):
            start = joint_start(self.train_dataset, features, self.args, self.memberships)
        self.terms = start.terms
        # As in `_start`: the same on every process.
        parts = (checkpoint.get_state(self.memberships, self.terms), start.heads, start.bias)
        state, heads, bias = broadcast_object_list([parts])[0]
        checkpoint.set_state(self.memberships, self.terms, state)
        set_heads(self.jury, heads, bias)
        self._write_prevalence()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Compute the mean of `tempered_loss` over the rows of a batch, relative to the mean weight of a row."""
        training = self.model.training
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        rewards = outputs.cluster_rewards
        obs, of_alternatives = observe(inputs, rewards, self.train_dataset.enc.kind, self.train_dataset.enc.n_raters)
        terms = self.terms.tensors(rewards)
        log_lik = obs.log_lik(of_alternatives, terms)
        if training:
            self._cool()
            self._record(inputs["judgement"], log_lik.detach())
        rater, judgement = inputs["rater"].cpu().numpy(), inputs["judgement"].cpu().numpy() if training else None
        log_membership = torch.from_numpy(self.memberships.log_membership(rater, judgement)).to(log_lik)
        temperature = self.memberships.temperature
        scale = (int(inputs["row"].max()) + 1) * self.train_dataset.row_weight
        loss = tempered_loss(log_lik, log_membership, obs.weight, temperature).sum() / scale
        if self.args.center_rewards_coefficient is not None:
            penalty = self.args.center_rewards_coefficient * squared_level(obs, rewards, inputs["row"])
            loss = loss + penalty @ penalty.new_tensor(self.memberships.prevalence)
        if training:
            fixed = of_alternatives.detach()

            def loss_of_terms(values: dict[str, torch.Tensor]) -> torch.Tensor:
                return tempered_loss(obs.log_lik(fixed, values), log_membership, obs.weight, temperature).sum() / scale

            self.terms.step(loss_of_terms, rewards, lambda tensor: self.accelerator.reduce(tensor, "mean"))
            _trl.count_tokens(self, inputs["attention_mask"])
        with torch.no_grad():
            scalar = obs.gather(outputs.logits)[:, :, 0]
            sums = batch_metrics(obs, obs.gather(rewards), terms, log_membership, scalar, inputs["row"])
            self._log_batch(outputs.logits, sums)
        return (loss, outputs) if return_outputs else loss

    def _cool(self) -> None:
        share = self.args.annealing_share
        progress = self.state.global_step / max(self.state.max_steps, 1)
        anneals = share > 0 and self._memberships_from in ("random", "labels", "joint")
        self.memberships.annealing = max(0.0, 1.0 - progress / share) if anneals else 0.0

    def _record(self, judgement: torch.Tensor, log_lik: torch.Tensor) -> None:
        """Record the judgements of this batch of all processes; every process then has the same memberships."""
        if self._memberships_from in ("labels", "joint") and self.memberships.annealing > 0:
            return
        number, new = self._gather(judgement).numpy(), self._gather(log_lik).numpy()
        self.memberships.record(number[number >= 0], new[number >= 0])

    def _gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Gather the rows of all processes on the CPU, padded with -1 if one has fewer than another."""
        return self.accelerator.gather(self.accelerator.pad_across_processes(tensor, dim=0, pad_index=-1)).cpu()

    def _log_batch(self, logits: torch.Tensor, sums: dict[str, torch.Tensor]) -> None:
        _trl.add_ratios(self, sums)
        # `gather` needs equal shapes, and processes differ in how many texts their batches hold.
        _trl.add_extreme(self, "min_reward", float(self.accelerator.gather(logits.min()).min()), min)
        _trl.add_extreme(self, "max_reward", float(self.accelerator.gather(logits.max()).max()), max)
        if self.model.training and self._memberships_from != "none":
            _trl.add_metric(self, "jury/membership_entropy", self.memberships.entropy())
            _trl.add_metric(self, "jury/temperature", self.memberships.temperature)
            for name, share in zip(self.cluster_names, self.memberships.prevalence, strict=True):
                _trl.add_metric(self, f"jury/prevalence/{name}", float(share))

    def revive_empty_clusters(self, *, reseed: bool = True) -> list[str]:
        """Warn of empty clusters and restart them, or only warn; return their names. See `milestones`."""
        return revive_empty_clusters(self, reseed)

    # ── evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score every text once; the predictions are the rewards (U, K) of the table's texts."""
        rows: Any = dataloader.dataset
        rewards = self._score(dataloader, rows.enc.n_texts)
        self.memberships.annealing = 0.0
        self._write_prevalence()
        metrics = jury_metrics(
            rows,
            rewards,
            self.terms,
            self.memberships.log_membership(rows.rater),
            self.memberships.prevalence,
            self.cluster_names,
            adaptation=self.args.eval_adaptation,
            seed=self.args.seed,
        )
        self._last_metrics = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(rewards, None, dict(self._last_metrics), num_samples=len(rows))

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Score the texts of a table, a data set or rows of either; see `evaluation_loop`."""
        rows = self._prepare_dataset(test_dataset, self.processing_class, self.args, "test")
        return super().predict(cast(Any, rows), *args, **kwargs)

    def _score(self, dataloader: DataLoader, n_texts: int) -> np.ndarray:
        """Compute (U, K) rewards of the texts that a data loader's rows need; 0 for others."""
        rewards = np.zeros((n_texts, self.jury.config.num_clusters))
        model = self.model_wrapped
        self.model.eval()
        model.eval()
        for batch in dataloader:
            inputs = {name: batch[name].to(self.args.device) for name in ("input_ids", "attention_mask", "text")}
            with torch.no_grad(), self.compute_loss_context_manager():
                of_batch = model(**{k: v for k, v in inputs.items() if k != "text"}).cluster_rewards
            text, of_batch = self._gather(inputs["text"]), self._gather(of_batch)
            rewards[text[text >= 0]] = of_batch[text >= 0].numpy()
        return rewards

    # ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write a jury that `JuryScorer.from_pretrained` loads, with its tokenizer and model card.

        Adapters are merged into a copy, which needs the memory of a second model; checkpoints keep them separate.
        """
        self._write_prevalence()
        in_checkpoint = _internal_call and output_dir is not None
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        model = self.accelerator.unwrap_model(self.model)
        rewards = None
        if self.args.save_raters and not (in_checkpoint or sharded):
            rewards = self._score(self.get_eval_dataloader(self.train_dataset), self.train_dataset.enc.n_texts)
        if in_checkpoint or sharded:
            super().save_model(output_dir, _internal_call)
        else:
            if self.args.should_save:
                jury = copy.deepcopy(model).merge_and_unload() if isinstance(model, PeftModel) else model
                descriptions = dict(zip(self.cluster_names, self.args.cluster_descriptions or [], strict=False))
                enc, folder = self.train_dataset.enc, output_dir or self.args.output_dir
                state = checkpoint.finished_state(self.memberships, self.terms, enc, descriptions, rewards)
                save_jury(
                    jury, self.processing_class, state, folder, reading=self.reading, save_raters=rewards is not None
                )
            if self.args.push_to_hub and not _internal_call:
                self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)
        if self.args.should_save:
            self._write_card(Path(output_dir or self.args.output_dir))

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write the model card, as `README.md`, into the output folder."""
        if self.is_world_process_zero():
            self._write_card(Path(self.args.output_dir), model_name, dataset_name, tags)

    def _write_card(
        self, folder: Path, model_name: str | None = None, dataset_name: str | None = None, tags: Any = None
    ) -> None:
        base, rows = self.jury.config.name_or_path, self.train_dataset
        data = {"Data set": dataset_name} if dataset_name else {}
        JuryCard(
            model_name=model_name or Path(self.args.output_dir).name,
            cluster_names=self.cluster_names,
            prevalence=self.memberships.prevalence.tolist(),
            cluster_descriptions=self.args.cluster_descriptions,
            counts=data | data_counts(rows.enc),
            base_model=None if not base or os.path.isdir(base) else base,
            settings={
                "Epochs": f"{self.state.epoch or 0:.2f} ({self.state.global_step:,} steps)",
                "Memberships started from": self._memberships_from,
                "Mean entropy of memberships": f"{self.memberships.entropy():.3f} nats",
            },
            metrics=self._last_metrics,
            special_tokens=self.reading.special_tokens and self.reading.format != "conversations",
            tags=[*self._tag_names, *([tags] if isinstance(tags, str) else tags or [])],
        ).write(folder)

    def _write_prevalence(self) -> None:
        self.jury.config.prevalence = self.memberships.prevalence.tolist()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = _trl.checkpoint_folder(self, trial)
        if self.args.should_save:
            checkpoint.write_state(folder, self.memberships, self.terms, self.reading)
        with _trl.rotation_last():
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                checkpoint.end_checkpoint(folder)

    def _load_best_model(self) -> None:
        with best_share_kept(self):
            super()._load_best_model()
            checkpoint.read_state(self.state.best_model_checkpoint, self.memberships, self.terms)
