"""/v1/models: those to start from, and those that jobs have made."""

from fastapi import APIRouter

from luthier.server.access import Reader, Tuner
from luthier.server.errors import ApiError, no_model
from luthier.server.settings import Base
from luthier.server.wire import Wire, base_object, model_object

router = APIRouter()


@router.get("/models")
def list_models(caller: Reader) -> Wire:
    """All models; this list has no pages."""
    bases = [base_object(base.name) for base in caller.settings.bases.values()]
    return {
        "object": "list",
        "data": bases + [model_object(m) for m in caller.service.models.list()],
    }


@router.get("/models/{name:path}")
def retrieve_model(name: str, caller: Reader) -> Wire:
    """One model."""
    row = caller.service.models.find(name)
    if row is not None:
        return model_object(row)
    return base_object(_base(name, caller).name)


def _base(name: str, caller: Reader) -> Base:
    base = caller.settings.base(name)
    if base is None:
        raise no_model(name)
    return base


@router.delete("/models/{name:path}")
def delete_model(name: str, caller: Tuner) -> Wire:
    """Forget a model that a job has made."""
    if not caller.service.models.delete(name):
        base = _base(name, caller)
        message = f"{base.name} is a base model; only its server's owner removes it."
        raise ApiError(403, message, param="model")
    caller.note("model.delete", name)
    return {"id": name, "object": "model", "deleted": True}
