"""The nnsight graphs: what reads and writes the activations of a model. Only reductions leave them."""
