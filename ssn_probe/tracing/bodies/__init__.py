"""The bodies that touch the model: each is one static block that interprets plain data and hands back reductions.

They import torch, einops and nnsight only, so that their source can be sent to wherever the model runs. nnsight
serves values in the order of the forward pass, and a read that comes too late raises: every body asks in the order
q, k, v, o, ffn, layer by layer.
"""
