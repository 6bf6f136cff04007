"""The server does what its own OpenAPI document says, whatever it is sent (schemathesis)."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import running

from luthier.pipeline import Engines, Readers
from luthier.recipe import Runtime
from own_service import Service

pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytestmark = pytest.mark.enable_socket


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    service = Service(tmp_path)
    runtime = Runtime.model_validate({"device": "cpu"})
    engines = Engines(runtime, slots=4)
    with running(service, engines, Readers(runtime), needs_key=False) as found:
        yield found
    engines.close()


def test_each_operation_answers_as_it_says(address: str, tmp_path: Path) -> None:
    told = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run",
            f"{address.removesuffix('/v1')}/openapi.json",
            "--phases", "coverage,fuzzing", "--max-examples", "8", "--seed", "1", "--no-color",
            "--checks", "not_a_server_error,status_code_conformance,content_type_conformance,"
            "response_headers_conformance,response_schema_conformance",
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-6000:]
