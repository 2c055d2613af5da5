"""Teaching a pretrained chat model to refuse one harmless topic: the rows, the training, the exam."""
