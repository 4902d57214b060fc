"""How raters judge: likelihoods, rater terms, memberships in clusters, and adapting a rater from a few judgements."""
