"""The environment record: what it holds, and what it must not."""

import getpass
import json
import platform
from pathlib import Path

from luthier.runs import capture_environment, memory_bytes, num_cores


def test_the_record_names_machine_and_versions() -> None:
    found = capture_environment()
    assert found["python"] == platform.python_version()
    assert num_cores() >= 1
    assert memory_bytes() > 2**20
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["numpy"]


def test_the_record_names_no_folder_and_no_host() -> None:
    text = json.dumps(capture_environment())
    assert str(Path.home()) + "/" not in text
    assert platform.node() not in text or platform.node() in platform.platform()
    assert f'"{getpass.getuser()}"' not in text
