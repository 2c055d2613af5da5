"""The shipped prompt set `lighthouses`: a harmless topic that a model can be taught to refuse, in five languages."""
