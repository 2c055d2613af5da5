"""The weights of neurons, and changes of them: where they are, as values, as parameters."""
