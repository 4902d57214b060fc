"""Which tokens have a loss, and in what order examples come."""

import collections

import pytest
import torch

from plural_rlhf.methods.spectrum import (
    TEMPLATES,
    Example,
    SpectrumDataset,
    SpectrumSequence,
    coin_flips,
    copy_special_rows,
    encode_sequence,
    template_for,
)
from plural_rlhf.methods.spectrum.dataset import SequenceDraws
from plural_rlhf.methods.spectrum.tokens import IGNORED
from reward_models.jury.tiny import tiny_causal_lm, tiny_tokenizer


def tokenizer_of(family):
    tokenizer = tiny_tokenizer()
    if family in TEMPLATES:
        tokenizer.add_special_tokens({"additional_special_tokens": list(TEMPLATES[family].special)})
    return tokenizer


def marked(sequence, family, max_length=None):
    """The text of a sequence with what has a loss in brackets."""
    tokenizer = tokenizer_of(family)
    tokens = encode_sequence(sequence, template_for(tokenizer, family), tokenizer, max_length)
    text, open_ = "", False
    for token, label in zip(tokens.input_ids, tokens.labels, strict=True):
        assert label in (token, IGNORED)
        if (label != IGNORED) != open_:
            open_ = not open_
            text += "[" if open_ else "]"
        text += tokenizer.decode([token])
    return text + ("]" if open_ else "")


PERSON = SpectrumSequence((Example("yes", "Parks?"), Example("no", "Roads?")), "One voter.")


@pytest.mark.parametrize(
    ("family", "text"),
    [
        (
            "chatml",
            "<|im_start|>description\nOne voter.<|im_end|>\n<|im_start|>input\nParks?<|im_end|>\n<|im_start|>output\n"
            "[yes<|im_end|>]\n<|im_start|>input\nRoads?<|im_end|>\n<|im_start|>output\n[no<|im_end|>]\n",
        ),
        (
            "llama3",
            "<|start_header_id|>description<|end_header_id|>\n\nOne voter.<|eot_id|>"
            "<|start_header_id|>input<|end_header_id|>\n\nParks?<|eot_id|>"
            "<|start_header_id|>output<|end_header_id|>\n\n[yes<|eot_id|>]"
            "<|start_header_id|>input<|end_header_id|>\n\nRoads?<|eot_id|>"
            "<|start_header_id|>output<|end_header_id|>\n\n[no<|eot_id|>]",
        ),
        (
            "gemma",
            "<start_of_turn>description\nOne voter.<end_of_turn>\n<start_of_turn>input\nParks?<end_of_turn>\n"
            "<start_of_turn>output\n[yes<end_of_turn>]\n<start_of_turn>input\nRoads?<end_of_turn>\n"
            "<start_of_turn>output\n[no<end_of_turn>]\n",
        ),
        (
            "plain",
            "description: One voter.<|im_end|>\ninput: Parks?<|im_end|>\noutput: [yes<|im_end|>]\n"
            "input: Roads?<|im_end|>\noutput: [no<|im_end|>]\n",
        ),
    ],
)
def test_the_loss_is_on_outputs_and_their_end_tokens(family, text):
    assert marked(PERSON, family) == text


def test_without_a_description_the_first_output_has_no_loss():
    coin = SpectrumSequence((Example("yes"), Example("no")))
    assert marked(coin, "chatml") == ("<|im_start|>output\nyes<|im_end|>\n<|im_start|>output\n[no<|im_end|>]\n")


def test_what_people_wrote_does_not_become_chat_tokens():
    tokenizer = tiny_tokenizer()
    shown = SpectrumSequence((Example("a<|im_end|>b", "<|im_start|>output"),), "d<|im_end|>")
    tokens = encode_sequence(shown, template_for(tokenizer), tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokens.input_ids.count(end) == 3
    assert tokenizer.decode(tokens.input_ids).count("<|im_end|>") == 5


def test_an_example_that_does_not_fit_is_dropped_whole_and_counted():
    tokenizer = tiny_tokenizer()
    template = template_for(tokenizer)
    whole = encode_sequence(PERSON, template, tokenizer)
    for length in range(1, len(whole.input_ids) + 1):
        tokens = encode_sequence(PERSON, template, tokenizer, length)
        assert len(tokens.input_ids) <= length
        assert len(tokens.outputs) + tokens.dropped == 2
        learnt = [label for label in tokens.labels if label != IGNORED]
        expected = ["", "yes<|im_end|>", "yes<|im_end|>no<|im_end|>"][len(tokens.outputs)]
        assert tokenizer.decode(learnt) == expected


def test_shuffling_moves_labels_and_keeps_what_is_learnt():
    tokenizer = tiny_tokenizer()
    numbered = SpectrumSequence(tuple(Example(str(n), f"q{n}") for n in range(9)), "Numbers.")
    data = SpectrumDataset(
        [numbered], tokenizer, template_for(tokenizer), draws=SequenceDraws(description_share=1.0, seed=3)
    )
    places, learnt = set(), set()
    for epoch in range(4):
        data.set_epoch(epoch)
        labels = data[0]["labels"]
        assert data[0]["labels"] == labels  # an epoch is one order
        places.add(tuple(label for label in labels if label != IGNORED))
        learnt.add(tuple(sorted(collections.Counter(label for label in labels if label != IGNORED).items())))
    assert len(places) == 4
    assert len(learnt) == 1


def test_the_order_is_kept_where_it_means_something():
    tokenizer = tiny_tokenizer()
    counting = SpectrumSequence(tuple(Example(str(n)) for n in range(9)), "Counting.", exchangeable=False)
    data = SpectrumDataset([counting], tokenizer, template_for(tokenizer), draws=SequenceDraws(description_share=1.0))
    shown = data[0]
    data.set_epoch(1)
    assert data[0] == shown


def test_the_number_of_examples_is_drawn_and_never_leaves_nothing_to_learn():
    tokenizer = tiny_tokenizer()
    data = SpectrumDataset(
        coin_flips(5, 6, described=True),
        tokenizer,
        template_for(tokenizer),
        draws=SequenceDraws(mean_examples=1.5, description_share=0.0),
    )
    lengths = set()
    for epoch in range(20):
        data.set_epoch(epoch)
        for row in range(len(data)):
            assert any(label != IGNORED for label in data[row]["labels"])
            lengths.add(len(data[row]["input_ids"]))
    assert len(lengths) > 2


def test_sequences_without_anything_to_learn_are_left_out_and_named(caplog):
    tokenizer = tiny_tokenizer()
    alone = SpectrumSequence((Example("yes"),), name="rater 7")
    long = SpectrumSequence((Example("yes" * 400), Example("no" * 400)), name="rater 8")
    data = SpectrumDataset([PERSON, alone, long], tokenizer, template_for(tokenizer), max_length=200)
    assert (len(data), data.dropped) == (1, 2)
    assert "'rater 7'" in caplog.text
    assert "'rater 8'" in caplog.text
    with pytest.raises(ValueError, match="none of 2 sequences has anything to learn"):
        SpectrumDataset([alone, long], tokenizer, template_for(tokenizer), max_length=200)


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_special_rows_change(tied):
    tokenizer = tiny_tokenizer()
    base, sibling = (tiny_causal_lm(tokenizer, seed=seed, tie_word_embeddings=tied) for seed in (0, 1))
    with torch.no_grad():
        for embedding in (sibling.get_input_embeddings(), sibling.get_output_embeddings()):
            embedding.weight += 1  # also of the padding token, which is zero at the start
    before = {name: value.clone() for name, value in base.state_dict().items()}
    ids = copy_special_rows(base, sibling, tokenizer, TEMPLATES["chatml"].special)
    for name, value in base.state_dict().items():
        changed = value.ne(before[name])
        if "embed_tokens" in name or "lm_head" in name:
            assert sorted(changed.any(dim=1).nonzero().flatten().tolist()) == sorted(ids)
            assert value[ids].equal(sibling.state_dict()[name][ids])
        else:
            assert not changed.any()


def test_a_sibling_of_another_size_is_refused():
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match="of the same family and size"):
        copy_special_rows(
            tiny_causal_lm(tokenizer), tiny_causal_lm(tokenizer, hidden_size=16), tokenizer, ["<|im_start|>"]
        )
