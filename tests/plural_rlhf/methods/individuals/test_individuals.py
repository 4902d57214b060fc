"""Steering to individuals: what is shown, what is predicted, what is scored, checked by hand or a second way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from plural_rlhf.evaluation.in_context.sequences import Example, PersonSequence, judgement_sequences, shuffled_people
from plural_rlhf.methods.individuals import (
    Combination,
    JuryReader,
    individual_shares,
    lewidi_scores,
    most_informative,
    most_recent,
    most_similar,
    tune_to_individuals,
    tuning,
    with_traits,
)
from plural_rlhf.methods.individuals.predictions import steering_sequence
from plural_rlhf.methods.spectrum import SpectrumConfig, template_for
from plural_rlhf.methods.spectrum.tokens import encode_sequence
from plural_rlhf.policies.base_models import tiny_causal_lm, tiny_tokenizer
from reward_models import planted_judgements
from reward_models.errors import JudgementError, JuryError


@pytest.fixture(scope="module")
def people():
    return judgement_sequences(planted_judgements("choice", num_raters=90, num_items=10, strength=3.0).judgements)


@pytest.fixture(scope="module")
def tiny():
    tokenizer = tiny_tokenizer()
    return tiny_causal_lm(tokenizer), tokenizer, template_for(tokenizer)


def test_shares_are_those_of_the_whole_answers_one_sequence_at_a_time(people, tiny):
    model, tokenizer, template = tiny
    shown = [[0, 1], [], [2]]
    batched = individual_shares(model, tokenizer, people[:3], shown, [5, 5, 6], template, batch_size=2, progress=False)
    for person, read, target, shares in zip(people[:3], shown, [5, 5, 6], batched, strict=True):
        log_p = []
        for option in person.examples[target].options:
            changed = [*person.examples]
            changed[target] = Example(changed[target].input, option, changed[target].options, "q")
            tokens = encode_sequence(
                steering_sequence(PersonSequence("p", tuple(changed), person.description), read, target),
                template, tokenizer,
            )  # fmt: skip
            ids = torch.tensor([tokens.input_ids])
            logits = model(ids).logits[0].log_softmax(-1).detach()
            start, stop = tokens.outputs[-1]
            log_p.append(sum(float(logits[at - 1, ids[0, at]]) for at in range(start, stop)))
        expected = np.exp(log_p) / np.exp(log_p).sum()
        np.testing.assert_allclose(shares, expected, atol=1e-5)


def test_demonstrations_that_do_not_fit_are_left_out_whole_the_first_ones_first(people, tiny):
    model, tokenizer, template = tiny
    person = people[0]
    whole = encode_sequence(steering_sequence(person, [1, 2], 5), template, tokenizer)
    shorter = individual_shares(
        model, tokenizer, [person], [[0, 1, 2]], [5], template, max_length=len(whole.input_ids) + 2, progress=False
    )
    two = individual_shares(model, tokenizer, [person], [[1, 2]], [5], template, progress=False)
    np.testing.assert_allclose(shorter[0], two[0], atol=1e-6)
    with pytest.raises(ValueError, match="raise max_length"):
        individual_shares(model, tokenizer, [person], [[]], [5], template, max_length=10, progress=False)


def test_a_person_without_demonstrations_is_predicted_by_the_prevalence(people):
    jury = JuryReader.fit(people[:60], 2)
    p = jury.shares(people[70], [], 3)
    first = jury.first_cell[people[70].examples[3].question, people[70].examples[3].options]
    np.testing.assert_allclose(p, np.exp(jury.log_p[first : first + 3]) @ jury.prevalence)
    assert most_recent(people[70], 0, 6) == []
    unknown = PersonSequence("new", (Example("?", "x", ("x", "y"), "never asked"),))
    assert jury.shares(unknown, [], 0).tolist() == [0.5, 0.5]
    with pytest.raises(JuryError, match="use 1 to"):
        JuryReader.fit(people[:3], 4)


def test_own_answers_help_and_those_of_exchanged_people_do_not(people):
    train, test = people[:60], people[60:]
    jury = JuryReader.fit(train, 2)
    exchanged = shuffled_people(test)

    def nats(readers, n):
        losses = []
        for person, other in zip(test, readers, strict=True):
            shown = PersonSequence("", (*other.examples[:9], person.examples[9]))
            p = jury.shares(shown, most_recent(shown, 9, n), 9)
            losses.append(-np.log(p[person.examples[9].options.index(person.examples[9].output)]))
        return float(np.mean(losses))

    assert nats(test, 6) < nats(test, 0) - 0.2
    assert nats(exchanged, 6) > nats(test, 0) - 0.02


def test_informative_demonstrations_tell_more_about_the_cluster_than_recent_ones(people):
    jury = JuryReader.fit(people[:60], 2)
    chosen, recent = most_informative(jury), most_recent

    def certainty(choose):
        return np.mean([jury.posterior(person, choose(person, 9, 2)).max() for person in people[60:]])

    assert certainty(chosen) > certainty(recent) + 0.02
    assert len(chosen(people[0], 1, 6)) == 1


def test_information_of_a_question_is_the_entropy_that_its_answer_takes_from_the_cluster(people):
    jury, person = JuryReader.fit(people[:60], 2), people[70]
    posterior = jury.posterior(person, [0, 1])
    gains = jury.information(person, [0, 1], [4, 5])
    for gain, position in zip(gains, (4, 5), strict=True):
        example = person.examples[position]
        first = jury.first_cell[example.question, example.options]
        joint = np.exp(jury.log_p[first : first + len(example.options)]) * posterior  # (A, K)
        given_answer = joint / joint.sum(axis=1, keepdims=True)
        entropy = lambda p: -(p * np.log(p)).sum(axis=-1)  # noqa: E731
        assert gain == pytest.approx(entropy(posterior) - joint.sum(axis=1) @ entropy(given_answer))
    unknown = PersonSequence("new", (person.examples[4], Example("?", "x", ("x", "y"), "never asked")))
    assert jury.information(unknown, [], [1]).tolist() == [0.0]
    assert jury.information(unknown, [], [0, 1])[0] > 0


def test_similar_demonstrations_are_nearest_to_the_question():
    topics = ["a", "b", "ab", "c", "abc"]
    person = PersonSequence("p", tuple(Example(t, "yes", ("yes", "no"), t) for t in topics))
    choose = most_similar(lambda texts: np.array([[t in text for t in "abc"] for text in texts], dtype=float))
    assert choose(person, 4, 1) == [2]
    assert choose(person, 4, 2)[-1] == 2  # the nearest comes last
    assert choose(person, 0, 3) == []


def test_a_combination_follows_the_better_and_never_loses_to_it_where_it_was_fitted():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 1, 1], size=300)
    given = [int(rng.choice(3, p=p)) for p in truth]
    noise = [rng.dirichlet([1, 1, 1]) for _ in truth]
    combined = Combination.fit({0: (noise, list(truth), given), 6: (list(truth), noise, given)})
    assert combined.exponents[0][0] < 0.2 < combined.exponents[0][1]
    assert combined.exponents[6][1] < 0.2 < combined.exponents[6][0]
    loss = np.mean([-np.log(combined.shares(n, t, 0)[g]) for n, t, g in zip(noise, truth, given, strict=True)])
    assert loss <= np.mean([-np.log(t[g]) for t, g in zip(truth, given, strict=True)]) + 1e-6
    np.testing.assert_allclose(combined.shares(noise[0], truth[0], 1), combined.shares(noise[0], truth[0], 0))


def test_lewidi_measures_by_hand():
    """Item x: labels 0 and 2 of three, predicted 0 (surely) and 1 (.6); item y: label 1, a tie between 0 and 1."""
    predicted = np.array([[1.0, 0.0, 0.0], [0.2, 0.6, 0.2], [0.5, 0.5, 0.0]])
    scores = lewidi_scores(["x", "x", "y"], [0, 2, 1], predicted)
    assert scores.error_rate == pytest.approx((0.5 + 0.5) / 2)
    assert scores.absolute_distance == pytest.approx(((0 + 0.5) / 2 + 0.25) / 2)
    # x: people (.5, 0, .5), predictions (.6, .3, .1); y: people (0, 1, 0), predictions (.5, .5, 0)
    assert scores.manhattan == pytest.approx((0.8 + 1.0) / 2)
    assert scores.wasserstein == pytest.approx(((0.1 + 0.4) + 0.5) / 2)
    assert (scores.items, scores.labels) == (2, 3)
    with pytest.raises(ValueError, match="do not belong together"):
        lewidi_scores(["x"], [0, 1], predicted)
    with pytest.raises(ValueError, match="number them from 0"):
        lewidi_scores(["x"], [3], predicted[:1])


@pytest.mark.parametrize("wrong", [[np.nan, np.nan], [3.0, -1.0], [0.5, 0.4], [np.inf, 0.0]])
def test_what_is_no_distribution_is_neither_scored_nor_combined(wrong):
    fine, wrong = np.array([0.5, 0.5]), np.array(wrong)
    with pytest.raises(ValueError, match="no distribution"):
        lewidi_scores(["x", "y"], [0, 1], np.stack([fine, wrong]))
    for of, model, jury in (("model", wrong, fine), ("jury", fine, wrong)):
        with pytest.raises(ValueError, match=f"after 2 judgements the predictions of the {of} have the row"):
            Combination.fit({2: ([fine, model], [fine, jury], [0, 1])})


def test_a_combination_of_nothing_is_refused():
    fine = np.array([0.5, 0.5])
    for predicted, reason in (
        ({}, "nothing is predicted"),
        ({2: ([], [], [])}, "for at least one person"),
        ({2: ([fine], [fine], [2])}, "the answer is number 2"),
        ({2: ([fine], [np.ones(3) / 3], [0])}, "the jury 3"),
    ):
        with pytest.raises(ValueError, match=reason):
            Combination.fit(predicted)


def test_an_unknown_trait_is_refused(people):
    judgements = planted_judgements("choice", num_raters=4, num_items=3).judgements
    with pytest.raises(JudgementError, match="no trait 'town'"):
        with_traits(judgement_sequences(judgements), judgements, ["town"])


def test_tuning_needs_somebody_and_takes_both_steps(people, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(
        "plural_rlhf.methods.individuals.tuning._tuned",
        lambda model, tokenizer, args, of, checkpoint, **kwargs: steps.append((str(args.output_dir), len(of), kwargs)),
    )
    args = SpectrumConfig(str(tmp_path), max_steps=1, use_cpu=True, bf16=False, report_to="none")
    tune_to_individuals(None, None, args, people[:5], meta_people=people[5:8], peft_config="lora")
    assert steps == [(str(tmp_path / "meta"), 3, {"peft_config": "lora"}), (str(tmp_path), 5, {})]
    with pytest.raises(ValueError, match="nobody to learn from"):
        tune_to_individuals(None, None, args, [])


@pytest.mark.slow
def test_tuning_resumes_from_the_last_whole_checkpoint_of_the_same_people_only(people, tmp_path):
    """A missing momentum or random state would end elsewhere, without a word."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "learning_rate": 0.01}
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "logging_strategy": "no"}
    args = SpectrumConfig(str(tmp_path), **settings, **quiet)

    def tuned(of=people[:3], **more):
        torch.manual_seed(0)
        model = tune_to_individuals(tiny_causal_lm(), tiny_tokenizer(), args, of, resume=True, **more)
        return torch.cat([weights.detach().flatten() for weights in model.parameters()])

    whole = tuned()
    for name in ("optimizer.pt", "rng_state.pth", "trainer_state.json", "model.safetensors", "plural_state.json"):
        file = tmp_path / "checkpoint-2" / name
        content = file.read_bytes()
        for left in (None, content[: len(content) // 2]):
            file.unlink() if left is None else file.write_bytes(left)
            with pytest.warns(UserWarning, match=rf"checkpoint-2' is left out: .*{name}.*'.*checkpoint-1'"):
                assert tuning._last_checkpoint(args).name == "checkpoint-1"
        file.write_bytes(content)
    with pytest.raises(JuryError, match=r"checkpoint-2' was trained on other sequences.*another output_dir"):
        tuned(people[:4])
    (tmp_path / "checkpoint-2" / "optimizer.pt").unlink()
    with pytest.warns(UserWarning, match="checkpoint-2' is left out"):
        torch.testing.assert_close(tuned(), whole, atol=0, rtol=0)
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}" / "plural_state.json").unlink()
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole: .*checkpoint-2"):  # not: meta-tuning was done
        tuned(meta_people=people[3:5])
