"""What `make sbom` has built, and that alone: `make sbom` runs this. Ids: docs/security.md."""

import json
from pathlib import Path

import pytest
from tests.supply_chain.licences import locked

pytestmark = pytest.mark.sbom

BUILD = Path(__file__).parents[2] / "build"


def test_s55_the_sbom_holds_every_locked_package() -> None:
    document = json.loads((BUILD / "sbom.json").read_text(encoding="utf-8"))
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["name"] == "llm-service"
    listed = {component["name"]: component["version"] for component in document["components"]}
    assert listed == locked()
    for component in document["components"]:
        assert any(reference.get("hashes") for reference in component["externalReferences"]), component[
            "name"
        ]


def test_s55_every_locked_package_states_its_licence() -> None:
    lines = (BUILD / "licences.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(locked())
    assert [line for line in lines if line.endswith("not stated")] == []
