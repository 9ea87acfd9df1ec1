"""Writes a generated model: real files of a real shape, whose weights are random numbers."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LAYERS = 8
HEADS = 8
BYTES_PER_WEIGHT = 2
BLOCK = 1024 * 1024
MIB = 1024 * 1024

Json = dict[str, object]


@dataclass(frozen=True)
class Tensor:
    """A named array of bfloat16 numbers."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape) * BYTES_PER_WEIGHT


@dataclass(frozen=True)
class Architecture:
    """The measures of a small Llama."""

    hidden: int
    vocabulary: int

    @property
    def inner(self) -> int:
        return self.hidden * 11 // 4


def write_model(
    folder: Path, *, size: int = 256 * MIB, seed: int = 0, shard_size: int = 64 * MIB
) -> None:
    """Fills a folder with a model of about `size` bytes, the same for the same seed."""
    folder.mkdir(parents=True, exist_ok=True)
    architecture = _architecture(size)
    shards = _shards(list(_tensors(architecture)), min(shard_size, max(1, size // 2)))
    names = [
        f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    numbers = random.Random(seed)
    for name, tensors in zip(names, shards, strict=True):
        _write_shard(folder / name, tensors, numbers)
    _write_json(folder / "model.safetensors.index.json", _index(names, shards))
    _write_json(folder / "config.json", _config(architecture))
    _write_json(folder / "generation_config.json", {"bos_token_id": 256, "eos_token_id": 257})
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    (folder / "README.md").write_text(_README, encoding="utf-8")


def _architecture(size: int) -> Architecture:
    # A layer has 4 + 3 * 11/4 squares of the hidden width; the vocabulary takes what is left.
    weights = size / BYTES_PER_WEIGHT
    hidden = max(64, int(math.sqrt(0.85 * weights / (LAYERS * 12.25))) // 64 * 64)
    left = weights - LAYERS * 12.25 * hidden**2
    return Architecture(hidden, max(320, int(left / (2 * hidden))))


def _tensors(architecture: Architecture) -> Iterator[Tensor]:
    wide, inner, words = architecture.hidden, architecture.inner, architecture.vocabulary
    yield Tensor("model.embed_tokens.weight", (words, wide))
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        yield Tensor(f"{prefix}.input_layernorm.weight", (wide,))
        for part in ("q", "k", "v", "o"):
            yield Tensor(f"{prefix}.self_attn.{part}_proj.weight", (wide, wide))
        yield Tensor(f"{prefix}.post_attention_layernorm.weight", (wide,))
        yield Tensor(f"{prefix}.mlp.gate_proj.weight", (inner, wide))
        yield Tensor(f"{prefix}.mlp.up_proj.weight", (inner, wide))
        yield Tensor(f"{prefix}.mlp.down_proj.weight", (wide, inner))
    yield Tensor("model.norm.weight", (wide,))
    yield Tensor("lm_head.weight", (words, wide))


def _shards(tensors: list[Tensor], most: int) -> list[list[Tensor]]:
    """Whole tensors in their order, a new weight shard whenever the next would be too large."""
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(each.size for each in shards[-1]) + tensor.size > most:
            shards.append([])
        shards[-1].append(tensor)
    return shards


def _write_shard(path: Path, tensors: list[Tensor], numbers: random.Random) -> None:
    header = _header(tensors)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        left = sum(tensor.size for tensor in tensors)
        while left:
            left -= file.write(numbers.randbytes(min(BLOCK, left)))


def _header(tensors: list[Tensor]) -> bytes:
    entries: Json = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in tensors:
        stop = start + tensor.size
        entries[tensor.name] = {
            "dtype": "BF16",
            "shape": tensor.shape,
            "data_offsets": (start, stop),
        }
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Padded so that the weights begin at a multiple of eight.
    return text + b" " * (-len(text) % 8)


def _index(names: list[str], shards: list[list[Tensor]]) -> Json:
    pairs = [(tensor, name) for name, shard in zip(names, shards, strict=True) for tensor in shard]
    return {
        "metadata": {"total_size": sum(tensor.size for tensor, _ in pairs)},
        "weight_map": {tensor.name: name for tensor, name in pairs},
    }


def _config(architecture: Architecture) -> Json:
    return {
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 256,
        "eos_token_id": 257,
        "head_dim": architecture.hidden // HEADS,
        "hidden_act": "silu",
        "hidden_size": architecture.hidden,
        "intermediate_size": architecture.inner,
        "max_position_embeddings": 2048,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": architecture.vocabulary,
    }


def _tokenizer() -> Json:
    """A tokenizer of single bytes with two special tokens."""
    special = [
        {"id": 256, "content": "<s>", "special": True},
        {"id": 257, "content": "</s>", "special": True},
    ]
    words = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"<s>": 256, "</s>": 257}
    return {
        "version": "1.0",
        "added_tokens": special,
        "decoder": {"type": "ByteFallback"},
        "model": {"type": "BPE", "byte_fallback": True, "vocab": words, "merges": []},
    }


def _tokenizer_config() -> Json:
    return {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": 2048,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


_README = """\
---
license: mit
library_name: transformers
---
# tiny-llama

A model for trying out downloads: the files are laid out as those of a real Llama, the weights are
random numbers. It answers nothing sensible.
"""
