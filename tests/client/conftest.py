from typing import Any

import pytest

from gyoza.client import AsyncGyozaClient, GyozaClient


@pytest.fixture(params=[GyozaClient, AsyncGyozaClient], ids=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param
