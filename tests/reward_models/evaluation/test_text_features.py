"""Every feature of how a response is written, counted by hand."""

from __future__ import annotations

import math

import pytest

from reward_models.evaluation.style.text_features import STYLE_FEATURES, style_features


COUNTED = {
    "length": ("One two three, o'clock and 5 more.", 6),
    "long sentences": ("One two three four. Five six! Seven eight?!", 8 / 3),
    "long words": ("a bcd ef", 2.0),
    "first person": ("I told my sister that we’ve won; it is mine, not theirs.", 4),
    "second person": ("You and your friends help yourself.", 3),
    "hedging": ("Maybe it might, I guess, perhaps.", 4),
    "negation": ("No, it isn’t, they don't and never can.", 4),
    "obligation": ("We must and should; it is required.", 3),
    "reasons": ("It is so because of that, hence true.", 3),
    "politeness": ("Please and thank you, sorry.", 3),
    "question marks": ("Why? What?? No.", 3),
    "exclamation marks": ("Yes! No!!", 3),
    "numerals": ("In 1999 it was 3.5 of 10.", 4),
    "list items": ("Take:\n- one\n* two\n  3) three\n4. four\n-none", 4),
    "words in capitals": ("The USA and the EU, I say.", 2),
    "quotation marks": ('"a" and “b” and «c»', 6),
}


@pytest.mark.parametrize("name", STYLE_FEATURES)
def test_a_feature_is_the_count_by_hand(name):
    text, count = COUNTED[name]
    [found] = style_features([text])[:, list(STYLE_FEATURES).index(name)]
    assert found == pytest.approx(count if name == "long words" else math.log1p(count))
    assert style_features([""])[0, list(STYLE_FEATURES).index(name)] == 0
