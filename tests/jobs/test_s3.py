"""Contents in S3, by a real server of its protocol: a job's model is answered from elsewhere."""

import queue
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from luthier import jobs
from luthier.errors import StorageError
from luthier.jobs import Storage
from luthier.pipeline import Engines
from luthier.pipeline.engines import Choosing, End, Piece, Source, Told
from luthier.recipe import Runtime
from own_service import Service, chats, work_until

pytestmark = pytest.mark.enable_socket
moto = pytest.importorskip("moto.server", reason="moto is not installed")
pytest.importorskip("s3fs", reason="s3fs is not installed")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import fsspec

    boto3: Any = import_module("boto3")
    s3fs: Any = import_module("s3fs")

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": address})
    s3fs.S3FileSystem.clear_instance_cache()
    client: Any = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
    client.create_bucket(Bucket="luthier")
    client.close()
    yield "s3://luthier/service"
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_files_are_kept_and_removed(bucket: str, tmp_path: Path) -> None:
    storage = Storage(bucket, tmp_path / "scratch")
    storage.check()
    source = tmp_path / "x"
    source.write_bytes(b"abc" * 100_000)
    storage.keep("files/x", source)
    assert storage.names("files") == ["x"]
    with storage.open("files/x") as file:
        assert file.read() == b"abc" * 100_000
    elsewhere = Storage(bucket, tmp_path / "elsewhere")
    assert elsewhere.local("files/x").read_bytes() == b"abc" * 100_000
    storage.remove("files/x")
    assert storage.names("files") == []
    with pytest.raises(StorageError):
        Storage("s3://other/service", tmp_path / "third").check()


def test_a_model_is_answered_from_by_a_machine_that_did_not_make_it(
    bucket: str, tmp_path: Path
) -> None:
    service = Service(tmp_path)
    service.storage = Storage(bucket, tmp_path / "scratch")
    made = jobs.Service(service.database, service.storage)
    service.files, service.models = made.files, made.models
    job = service.create(service.upload(chats(40)), hyperparameters={"n_epochs": 2, "lora_rank": 4})
    job = work_until(service, service.worker(), job.id, "succeeded", "failed")
    assert job.status == "succeeded", job.error
    elsewhere = jobs.Service(service.database, Storage(bucket, tmp_path / "elsewhere"))
    rows = {row.id: row for row in elsewhere.models.list()}
    checkpoint = next(row for name, row in rows.items() if "ckpt" in name)
    engines = Engines(Runtime.model_validate({"device": "cpu"}), slots=2)
    for row in (rows[str(job.fine_tuned_model)], checkpoint):
        folder = elsewhere.models.folder(row)
        assert tmp_path / "elsewhere" in folder.parents
        assert not (folder / "checkpoints").exists()
        assert answer(engines, Source(str(service.model()), folder))
    engines.close()


def answer(engines: Engines, source: Source) -> list[int]:
    told: queue.SimpleQueue[Told] = queue.SimpleQueue()
    opened = engines.open(source)
    opened.ask([1, 5, 6, 2], told.put, max_new_tokens=4, choosing=Choosing(temperature=0))
    ids = []
    while not isinstance(one := told.get(timeout=30), End):
        assert isinstance(one, Piece), one
        ids.append(one.id)
    return ids
