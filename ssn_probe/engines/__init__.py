"""Programs beside transformers that generate responses: vLLM, in a process of its own."""
