"""What llama.cpp's `llama-quantize` does for f16, q8_0 and q4_k_m, for machines that have no compiled one.

    llama-quantize IN.gguf OUT.gguf TYPE [THREADS]

Tensors are chosen by llama.cpp's rules for dense Llama and Qwen2 models (src/llama-quant.cpp) and quantized by its own
C functions, which the wheel `xllamacpp` exports. This file is copied beside the converter and runs from there.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

USAGE = "usage: llama-quantize IN.gguf OUT.gguf {f16,q8_0,q4_k_m} [THREADS]"
ARCHITECTURES = ("llama", "qwen2")
BLOCK = {
    "F16": 1,
    "Q8_0": 32,
    "Q5_0": 32,
    "Q4_K": 256,
    "Q6_K": 256,
}  # weights that share their scales; a row is whole blocks
FILE_TYPE = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_k_m": "MOSTLY_Q4_K_M"}
FALLBACK = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}  # for rows that are not a multiple of 256


def target(name: str, row: int, kind: str, layers: int, tied: bool) -> str | None:
    """The type that a matrix gets, or None for one that stays as it is.

    `name` is GGUF's, `row` the row's length; `tied`: the embedding is the output layer, too.
    """
    if not name.endswith(".weight") or "_norm" in name:
        return None
    output = name == "output.weight" or (tied and name == "token_embd.weight")
    sensitive = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    six_bits = output or (sensitive and more_bits(int(sensitive[1]), layers))
    wanted = {"f16": "F16", "q8_0": "Q8_0"}.get(kind, "Q6_K" if six_bits else "Q4_K")
    if row % BLOCK[wanted]:
        wanted = FALLBACK.get(wanted, wanted)
    return None if row % BLOCK[wanted] else wanted


def more_bits(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between: where rounding hurts most."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def quantize(source: Path, goal: Path, kind: str) -> dict[str, int]:
    """Write `goal` from the 16- or 32-bit GGUF `source`; return how many tensors have which type.

    The file is written under another name and renamed when it is whole. Raises ValueError for a kind or an
    architecture that is not known here.
    """
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    if kind not in FILE_TYPE or architecture not in ARCHITECTURES:
        raise ValueError(f"{architecture} to {kind}: known here are {ARCHITECTURES} to {tuple(FILE_TYPE)}. {USAGE}")
    layers = reader.get_field(f"{architecture}.block_count").contents()
    if architecture == "llama" and layers == 80:
        raise ValueError("the 70B shape has rules of its own; use llama.cpp's llama-quantize.")
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    half = goal.with_name(f"{goal.name}.unfinished")
    writer = gguf.GGUFWriter(half, architecture, endianess=reader.endianess)
    copy_fields(reader, writer)
    writer.add_file_type(gguf.LlamaFileType[FILE_TYPE[kind]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    library = ggml()
    types = []  # what each tensor becomes
    for tensor in reader.tensors:
        matrix = len(tensor.shape) > 1
        wanted = target(tensor.name, int(tensor.shape[0]), kind, layers, tied) if matrix else None
        type_ = gguf.GGMLQuantizationType[wanted] if wanted else tensor.tensor_type
        shape, dtype, size = tensor.data.shape, tensor.data.dtype, tensor.data.nbytes
        if wanted:
            row = library.ggml_row_size(type_, int(tensor.shape[0]))
            shape, dtype, size = (shape[0], row), np.dtype(np.uint8), shape[0] * row
        writer.add_tensor_info(tensor.name, shape, dtype, size, raw_dtype=type_)
        types.append(type_)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, type_ in zip(reader.tensors, types):  # one at a time: a model's worth of them need not fit in RAM
            data = tensor.data
            if type_ != tensor.tensor_type:
                data = rounded(library, gguf.dequantize(data, tensor.tensor_type), type_)
            writer.write_tensor_data(data)
        writer.close()
        os.replace(half, goal)
    finally:
        half.unlink(missing_ok=True)
    return Counter(type_.name for type_ in types)


def copy_fields(reader, writer) -> None:
    """Everything that the file says about itself, except what the writer says anew."""
    import gguf

    said = {"general.architecture", "general.file_type", "general.quantization_version"}
    for field in reader.fields.values():
        if field.name in said or field.name.startswith("GGUF."):
            continue
        kind, *inner = field.types
        writer.add_key_value(field.name, field.contents(), kind, inner[0] if kind == gguf.GGUFValueType.ARRAY else None)


def ggml() -> ctypes.CDLL:
    """llama.cpp's C library inside the wheel `xllamacpp`."""
    import xllamacpp.xllamacpp as module

    library = ctypes.CDLL(module.__file__)
    library.ggml_row_size.restype = ctypes.c_size_t
    library.ggml_row_size.argtypes = [ctypes.c_int, ctypes.c_int64]
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def rounded(library: ctypes.CDLL, weights: np.ndarray, kind: int) -> np.ndarray:
    """Quantize rows × columns of float32; returns rows × bytes."""
    import numpy as np

    weights = np.ascontiguousarray(weights, dtype=np.float32)
    rows, columns = weights.shape
    out = np.empty((rows, library.ggml_row_size(kind, columns)), dtype=np.uint8)
    written = library.ggml_quantize_chunk(kind, weights.ctypes.data, out.ctypes.data, 0, rows, columns, None)
    if written != out.nbytes:
        raise RuntimeError(f"ggml wrote {written} bytes of {out.nbytes}")
    return out


def main(arguments: list[str]) -> int:
    if len(arguments) not in (3, 4):
        print(USAGE)
        return 0 if "--help" in arguments else 2
    sys.path.insert(1, str(Path(__file__).parent / "gguf-py"))
    try:
        counted = quantize(Path(arguments[0]), Path(arguments[1]), arguments[2].lower())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(", ".join(f"{count} tensors {kind}" for kind, count in sorted(counted.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
