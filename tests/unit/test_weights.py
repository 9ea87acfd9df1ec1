"""Which format a file is of, and what a model can do without."""

from __future__ import annotations

import time

import pytest

from aim_downloader.snapshot import MIB, RemoteFile
from aim_downloader.weights import choose, format_of, formats_in, saving_hint


def files(**sizes: int) -> tuple[RemoteFile, ...]:
    """Files by path, with sizes in MiB."""
    return tuple(RemoteFile(path, size * MIB, None) for path, size in sizes.items())


def paths(*names: str) -> tuple[RemoteFile, ...]:
    return files(**dict.fromkeys(names, 1))


@pytest.mark.parametrize(
    ("path", "weight_format"),
    [
        ("model.safetensors", "safetensors"),
        ("model-00001-of-00030.safetensors", "safetensors"),
        ("model.safetensors.index.json", "safetensors"),
        ("unet/diffusion_pytorch_model.fp16.safetensors", "safetensors"),
        ("unet/diffusion_pytorch_model.safetensors.index.fp16.json", "safetensors"),
        ("adapter_model.safetensors", "safetensors"),
        ("consolidated.safetensors", "safetensors"),
        ("pytorch_model.bin", "pytorch"),
        ("pytorch_model-00001-of-00002.bin", "pytorch"),
        ("model-00001-of-00002.bin", "pytorch"),
        ("pytorch_model.bin.index.json", "pytorch"),
        ("1_Dense/pytorch_model.bin", "pytorch"),
        ("vae/diffusion_pytorch_model.bin", "pytorch"),
        ("adapter_model.bin", "pytorch"),
        ("pytorch_lora_weights.bin", "pytorch"),
        ("models/ip-adapter_sd15.bin", "pytorch"),
        ("original/consolidated.00.pth", "pytorch"),
        ("v1-5-pruned.ckpt", "pytorch"),
        ("tiny.pt", "pytorch"),
        ("Model-Q4_K_M.gguf", "gguf"),
        ("MODEL.GGUF", "gguf"),
        ("onnx/model_quantized.onnx", "onnx"),
        ("onnx/model.onnx_data", "onnx"),
        ("onnx/model.onnx_data_1", "onnx"),
        ("model.onnx.data", "onnx"),
        ("openvino_model.bin", "openvino"),
        ("openvino/openvino_model_qint8.xml", "openvino"),
        ("openvino/whatever.bin", "openvino"),
        ("tf_model.h5", "tensorflow"),
        ("saved_model/saved_model.pb", "tensorflow"),
        ("saved_model/variables/variables.data-00000-of-00001", "tensorflow"),
        ("bert_model.ckpt.data-00000-of-00001", "tensorflow"),
        ("tf_model.h5.index.json", "tensorflow"),
        ("flax_model.msgpack", "flax"),
        ("flax_model.msgpack.index.json", "flax"),
        ("64-fp16.tflite", "tflite"),
        ("coreml/fill-mask/float32_model.mlpackage/Data/com.apple.CoreML/weight.bin", "coreml"),
        ("coreml/fill-mask/float32_model.mlpackage/Manifest.json", "coreml"),
        ("rust_model.ot", "rust"),
        ("parakeet.nemo", "nemo"),
        ("metal/model.bin", "metal"),
        # No weights, or of no format that can be known from the name.
        ("config.json", ""),
        ("README.md", ""),
        ("tokenizer.json", ""),
        ("tokenizer.bin", ""),
        ("tokenizer.model", ""),
        ("vocab.bin", ""),
        ("model.bin", ""),
        ("ggml-base.en.bin", ""),
        ("training_args.bin", ""),
        ("checkpoint-500/optimizer.pt", ""),
        ("checkpoint-500/optimizer.bin", ""),
        ("checkpoint-500/scheduler.pt", ""),
        ("checkpoint-500/scaler.pt", ""),
        ("checkpoint-500/rng_state_0.pth", ""),
        ("scheduler/scheduler_config.json", ""),
        ("safetensors", ""),
        ("docs/model.safetensors.md", ""),
        ("pytorch_model.bin/notes.txt", ""),
        ("original/params.json", ""),
        ("openvino/config.json", ""),
    ],
)
def test_format_of(path: str, weight_format: str) -> None:
    assert format_of(path) == weight_format


LLAMA = (
    "config.json",
    "tokenizer.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "original/consolidated.00.pth",
    "original/params.json",
    "original/tokenizer.model",
)
SENTENCES = (
    "modules.json",
    "model.safetensors",
    "pytorch_model.bin",
    "training_args.bin",
    "1_Dense/config.json",
    "1_Dense/pytorch_model.bin",
    "2_Dense/model.safetensors",
    "2_Dense/pytorch_model.bin",
    "onnx/model.onnx",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "tf_model.h5",
    "rust_model.ot",
)
DIFFUSERS = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.bin",
    "unet/diffusion_pytorch_model.safetensors",
    "safety_checker/pytorch_model.bin",
    "vae_decoder/model.onnx",
    "text_encoder/flax_model.msgpack",
    "text_encoder/model.safetensors",
)
GGUF = (
    "config.json",
    "model.safetensors",
    "x-Q4_K_M.gguf",
    "Q8_0/x-Q8_0-00001-of-00002.gguf",
    "Q8_0/x-Q8_0-00002-of-00002.gguf",
)


@pytest.mark.parametrize(
    ("model", "wished", "left_out", "stand_ins"),
    [
        (LLAMA, "safetensors", {"original/consolidated.00.pth"}, set()),
        (
            LLAMA,
            "pytorch",
            {*LLAMA[2:5]},
            set(),
        ),
        (
            SENTENCES,
            "safetensors",
            {"pytorch_model.bin", "2_Dense/pytorch_model.bin", *SENTENCES[8:]},
            {"1_Dense/pytorch_model.bin"},
        ),
        (
            SENTENCES,
            "pytorch",
            {"model.safetensors", "2_Dense/model.safetensors", *SENTENCES[8:]},
            set(),
        ),
        (
            SENTENCES,
            "onnx",
            {*SENTENCES[1:3], *SENTENCES[5:8], *SENTENCES[9:]},
            set(),
        ),
        (
            DIFFUSERS,
            "safetensors",
            {*DIFFUSERS[2:4], "vae_decoder/model.onnx", "text_encoder/flax_model.msgpack"},
            {"safety_checker/pytorch_model.bin"},
        ),
        (
            DIFFUSERS,
            "pytorch",
            {*DIFFUSERS[4:5], "vae_decoder/model.onnx", "text_encoder/flax_model.msgpack"},
            {"text_encoder/model.safetensors"},
        ),
        (GGUF, "gguf", {"model.safetensors"}, set()),
        (GGUF, "safetensors", {*GGUF[2:]}, set()),
        (
            ("adapter_config.json", "adapter_model.bin", "adapter_model.safetensors"),
            "safetensors",
            {"adapter_model.bin"},
            set(),
        ),
        # An index alone is no weights, and goes with its format.
        (
            ("a.bin.index.json", "pytorch_model.bin.index.json", "m.safetensors"),
            "safetensors",
            {"pytorch_model.bin.index.json"},
            set(),
        ),
    ],
)
def test_choose(
    model: tuple[str, ...], wished: str, left_out: set[str], stand_ins: set[str]
) -> None:
    choice = choose(paths(*model), wished)
    assert choice.left_out.keys() == left_out
    assert choice.stand_ins.keys() == stand_ins


def test_reasons_name_the_formats() -> None:
    choice = choose(paths(*SENTENCES), "safetensors")
    assert choice.left_out["pytorch_model.bin"] == "pytorch weights: --format safetensors"
    assert choice.stand_ins["1_Dense/pytorch_model.bin"] == (
        "pytorch weights: no safetensors weights replace them"
    )


@pytest.mark.parametrize(
    ("one", "other", "replaced"),
    [
        ("model.safetensors", "pytorch_model.bin", True),
        ("model-00001-of-00002.safetensors", "pytorch_model-00001-of-00003.bin", True),
        ("model-00001-of-00002.safetensors", "pytorch_model.bin", True),
        ("model-00001-of-00002.safetensors", "model-00001-of-00002.bin", True),
        ("model.safetensors", "pytorch_model.fp16.bin", True),
        ("model.fp16.safetensors", "pytorch_model.bin", True),
        ("model.safetensors", "original/consolidated.00.pth", True),
        ("consolidated.safetensors", "consolidated.00.pth", True),
        ("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin", True),
        ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.non_ema.bin", True),
        ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", True),
        ("adapter_model.safetensors", "adapter_model.bin", True),
        ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin", True),
        ("models/ip-adapter_sd15.safetensors", "models/ip-adapter_sd15.bin", True),
        ("v1-5-pruned.safetensors", "v1-5-pruned.ckpt", True),
        ("Tiny.safetensors", "tiny.pt", True),
        # No copies: the folder would not load without them.
        ("adapter_model.safetensors", "pytorch_model.bin", False),
        ("model.safetensors", "adapter_model.bin", False),
        ("model.safetensors", "colbert_linear.pt", False),
        ("model.safetensors", "sparse_linear.pt", False),
        ("model.safetensors", "codec.pth", False),
        ("model.safetensors", "voices/af.pt", False),
        ("v1-5-pruned-emaonly.safetensors", "v1-5-pruned.ckpt", False),
        ("v1.5.safetensors", "v1.4.ckpt", False),
        ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin", False),
        ("model.safetensors", "1_Dense/pytorch_model.bin", False),
    ],
)
def test_only_a_copy_of_the_same_weights_is_left_out(one: str, other: str, replaced: bool) -> None:
    for wished, file in (("safetensors", other), ("pytorch", one)):
        choice = choose(paths("config.json", one, other), wished)
        assert (file in choice.left_out, file in choice.stand_ins) == (replaced, not replaced)


def test_an_index_goes_with_its_weights() -> None:
    heads = ("head-00001-of-00002.pt", "head-00002-of-00002.pt")
    model = ("model.safetensors", "pytorch_model.bin.index.json", *heads)
    choice = choose(paths(*model), "safetensors")
    assert choice.left_out.keys() == {"pytorch_model.bin.index.json"}
    assert choice.stand_ins.keys() == {*heads}
    several = ("other.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json")
    assert choose(paths(*several), "safetensors").stand_ins.keys() == {*several[1:]}


def test_formats_in_counts_weights_in_our_order() -> None:
    model = files(
        **{"tf_model.h5": 5, "model.safetensors": 2, "x.msgpack.index.json": 1, "a.md": 9}
    )
    assert formats_in(model) == {"safetensors": 2 * MIB, "tensorflow": 5 * MIB}
    assert list(formats_in(model)) == ["safetensors", "tensorflow"]


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ({"model.safetensors": 10, "config.json": 1}, ""),
        ({"config.json": 1}, ""),
        (
            {"model.safetensors": 10, "pytorch_model.bin": 10, "config.json": 1},
            "weights in 2 formats: --format safetensors would save 10 MiB of 21 MiB",
        ),
        (
            {"pytorch_model.bin": 10, "tf_model.h5": 12, "flax_model.msgpack": 11},
            "weights in 3 formats: --format pytorch would save 23 MiB of 33 MiB",
        ),
        (
            {"model.safetensors": 10, "original/consolidated.00.pth": 10},
            "weights in 2 formats: --format safetensors would save 10 MiB of 20 MiB",
        ),
        # Nothing that a format could do without.
        ({"vae/model.safetensors": 10, "unet/pytorch_model.bin": 10}, ""),
        ({"model.safetensors": 1000, "tiny.onnx": 1}, ""),
        (
            {"model-00001-of-00001.safetensors": 10, "consolidated.safetensors": 10},
            "weights twice in one format: --exclude 'consolidated*' would save 10 MiB",
        ),
        (
            {
                "model.safetensors": 10,
                "original/model.safetensors": 10,
                "original/dtypes.json": 1,
                "metal/model.bin": 12,
            },
            (
                "weights in 2 formats: --format safetensors would save 12 MiB of 33 MiB; "
                "weights twice in one format: --exclude 'original/*' would save 11 MiB"
            ),
        ),
        # The only weights there are repeat none.
        ({"consolidated.00.pth": 10, "consolidated.01.pth": 10}, ""),
        (
            {"x.Q2_K.gguf": 2, "x.Q4_K_M.gguf": 4, "x.Q8_0.gguf": 8, "mmproj-F16.gguf": 1},
            "3 quantisations: --include '*Q4_K_M*' takes 4 MiB",
        ),
        (
            {"IQ2_XXS/x-IQ2_XXS-00001-of-00002.gguf": 2, "BF16/x-BF16.gguf": 16, "x-Q6_K.gguf": 6},
            "3 quantisations: --include '*Q6_K*' takes 6 MiB",
        ),
        ({"x-Q8_0-00001-of-00002.gguf": 8, "x-Q8_0-00002-of-00002.gguf": 8}, ""),
        (
            {"model.safetensors": 16, "x-q4_0.gguf": 4, "x-q8_0.gguf": 8},
            (
                "weights in 2 formats: --format safetensors would save 12 MiB of 28 MiB; "
                "2 quantisations: --include '*q8_0*' takes 8 MiB"
            ),
        ),
    ],
)
def test_saving_hint(model: dict[str, int], hint: str) -> None:
    assert saving_hint(files(**model)) == hint


def test_a_huge_listing_takes_no_time() -> None:
    model = tuple(RemoteFile(f"data/{n % 997}/file-{n}.json", 1, None) for n in range(100_000))
    began = time.process_time()
    assert saving_hint(model) == ""
    assert time.process_time() - began < 2
