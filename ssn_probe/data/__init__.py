"""Prompts and what judges the responses to them: prompt sets, judges, rows to train on."""
