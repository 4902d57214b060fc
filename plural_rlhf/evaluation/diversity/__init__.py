"""How different a set of texts is: wording, meaning, classes of texts that say the same."""
