"""A tiny base model that knows the words of offered answers, and nothing of how people answer."""

import torch

from plural_rlhf.policies.answers import AnswerBatch, answer_log_probs
from tests.tiny import tiny_causal_lm, tiny_tokenizer


def save_base_that_answers(folder, prompts, options, seed=0):
    """Save a model that gives each offered answer the same probability, and all else hardly any."""
    tokenizer = tiny_tokenizer()
    model = tiny_causal_lm(tokenizer, seed=seed)
    batch = AnswerBatch.encode(prompts, options, tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(80):
        loss = -answer_log_probs(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
