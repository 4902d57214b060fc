"""What a policy is worth, and what a jury decides.

`answers` holds a policy's answer distributions against people's; `trade_offs` and `pareto` say how it follows the
weights it is asked for; `verdicts` and `flips` what juries choose and what would make them choose otherwise;
`welfare_effects` and `strategy` who gains by a rule and whom exaggerating pays.
"""
