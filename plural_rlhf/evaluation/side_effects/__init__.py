"""What reward maximisation does to a policy besides: favourite numbers, typical text, sycophancy, monoculture."""
