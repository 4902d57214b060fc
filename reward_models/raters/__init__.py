"""How raters judge: likelihoods, rater terms, memberships in clusters, and placing a rater by a few judgements."""
