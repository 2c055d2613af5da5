"""NDIF: hosts that run a model for others, what they host, and how a traced block is sent to them as a job."""
