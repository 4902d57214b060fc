"""The jury as a transformers model, and inside TRL's stock trainers: `reward_models.jury.modeling_jury`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, pipeline
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer

from reward_models.errors import JuryError
from reward_models.judgements.texts import Text
from reward_models.jury.backbones.loading import truncate_backbone
from reward_models.jury.features import pooled_features
from reward_models.jury.modeling_jury import JuryConfig, JuryRewardModel
from reward_models.jury.scorer import JuryScorer
from reward_models.raters.likelihoods import davidson_log_lik
from tests.saved_juries import remember
from tests.tiny import save_tiny, tiny_causal_lm, tiny_tokenizer


NAMES = ["city", "country", "space"]
PREVALENCE = [0.6, 0.3, 0.1]
WEIGHTS = [1.0, 1.0, 6.0]
QUESTIONS = [
    "too little?",
    "about right?",
    "Is the United States spending too much on space exploration?",
    "yes or no?",
]
CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "gradient_checkpointing": False, "disable_tqdm": True}


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def make_jury(tokenizer, *, num_clusters=3, weights=None, **config):
    rng = np.random.default_rng(0)
    return JuryRewardModel.from_fit(
        tiny_causal_lm(tokenizer, seed=1, **config),
        rng.normal(size=(num_clusters, 32)),
        rng.normal(size=num_clusters),
        PREVALENCE if num_clusters == 3 else [1 / num_clusters] * num_clusters,
        NAMES[:num_clusters],
        weights,
    )


def inputs(tokenizer, texts, side):
    return tokenizer(list(texts), return_tensors="pt", padding=True, padding_side=side, add_special_tokens=False)


def score(jury, tokenizer, texts, side="right", **kwargs):
    with torch.no_grad():
        return jury(**inputs(tokenizer, texts, side), **kwargs)


def test_heads_are_the_fitted_ones(tokenizer):
    lm = tiny_causal_lm(tokenizer)
    rng = np.random.default_rng(3)
    weight, bias = rng.normal(size=(3, 32)), rng.normal(size=3)
    features = pooled_features(lm, tokenizer, [Text(question, "") for question in QUESTIONS])
    jury = JuryRewardModel.from_fit(lm, weight, torch.tensor(bias), PREVALENCE, NAMES)
    output = score(jury, tokenizer, QUESTIONS)
    expected = features @ weight.T + bias
    np.testing.assert_allclose(output.cluster_rewards.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(output.consensus.numpy()[:, 0], expected @ PREVALENCE, atol=1e-5)
    torch.testing.assert_close(output.logits, output.consensus)
    assert output.loss is None
    assert output.logits.shape == output.consensus.shape == (4, 1)


def test_fit_on_a_truncated_backbone_survives_saving(tokenizer, tmp_path):
    short = truncate_backbone(tiny_causal_lm(tokenizer), 1)
    jury = JuryRewardModel.from_fit(short, np.ones((2, 32)), np.zeros(2), [0.5, 0.5])
    jury.save_pretrained(tmp_path)
    loaded = JuryRewardModel.from_pretrained(tmp_path)
    assert len(loaded.model.layers) == 1
    assert loaded.config.cluster_names == ["cluster 1", "cluster 2"]
    assert torch.equal(score(loaded, tokenizer, QUESTIONS).logits, score(jury, tokenizer, QUESTIONS).logits)


def test_logits_are_the_mean_under_the_stored_weights(tokenizer):
    output = score(make_jury(tokenizer, weights=WEIGHTS), tokenizer, QUESTIONS)
    rewards = output.cluster_rewards
    torch.testing.assert_close(output.logits[:, 0], (rewards[:, 0] + rewards[:, 1] + 6 * rewards[:, 2]) / 8)
    torch.testing.assert_close(output.consensus[:, 0], 0.6 * rewards[:, 0] + 0.3 * rewards[:, 1] + 0.1 * rewards[:, 2])
    assert (output.logits - output.consensus).abs().min() > 1e-3


@pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModel])
def test_round_trip_through_auto_classes(tokenizer, tmp_path, auto):
    jury = make_jury(tokenizer, weights=WEIGHTS)
    jury.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]

    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is JuryRewardModel
    for field in ("num_clusters", "cluster_names", "prevalence", "weights", "num_labels"):
        assert getattr(loaded.config, field) == getattr(jury.config, field)
    text_config = {**jury.config.text_config.to_dict(), "dtype": "float32"}
    assert loaded.config.text_config.to_dict() == text_config
    assert loaded.config.cluster_names == NAMES
    before, after = score(jury, tokenizer, QUESTIONS), score(loaded, tokenizer, QUESTIONS)
    assert torch.equal(before.cluster_rewards, after.cluster_rewards)
    assert torch.equal(before.logits, after.logits)
    assert AutoConfig.from_pretrained(tmp_path).cluster_names == NAMES


def test_padding_side_and_batch_do_not_matter(tokenizer):
    jury = make_jury(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    texts = [*QUESTIONS, "yes<|im_end|>", "yes"]
    right = score(jury, tokenizer, texts).cluster_rewards
    left = score(jury, tokenizer, texts, side="left").cluster_rewards
    alone = torch.cat([score(jury, tokenizer, [text]).cluster_rewards for text in texts])
    torch.testing.assert_close(left, right, atol=2e-5, rtol=0)
    torch.testing.assert_close(alone, right, atol=2e-5, rtol=0)
    assert (right[-1] - right[-2]).abs().max() > 0.1


def test_foreign_keyword_arguments_do_not_matter(tokenizer):
    jury = make_jury(tokenizer)
    plain = score(jury, tokenizer, QUESTIONS)
    extra = score(jury, tokenizer, QUESTIONS, margin=torch.ones(4), use_cache=True, labels=torch.zeros(4))
    assert torch.equal(plain.logits, extra.logits)
    assert torch.equal(score(jury, tokenizer, QUESTIONS, return_dict=False)[0], plain.logits)


def test_embeddings_and_ids_agree(tokenizer):
    jury = make_jury(tokenizer)
    encoded = inputs(tokenizer, QUESTIONS, "right")
    with torch.no_grad():
        embeds = jury.get_input_embeddings()(encoded["input_ids"])
        output = jury(inputs_embeds=embeds, attention_mask=encoded["attention_mask"])
    torch.testing.assert_close(output.logits, score(jury, tokenizer, QUESTIONS).logits)


def test_rewards_stay_float32_in_bfloat16(tokenizer):
    jury = make_jury(tokenizer)
    with torch.no_grad():
        jury.score.bias += 100.0
    jury = jury.to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rewards = jury(**inputs(tokenizer, QUESTIONS, "right")).cluster_rewards
    assert rewards.dtype == torch.float32
    # In bfloat16 numbers near 100 are multiples of 0.5.
    assert ((rewards * 2) % 1 != 0).all()


def test_from_fit_takes_no_copy_and_knows_the_backbones_name(tokenizer, tmp_path):
    tiny_causal_lm(tokenizer).save_pretrained(tmp_path)
    backbone = AutoModel.from_pretrained(tmp_path)
    jury = JuryRewardModel.from_fit(backbone, np.zeros((1, 32)), np.zeros(1), [1.0])
    assert jury.model is backbone
    assert not any(parameter.is_meta for parameter in jury.parameters())
    assert jury.config.name_or_path == str(tmp_path)
    jury.config.text_config.vocab_size = 7
    assert backbone.config.vocab_size == len(tokenizer)


def test_a_jury_from_its_configuration_alone_is_random_but_whole():
    config = JuryConfig(text_config=tiny_causal_lm().config.to_dict(), num_clusters=2)
    assert (config.num_labels, config.cluster_names, config.prevalence) == (1, ["cluster 1", "cluster 2"], [0.5, 0.5])
    jury = JuryRewardModel(config)
    assert jury.score.weight.std() > 0
    assert jury.all_tied_weights_keys == {}
    assert jury._no_split_modules == {"LlamaDecoderLayer"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_clusters": 0}, "num_clusters=0: a jury needs at least one cluster.*integer from 1 up"),
        ({"num_clusters": 2.0}, "num_clusters=2.0: a jury needs"),
        ({"num_clusters": True}, "num_clusters=True: a jury needs"),
        ({"num_clusters": 2, "num_labels": 2}, "num_labels=2: TRL takes one score per text.*num_clusters=2"),
        ({"num_clusters": 2, "cluster_names": ["a", "a"]}, r"\['a'\] appears more than once.*ambiguous. Rename"),
        (
            {"num_clusters": 2, "cluster_names": ["a", " "]},
            "a name is empty or not a string. Give each cluster a name",
        ),
        (
            {"num_clusters": 2, "cluster_names": ["a"]},
            "cluster_names=.'a'.: 1 entries for num_clusters=2. Give one per",
        ),
        ({"num_clusters": 2, "prevalence": [0.6, 0.6]}, "sums to 1.2, but these are shares.*Divide them by their sum"),
        ({"num_clusters": 2, "prevalence": [1.2, -0.2]}, "prevalence=.1.2, -0.2.: entries must be finite and not neg"),
        ({"num_clusters": 2, "prevalence": [float("nan"), 1.0]}, "prevalence=.nan, 1.0.: entries must be finite"),
        ({"num_clusters": 2, "prevalence": [1.0]}, "prevalence=.1.0.: 1 entries for num_clusters=2"),
        (
            {"num_clusters": 2, "weights": [0.0, 0.0]},
            "weights=.0.0, 0.0.: at least one cluster needs a positive weight",
        ),
        ({"num_clusters": 2, "weights": [1.0, -1.0]}, "weights=.1.0, -1.0.: entries must be finite and not negative"),
    ],
)
def test_bad_configurations_are_refused(fields, message):
    with pytest.raises(JuryError, match=message):
        JuryConfig(**fields)


def test_num_labels_other_than_one_is_refused_when_loading(tokenizer, tmp_path):
    make_jury(tokenizer).save_pretrained(tmp_path)
    with pytest.raises(JuryError, match="num_labels=2: TRL takes one score per text"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=2)


@pytest.mark.parametrize(
    ("weight", "bias", "prevalence", "message"),
    [
        (np.ones((2, 31)), np.zeros(2), [0.5, 0.5], r"weight \(2, 31\) and bias \(2,\) do not match LlamaModel.*D=32"),
        (np.ones((2, 32)), np.zeros(3), [0.5, 0.5], r"bias \(3,\) do not match LlamaModel"),
        (
            np.full((2, 32), np.nan),
            np.zeros(2),
            [0.5, 0.5],
            "holds NaN or infinity: the fit did not converge.*the features it was fitted to",
        ),
        (np.ones((2, 32)), np.zeros(2), [0.5, 0.6], "sums to 1.1, but these are shares of one population"),
        (np.ones((0, 32)), np.zeros(0), [], "num_clusters=0: a jury needs at least one cluster"),
    ],
)
def test_heads_that_do_not_fit_are_refused(tokenizer, weight, bias, prevalence, message):
    with pytest.raises(JuryError, match=message):
        JuryRewardModel.from_fit(tiny_causal_lm(tokenizer), weight, bias, prevalence)


def test_text_classification_pipeline_gives_the_logit(tokenizer, tmp_path):
    jury = make_jury(tokenizer)
    jury.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), function_to_apply="none", device="cpu")
    given = [row["score"] for row in classify(QUESTIONS)]
    np.testing.assert_allclose(given, score(jury, tokenizer, QUESTIONS).logits[:, 0].numpy(), atol=1e-5)


class WeightedMean:
    """A reward callable that scores with `JuryScorer`, and remembers what it was asked."""

    __name__ = "by_scorer"

    def __init__(self, scorer, weights):
        self.scorer, self.weights, self.seen = scorer, np.asarray(weights) / np.sum(weights), []

    def __call__(self, prompts, completions, **kwargs):
        rewards = self.scorer.cluster_rewards(prompts, completions).numpy() @ self.weights
        self.seen.extend(rewards.tolist())
        return rewards.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("conversational", [False, True])
@pytest.mark.parametrize(("trainer_class", "config_class"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_stock_trainers_take_the_jury_by_path(tokenizer, tmp_path, trainer_class, config_class, conversational):
    path = tmp_path / "jury"
    JuryScorer(make_jury(tokenizer, weights=WEIGHTS), tokenizer).save_pretrained(path)
    by_scorer = WeightedMean(JuryScorer.from_pretrained(path), WEIGHTS)
    prompts = [[{"role": "user", "content": q}] if conversational else q for q in QUESTIONS]
    trainer = trainer_class(
        model=save_tiny(tmp_path / "policy"),
        reward_funcs=[str(path), by_scorer],
        args=config_class(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=6,
            logging_steps=1,
            save_strategy="no",
            **CPU,
        ),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
    )
    trainer.train()
    rows = [row for row in trainer.state.log_history if "rewards/jury/mean" in row]
    assert len(rows) == 2
    assert len(by_scorer.seen) == 8
    for row in rows:
        assert row["rewards/jury/std"] > 0.05
        assert row["rewards/jury/mean"] == pytest.approx(row["rewards/by_scorer/mean"], abs=2e-5)
        assert row["rewards/jury/std"] == pytest.approx(row["rewards/by_scorer/std"], abs=2e-5)


def preferences():
    return Dataset.from_dict(
        {
            "prompt": QUESTIONS,
            "chosen": ["yes", "the city", "about right, I think", "good"],
            "rejected": ["no, the country", "bad", "no", "which of the options?"],
        }
    )


def reward_trainer(jury, tokenizer, folder, data, steps=1, **arguments):
    settings = {"max_steps": steps, "per_device_train_batch_size": 4, "save_strategy": "no", **CPU}
    args = RewardConfig(output_dir=str(folder), **settings)
    return RewardTrainer(model=jury, args=args, train_dataset=data, processing_class=tokenizer, **arguments)


def test_reward_trainer_on_one_cluster_is_bradley_terry(tokenizer, tmp_path):
    jury = make_jury(tokenizer, num_clusters=1)
    before = jury.score.weight.detach().clone()
    trainer = reward_trainer(jury, tokenizer, tmp_path, preferences())
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, batch)
        rewards = [
            jury(input_ids=ids[mask.bool()][None]).cluster_rewards[0, 0]
            for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
    chosen, rejected = torch.stack(rewards).chunk(2)
    log_lik = davidson_log_lik(chosen, rejected, torch.zeros(4, dtype=torch.long))
    by_hand = -torch.nn.functional.logsigmoid(chosen - rejected)
    assert loss.item() == pytest.approx(-log_lik.mean().item(), abs=1e-6)
    assert loss.item() == pytest.approx(by_hand.mean().item(), abs=1e-6)
    assert by_hand.std() > 0.1

    trainer.train()
    assert not torch.equal(before, jury.score.weight)


def test_reward_trainer_trains_three_clusters_through_their_mean(tokenizer, tmp_path):
    jury = make_jury(tokenizer)
    data = preferences().add_column("margin", [0.5, 0.0, 1.0, 0.0])
    trainer = reward_trainer(jury, tokenizer, tmp_path, data)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = JuryScorer.from_pretrained(tmp_path / "saved")
    assert loaded.cluster_names == NAMES
    expected = score(jury.eval(), tokenizer, QUESTIONS).cluster_rewards
    torch.testing.assert_close(loaded.cluster_rewards(QUESTIONS, [""] * 4), expected, atol=2e-5, rtol=0)


def test_reward_trainer_with_lora_keeps_the_heads_trainable(tokenizer, tmp_path):
    jury = make_jury(tokenizer, num_clusters=1)
    before = score(jury, tokenizer, QUESTIONS).logits
    lora = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj"], modules_to_save=["score"])
    trainer = reward_trainer(jury, tokenizer, tmp_path, preferences(), steps=2, peft_config=lora)
    trainer.train()
    adapted = score(trainer.model.eval(), tokenizer, QUESTIONS).logits
    merged = trainer.model.merge_and_unload()
    assert type(merged) is JuryRewardModel
    torch.testing.assert_close(score(merged, tokenizer, QUESTIONS).logits, adapted, atol=1e-5, rtol=0)
    assert (adapted - before).abs().min() > 1e-6


def remembering_jury(tokenizer, num_clusters=2):
    lm = tiny_causal_lm(tokenizer)
    rng = np.random.default_rng(5)
    features = pooled_features(lm, tokenizer, [Text(question, "") for question in QUESTIONS])
    residuals = rng.normal(size=(len(QUESTIONS), num_clusters))
    weight, bias = rng.normal(size=(num_clusters, 32)), rng.normal(size=num_clusters)
    prevalence = [1 / num_clusters] * num_clusters
    jury = remember(JuryRewardModel.from_fit(lm, weight, bias, prevalence), features, residuals)
    return jury, features @ weight.T + bias, residuals


def test_memory_adds_the_residuals_of_judged_texts_only(tokenizer):
    jury, linear, residuals = remembering_jury(tokenizer)
    assert (jury.config.num_anchors, jury.config.num_labels) == (4, 1)
    np.testing.assert_allclose(score(jury, tokenizer, QUESTIONS).cluster_rewards, linear + residuals, atol=1e-3)
    # Other texts get next to nothing.
    new = ["Is it too much?", "the city"]
    plain = JuryRewardModel.from_fit(jury.model, jury.score.weight.detach(), jury.score.bias.detach(), [0.5, 0.5])
    assert plain.memory is None
    added = score(jury, tokenizer, new).cluster_rewards - score(plain, tokenizer, new).cluster_rewards
    assert added.abs().max() < 0.1 * np.abs(residuals).max()


def test_memory_survives_saving_exactly_and_stays_float32(tokenizer, tmp_path):
    jury, *_ = remembering_jury(tokenizer)
    JuryScorer(jury, tokenizer).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is JuryRewardModel
    before, after = score(jury, tokenizer, QUESTIONS), score(loaded, tokenizer, QUESTIONS)
    assert torch.equal(before.cluster_rewards, after.cluster_rewards)
    assert torch.equal(JuryScorer.from_pretrained(tmp_path).model.memory.anchors, jury.memory.anchors)
    half = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.score.weight.dtype == torch.bfloat16
    for model in (half, loaded.to(torch.bfloat16)):
        assert torch.equal(model.memory.anchors, jury.memory.anchors)
        assert model.memory.length_scale.dtype == torch.float32


def test_a_negative_number_of_remembered_texts_is_refused():
    with pytest.raises(JuryError, match=r"num_anchors=-1: the number of stored texts.*Give 0"):
        JuryConfig(num_anchors=-1)


def test_reward_trainer_takes_a_jury_with_a_memory(tokenizer, tmp_path):
    jury, *_ = remembering_jury(tokenizer, num_clusters=1)
    trainer = RewardTrainer(
        model=jury,
        args=RewardConfig(
            output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=4, save_strategy="no", **CPU
        ),
        train_dataset=preferences(),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    loaded = JuryScorer.from_pretrained(tmp_path / "saved")
    assert torch.equal(loaded.model.memory.anchors, jury.memory.anchors)
