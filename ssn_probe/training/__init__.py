"""Expand: train exactly the weights of a set of neurons on refusals, and nothing else. Plain torch, no nnsight.

The paper's remedy (Zhang et al. 2026, SS-Neuron Expansion) is θ ← θ − η · (M ⊙ ∇L), where M covers the rows and
columns of the chosen neurons. Published code masks gradients of whole matrices, and weight decay, clipping before the
mask or bfloat16 weights then move what they must not, or lose what they should move. Here the masked weights do not
exist: each selected row or column has a small float32 *delta* of its own beside a frozen base.

    places     where the weights of a neuron are: matrix, orientation, indices
    delta      the change of those weights, as a value
    trainable  the same change as parameters, added to the frozen model by hooks
    lora       the control: low-rank adapters of as many parameters, by peft
    adapter    what they become, as a value and as peft's folder
    settings   how to train: a value of the standard library
    data       refusals to learn from, checked before anything is used
    loss       padded batches, and cross-entropy on the response alone
    team       one process or several
    steps      the loop: warm-up, clipping, accumulation, early stopping
    guard      the frozen model given back as it was; memory that runs out
    probe      how often the model still complies while it learns
    train      the one function that uses all of these
    checkpoint where training goes on after an interruption
    fraction   how many parameters that is, in number and per cent
    digest     which base a model is
    merge      a delta written into the weights, and taken out again bit for bit
    tensors    safetensors files, whole or not at all
    stated     what a delta file must say of itself
    file       the delta file
    describe   what it says, and how two differ, for a reader
    diff       what two of them have in common
    folder     a merged model as an ordinary Hugging Face folder
    card       its model card
    models     from a model's name to such a folder, and back

Importing this package costs nothing: import from its modules.
"""
