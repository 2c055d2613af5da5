"""The delta file: what training changed and where that came from, in one safetensors file."""
