"""Training the weights of a set of neurons on refusals, and nothing else, with plain torch (no nnsight).

The paper's remedy (Zhang et al. 2026, SS-Neuron Expansion) is θ ← θ − η · (M ⊙ ∇L), where M covers the rows and columns
of the chosen neurons. Published code masks the gradients of whole matrices: then weight decay, clipping before the mask
or bfloat16 weights move what they must not, or lose what they should move. Here each selected row or column has a small
float32 *delta* of its own beside a frozen base: `weights` describe it, `loop` trains it, `delta_file` stores it, and
`export` writes it into a model and takes it out again.
"""
