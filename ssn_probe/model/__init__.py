"""The model under study: families, loading, identity, chat template, and an estimate of memory."""
