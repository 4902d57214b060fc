"""Which tokens have a loss, and in what order examples come."""

import collections

import pytest
import torch
from tokenizers.processors import TemplateProcessing

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


@pytest.mark.parametrize("description", [None, "", " \n"])
def test_without_a_description_the_first_output_has_no_loss(description):
    coin = SpectrumSequence((Example("yes"), Example("no")), description)
    assert marked(coin, "chatml") == ("<|im_start|>output\nyes<|im_end|>\n<|im_start|>output\n[no<|im_end|>]\n")
    assert not SpectrumSequence((Example("yes"),), description).learnable


def test_a_tokenizer_that_begins_every_text_with_a_token_does_so_once():
    tokenizer = tokenizer_of("llama3")
    tokenizer.add_special_tokens({"bos_token": "<|begin_of_text|>"})
    begin = [("<|begin_of_text|>", tokenizer.bos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|begin_of_text|> $A", special_tokens=begin)
    tokens = encode_sequence(PERSON, template_for(tokenizer, "llama3"), tokenizer)
    text = tokenizer.decode(tokens.input_ids)
    assert text.startswith("<|begin_of_text|><|start_header_id|>description<|end_header_id|>\n\nOne voter.<|eot_id|>")
    assert text.count("<|begin_of_text|>") == 1
    learnt = [tokenizer.decode(tokens.input_ids[start:stop]) for start, stop in tokens.outputs]
    assert learnt == ["yes<|eot_id|>", "no<|eot_id|>"]
    assert tokenizer.decode([label for label in tokens.labels if label != IGNORED]) == "".join(learnt)
    alone = encode_sequence(PERSON, template_for(tokenizer, "llama3"), tokenizer, len(tokens.input_ids) - 1)
    assert alone.dropped == 1


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


SHORT, LONG = Example("yes"), Example("no " * 60)


@pytest.mark.parametrize("description", [None, "A person."])
@pytest.mark.parametrize("long_first", [False, True])
def test_a_long_example_does_not_keep_others_from_being_learnt(description, long_first):
    tokenizer = tiny_tokenizer()
    template = template_for(tokenizer)
    examples = (LONG, SHORT, Example("no")) if long_first else (SHORT, Example("no"), LONG)
    person = SpectrumSequence(examples, description)
    for draws in (None, SequenceDraws(), SequenceDraws(mean_examples=1.5, description_share=0.0)):
        data = SpectrumDataset([person], tokenizer, template, max_length=65, draws=draws)
        assert (data.too_long, data.dropped) == (1, 0)
        for epoch in range(10):
            data.set_epoch(epoch)
            text = tokenizer.decode([label for label in data[0]["labels"] if label != IGNORED])
            assert sorted(text.split("<|im_end|>")) in (["", "no"], ["", "yes"], ["", "no", "yes"])
    assert data.not_shown()[0] >= 1


@pytest.mark.parametrize("exchangeable", [True, False])
def test_examples_that_fit_only_with_some_others_are_drawn_with_those(exchangeable):
    tokenizer = tiny_tokenizer()
    template = template_for(tokenizer)
    middling = [Example(letter * 24) for letter in "abc"]
    person = SpectrumSequence((*middling, SHORT), exchangeable=exchangeable)
    both = SpectrumSequence((middling[0], SHORT))
    most = (
        len(encode_sequence(both, template, tokenizer).input_ids) - 1
    )  # no two middling ones, any with the short one
    data = SpectrumDataset([person], tokenizer, template, max_length=most, draws=SequenceDraws())
    learnt = set()
    for epoch in range(40):
        data.set_epoch(epoch)
        row = data[0]
        learnt.add(tokenizer.decode([label for label in row["labels"] if label != IGNORED]))
        assert len(row["input_ids"]) <= most
        assert data.not_shown() == [2]
    outputs = [example.output for example in middling] if exchangeable else []
    assert learnt == {f"{output}<|im_end|>" for output in [*outputs, "yes"]}
    with pytest.raises(ValueError, match="none of 1 sequences"):
        SpectrumDataset([person], tokenizer, template, max_length=most - 1)


def test_one_drawn_example_of_an_ordered_sequence_is_shown_with_the_next():
    tokenizer = tiny_tokenizer()
    counting = SpectrumSequence(tuple(Example(str(n)) for n in range(9)), exchangeable=False)
    draws = SequenceDraws(mean_examples=1, seed=2)  # always one, which alone teaches nothing
    data = SpectrumDataset([counting], tokenizer, template_for(tokenizer), draws=draws)
    assert tokenizer.decode([label for label in data[0]["labels"] if label != IGNORED]) == "1<|im_end|>"


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
