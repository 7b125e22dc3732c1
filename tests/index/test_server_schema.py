"""What /openapi.json promises, held against the service by schemathesis, which makes requests up from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from seeall.index.server.app import make
from seeall.index.server.guard import Limits
from seeall.index.server.service import Service
from tests.index.served import index_at, served

TOKEN = "a-long-secret-token"
PROGRAM = Path(sys.executable).with_name("schemathesis")


@pytest.mark.slow
@pytest.mark.skipif(not PROGRAM.exists(), reason="no schemathesis here: pip install 'seeall[dev]'")
def test_requests_made_up_from_the_schema(tmp_path: Path) -> None:
    """Good ones, wrong ones, without the token, by other methods, one after the other's answer.

    One check is left out, that whatever the schema allows is taken: a filter is a language, and a vector has as many
    numbers as the index has dimensions, which a schema cannot say.
    """
    with served(index_at(tmp_path), Limits(token=TOKEN)) as place:
        schema = place.get("/openapi.json", authorization=f"Bearer {TOKEN}")
        (tmp_path / "openapi.json").write_bytes(schema.body)
        done = subprocess.run(
            [
                PROGRAM, "run", "openapi.json", "--url", place.url, "--header", f"Authorization: Bearer {TOKEN}",
                "--max-time", "20", "--seed", "1", "--continue-on-failure", "--no-color", "--warnings", "off",
                "--exclude-checks", "positive_data_acceptance", "--suppress-health-check", "all",
            ],
            capture_output=True, text=True, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        figures = place.get("/metrics", authorization=f"Bearer {TOKEN}").body.decode()
    assert done.returncode == 0, done.stdout[-5000:]
    lines = [line for line in figures.splitlines() if line.startswith("seeall_requests_total{")]
    told = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
    for route in ("/v1/items", "/v1/items/{id}", "/v1/items/{id}/thumb", "/v1/search"):
        asked = {key: n for key, n in told.items() if f'route="{route}"' in key}
        assert any('status="200"' in key for key in asked) and sum(asked.values()) > 20, (route, asked)
    assert not any('status="500"' in key for key in told)


def test_what_the_schema_tells(tmp_path: Path) -> None:
    with TestClient(make(Service(index_at(tmp_path, 2), "off"), Limits()), base_url="http://localhost") as client:
        schema = client.get("/openapi.json").json()
        docs = client.get("/docs").text
    routes = {f"{way.upper()} {path}" for path, ways in schema["paths"].items() for way in ways}
    assert routes == {
        "GET /metrics", "GET /v1/health", "GET /v1/items", "GET /v1/items/{id}", "GET /v1/items/{id}/thumb",
        "POST /v1/search", "GET /v1/faces/people", "POST /v1/faces/identify",
    }  # fmt: skip
    assert all(route in docs for route in routes)
    for path, ways in schema["paths"].items():
        for about in ways.values():
            assert about["description"] and {"200", "401", "403", "500", "503"} <= about["responses"].keys(), path
            for status, answer in about["responses"].items():
                if status >= "4":
                    model = answer["content"]["application/json"]["schema"]
                    assert model == {"$ref": "#/components/schemas/Error"}, (path, status)
    body = schema["paths"]["/v1/search"]["post"]["requestBody"]["content"]
    assert body.keys() == {"application/json", "image/*", "application/octet-stream", "multipart/form-data"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]
