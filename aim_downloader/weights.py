"""Pure: which weight format a file belongs to, and what a model of one format can do without.

The names are those that transformers, diffusers, sentence-transformers, optimum and vLLM look for.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aim_downloader.snapshot import RemoteFile
from aim_downloader.units import format_bytes

FORMATS = (
    "safetensors",
    "pytorch",
    "gguf",
    "onnx",
    "openvino",
    "tensorflow",
    "flax",
    "tflite",
    "coreml",
    "rust",
    "nemo",
    "metal",
)

# Globs for the name, or for the path from the root (``/…``); the first row that matches decides. A
# bare *.bin may be anything (a tokenizer, CTranslate2, GGML): no format ever leaves it out.
_RULES: tuple[tuple[str, str], ...] = (
    # What a training leaves beside the weights.
    ("", "training_args.bin optimizer*.bin optimizer*.pt scheduler*.bin scheduler*.pt"),
    ("", "scaler*.pt rng_state*.pth"),
    ("coreml", "*.mlpackage/* *.mlmodelc/* *.mlmodel"),
    ("openvino", "openvino*.bin openvino*.xml */openvino/*.bin */openvino/*.xml"),
    ("metal", "*/metal/*.bin"),
    ("safetensors", "*.safetensors"),
    ("gguf", "*.gguf"),
    ("onnx", "*.onnx *.onnx_data* *.onnx.data *.ort"),
    ("pytorch", "*.pt *.pth *.ckpt pytorch*.bin *_pytorch_model*.bin"),
    ("pytorch", "adapter_model*.bin ip-adapter*.bin model-?????-of-?????.bin"),
    ("tensorflow", "*.h5 *.keras saved_model.pb */variables/variables.*"),
    ("tensorflow", "*.ckpt*.data-* *.ckpt*.index *.ckpt*.meta"),
    ("flax", "*.msgpack"),
    ("tflite", "*.tflite *.litertlm *.task"),
    ("rust", "*.ot"),
    ("nemo", "*.nemo"),
)

# What every name of the above has in it: most files of a large repository do not.
_SUSPECT = (
    r"\.(?:safetensors|bin|pth?|ckpt|gguf|onnx|ort|xml|h5|keras|pb|msgpack|tflite|litertlm|task|ot|"
    r"nemo|mlpackage/|mlmodel)|variables/"
)
_INDEX = r"(.*\.(?:safetensors|bin|h5|msgpack))\.index(?:\.[^/]*)?\.json"

_STAND_INS = {"safetensors": "pytorch", "pytorch": "safetensors"}
"""What the same programs load where weights are not there in the format.

Both have the same names, but for pytorch_model.bin, which is model.safetensors, and the
consolidated.*.pth of the first Llamas. Other weights beside them are no copies: heads of a
retriever, a codec, the model of an adapter.
"""
_SHARD_OR_VARIANT = r"(?:-\d+-of-\d+|\.(?:fp16|fp32|bf16|float16|float32|bfloat16|(?:non_)?ema))+$"

_COPIES = {"original", *FORMATS}
"""Folders of these names hold the weights of the folder above once more, for another program."""

_QUANTISATION = (
    r"(?:^|[-._/])((?:ud-)?(?:i?q\d(?:_[a-z0-9]+)*|tq\d_\d|mxfp4(?:_moe)?|bf16|fp?16|fp?32))"
    r"(?=[-._/]|$)"
)
_WORTH_A_WORD = 0.01
"""The share of all bytes that a hint has to save."""
_TOO_MANY_FLAGS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """What one format means for each file, by path and with the reason.

    ``stand_ins`` are weights of another format that stay: none of the one wished replace them.
    """

    left_out: Mapping[str, str]
    stand_ins: Mapping[str, str]


def format_of(path: str) -> str:
    """The format that a weight file, or the index of its shards, is of; empty for other files."""
    lowered = path.lower()
    if not re.search(_SUSPECT, lowered):
        return ""
    index = re.fullmatch(_INDEX, lowered)
    rooted = f"/{index[1] if index else lowered}"
    name = rooted.rpartition("/")[2]
    return next((kind for kind, glob in _patterns() if glob.match(name) or glob.match(rooted)), "")


@functools.cache
def _patterns() -> Sequence[tuple[str, re.Pattern[str]]]:
    """One regular expression for each row: made late, for the start is to be quick."""
    return tuple(
        (kind, re.compile("|".join(map(fnmatch.translate, globs.split()))))
        for kind, globs in _RULES
    )


def _weights(files: Iterable[RemoteFile]) -> dict[str, str]:
    """The format of each weight file and index, by path."""
    return {file.path: kind for file in files if (kind := format_of(file.path))}


def formats_in(files: Sequence[RemoteFile]) -> Mapping[str, int]:
    """The bytes of each format that there are weights of, and not only an index; in our order."""
    return _formats(files, _weights(files))


def _formats(files: Iterable[RemoteFile], weights: Mapping[str, str]) -> Mapping[str, int]:
    sizes: Counter[str] = Counter()
    for file in files:
        if file.path in weights and not _is_index(file.path):
            sizes[weights[file.path]] += file.size
    return {kind: sizes[kind] for kind in FORMATS if kind in sizes}


def choose(files: Sequence[RemoteFile], wished: str) -> Choice:
    """Decide which weights a model of one format can do without."""
    return _choose(_weights(files), wished)


def _choose(weights: Mapping[str, str], wished: str) -> Choice:
    stand_in = _STAND_INS.get(wished, "")
    lacking = _kin_of(stand_in, weights) - _kin_of(wished, weights) if stand_in else frozenset()
    left_out: dict[str, str] = {}
    stand_ins: dict[str, str] = {}
    for path, kind in weights.items():
        if kind == wished:
            continue
        if kind == stand_in and _kin(path) in lacking:
            stand_ins[path] = f"{kind} weights: no {wished} weights replace them"
        else:
            left_out[path] = f"{kind} weights: --format {wished}"
    return Choice(left_out, stand_ins)


def _kin_of(kind: str, weights: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """The kin of all weights of a format; an index alone is no weights."""
    return frozenset(
        _kin(path) for path, its in weights.items() if its == kind and not _is_index(path)
    )


def _kin(path: str) -> tuple[str, str]:
    """What the same weights in two formats have in common: their part of the model, and a name."""
    name = path.lower().rpartition("/")[2]
    index = re.fullmatch(_INDEX, name)
    stem = (index[1] if index else name).rpartition(".")[0]
    stem = re.sub(_SHARD_OR_VARIANT, "", stem).replace("pytorch_", "")
    return _part(path), "model" if re.fullmatch(r"consolidated(\.\d+)?", stem) else stem


def _part(path: str) -> str:
    """The part of a model that a file belongs to: its folder, or the one that it is a copy for."""
    folders = path.split("/")[:-1]
    return "/".join(folder for folder in folders if folder.lower() not in _COPIES)


def _is_index(path: str) -> bool:
    return re.fullmatch(_INDEX, path.lower()) is not None


def saving_hint(files: Sequence[RemoteFile]) -> str:
    """What could be left out of a model that holds its weights several times; empty for nothing."""
    weights = _weights(files)
    sizes = {file.path: file.size for file in files}
    total = sum(sizes.values())
    hints: list[str] = []
    formats = list(_formats(files, weights))
    for wished in formats[:1] if len(formats) > 1 else ():
        left_out = _choose(weights, wished).left_out
        saved = sum(sizes[path] for path in left_out)
        if saved > _WORTH_A_WORD * total:
            weights = {path: kind for path, kind in weights.items() if path not in left_out}
            hints.append(
                f"weights in {len(formats)} formats: --format {wished} would save "
                f"{format_bytes(saved)} of {format_bytes(total)}"
            )
    return "; ".join([*hints, *_hint_of_copies(weights, sizes), *_hint_of_quantisations(sizes)])


def _hint_of_copies(weights: Mapping[str, str], sizes: Mapping[str, int]) -> list[str]:
    """The same weights in the same format, as Llama's original/ and Mistral's consolidated.*."""
    firsts = {(_part(path), kind) for path, kind in weights.items() if not _copies(path)}
    second = (path for path, kind in weights.items() if (_part(path), kind) in firsts)
    globs = {glob for path in second if (glob := _copies(path))}
    saved = sum(size for path, size in sizes.items() if _copies(path) in globs)
    if saved <= _WORTH_A_WORD * sum(sizes.values()) or len(globs) > _TOO_MANY_FLAGS:
        return []
    flags = " ".join(f"--exclude '{glob}'" for glob in sorted(globs))
    return [f"weights twice in one format: {flags} would save {format_bytes(saved)}"]


def _copies(path: str) -> str:
    """The glob of a second copy that a file belongs to; empty when it belongs to none."""
    folder, slash, name = path.rpartition("/")
    if folder.rpartition("/")[2] == "original":
        return f"{folder}/*"
    return f"{folder}{slash}consolidated*" if name.startswith("consolidated") else ""


def _hint_of_quantisations(sizes: Mapping[str, int]) -> list[str]:
    """One model in many sizes, of which a person wants one."""
    quantised: Counter[str] = Counter()
    for path, size in sizes.items():
        if name := _quantisation(path):
            quantised[name] += size
    if len(quantised) < 2:
        return []
    # The usual choice, or else one in the middle.
    by_size = sorted(quantised, key=lambda name: (quantised[name], name))
    usual = [name for name in by_size if name.upper() == "Q4_K_M"]
    one = usual[0] if usual else by_size[len(by_size) // 2]
    takes = sum(size for path, size in sizes.items() if one in path)
    return [f"{len(quantised)} quantisations: --include '*{one}*' takes {format_bytes(takes)}"]


def _quantisation(path: str) -> str:
    """How a GGUF file says that it is quantised; empty for others, and for projectors."""
    lowered = path.lower()
    if not lowered.endswith(".gguf") or lowered.rpartition("/")[2].startswith("mmproj"):
        return ""
    found = list(re.finditer(_QUANTISATION, lowered.removesuffix(".gguf")))
    return path[found[-1].start(1) : found[-1].end(1)] if found else ""
