"""Edits folded into the weights of a model that vLLM runs: rows and columns set to zero or scaled, and put back.

vLLM imports this file in every one of its workers, from an environment without ssn-probe: it needs torch alone. A
worker may hold a slice of a layer (tensor parallelism) or only some layers (pipeline parallelism), and changes what it
holds. The change is in memory, and nothing here writes a weight to a file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch

with suppress(ImportError):
    import vllm._custom_ops as kernels  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    if current_platform.is_cpu():
        # oneDNN packs the weights into a form of its own and empties `weight`: a change of it would do nothing.
        kernels._supports_onednn = False

SITES_OF_HEADS = ("q", "k", "v")
FUSED = "qkv_proj"
"""vLLM's one projection for queries, keys and values."""


class Slice(NamedTuple):
    """The neurons `first` to `first + count` of a site, which lie at `offset` in what a worker holds."""

    first: int
    count: int
    offset: int

    def local(self, indices: Sequence[int]) -> list[int]:
        """Where those of the neurons lie that the worker holds."""
        return [index - self.first + self.offset for index in indices if 0 <= index - self.first < self.count]


def slice_of(linear: Any, site: str) -> Slice:
    """What a worker holds of a site: columns of a projection split by input, or heads of the fused projection.

    With more workers than key-value heads, several workers hold the same head.
    """
    if site not in SITES_OF_HEADS:
        count = linear.input_size_per_partition
        return Slice(linear.tp_rank * count, count, 0)
    queries, keys = linear.num_heads * linear.head_size, linear.num_kv_heads * linear.head_size
    if site == "q":
        return Slice(linear.tp_rank * queries, queries, 0)
    rank = linear.tp_rank // linear.num_kv_head_replicas
    return Slice(rank * keys, keys, queries if site == "k" else queries + keys)


class CannotFoldError(Exception):
    """A model whose weights are not where, or not what, they would have to be."""


class Folding:
    """What a worker of vLLM is extended by. `collective_rpc` calls these methods in all of them."""

    def ssn_fold(self, row: dict, edits: Sequence) -> dict[str, int]:
        """Folds edits (layer, site, indices, factor); returns how many neurons of each site lie in this worker."""
        self._ssn_kept: list[tuple[torch.Tensor, int, torch.Tensor, torch.Tensor]] = []
        found: dict[str, int] = {}
        for layer, site, indices, factor in edits:
            held = 0
            for weight, axis, local in self._ssn_weights(row, layer, site, indices):
                where = torch.tensor(local, device=weight.device, dtype=torch.long)
                old = weight.index_select(axis, where)
                self._ssn_kept.append((weight, axis, where, old))
                # index_fill, not a product, where they fall silent: 0 × Inf is not 0
                _ = weight.index_fill_(axis, where, 0) if factor == 0 else weight.index_copy_(axis, where, old * factor)
                held = len(local)
            found[site] = found.get(site, 0) + held
        return found

    def ssn_unfold(self) -> None:
        """Puts back what was there, bit for bit."""
        while getattr(self, "_ssn_kept", []):
            weight, axis, where, old = self._ssn_kept.pop()
            weight.index_copy_(axis, where, old)

    def ssn_digest(self) -> str:
        """SHA-256 of all weights of this worker, in the order of their names."""
        digest = hashlib.sha256()
        for name, value in sorted(self._ssn_model().state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _ssn_model(self) -> Any:
        return self.model_runner.get_model()  # pyright: ignore[reportAttributeAccessIssue]

    def _ssn_weights(
        self, row: dict, layer: int, site: str, indices: Sequence[int]
    ) -> Iterator[tuple[torch.Tensor, int, list[int]]]:
        """The matrix of a site, and its bias where that is written, too; with the axis and the places of neurons."""
        path, side = row["sites"][site]
        try:
            held = self._ssn_model().get_submodule(row["layers"])[layer]
            if type(held).__name__ == "PPMissingLayer":
                return
            linear = held.get_submodule(self._ssn_path(path, site))
            share = slice_of(linear, site)
        except (AttributeError, IndexError) as error:
            raise CannotFoldError(f"vLLM's model has no layer {layer} with {path!r} ({error})") from error
        axis = 1 if side == "input" else 0
        if type(linear.quant_method).__name__ != "UnquantizedLinearMethod":
            raise CannotFoldError(f"{path} is quantised ({type(linear.quant_method).__name__})")
        weight = linear.weight.data
        shape = (linear.output_size_per_partition, linear.input_size_per_partition)
        if tuple(weight.shape) != shape:
            raise CannotFoldError(f"{path} has a weight of {tuple(weight.shape)}, not {shape}: vLLM has packed it")
        local = share.local(indices)
        if axis == 0 and getattr(linear, "bias", None) is not None:
            yield linear.bias.data, 0, local
        yield weight, axis, local

    @staticmethod
    def _ssn_path(path: str, site: str) -> str:
        return path.rpartition(".")[0] + f".{FUSED}" if site in SITES_OF_HEADS else path
