"""A process around llama.cpp's server: begins with one line of settings on standard input, says its
address in one line, and ends with whoever started it.

What crashes in here touches nothing else.
"""

import json
import os
import sys


def main() -> None:
    """Serve until standard input ends."""
    import xllamacpp

    # Libraries print; only we write lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_ctx = settings["context"] * settings["slots"]
    params.n_parallel = settings["slots"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.port, params.api_keys = 0, [settings["key"]]
    params.ui = params.warmup = False
    params.lora_init_without_apply = True
    adapters = []
    for path in settings["adapters"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 0.0
        adapters.append(adapter)
    params.lora_adapters = adapters
    server = xllamacpp.Server(params)
    print(server.listening_address, file=out, flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
