"""The delta file: what training changed and where the change comes from, in one safetensors file."""
