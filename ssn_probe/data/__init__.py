"""Prompt sets, the judges of responses, and the rows to train on."""
