"""Set before the libraries load: threads that do not spin, and a hub on this machine."""

import json
import os
import tempfile

import pytest
from hub.server import READER, Hub

# Idle threads of torch and of numba must not spin against each other.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# No test asks a hub elsewhere, nor reads what a user has from one.
HUB = Hub()
# Files whose tests run a graph of their own in processes.
GRAPHS = ("test_chains", "test_lss_workflow", "test_rows_workflow", "test_selection_graph")
GRAPHS += ("test_variants_workflow",)
CACHE = tempfile.TemporaryDirectory(prefix="langneurons-hub-")
os.environ |= {"HF_ENDPOINT": HUB.url, "HF_HOME": CACHE.name, "HF_TOKEN": READER}
os.environ["HF_HUB_DISABLE_XET"] = "1"


@pytest.fixture
def hub(monkeypatch):
    """Return the hub of these tests, without waits between attempts."""
    from langneurons.models import hub as client

    monkeypatch.setattr(client, "WAITS", (0.0,) * len(client.WAITS))
    HUB.quiet()
    yield HUB
    HUB.quiet()


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Return a checkout in which the whole graph has run on a tiny model, and why it did not."""
    from test_workflow import Checkout, save_tiny_model

    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    save_tiny_model(checkout.path / "tiny-model")
    try:
        checkout.make()
    except AssertionError as error:
        return checkout, str(error)
    return checkout, None


@pytest.fixture(scope="session")
def checkout(finished):
    """Return the checkout in which the whole graph has run; without it a test is skipped.

    The reason is told once, by test_the_shared_graph_ends.
    """
    checkout, failure = finished
    if failure is not None:
        pytest.skip("the shared graph did not finish; see test_the_shared_graph_ends")
    return checkout


@pytest.fixture
def edit(checkout):
    """Return the checkout; files and configuration are put back after the test."""
    from test_workflow import CONFIG

    kept = {
        path: path.read_bytes()
        for folder in ("src", "workflow")
        for path in (checkout.path / folder).rglob("*")
        if path.suffix in {".py", ".smk", ".rst"}
    }
    yield checkout
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)
    checkout.config = json.loads(json.dumps(CONFIG))
    checkout.save()


def pytest_collection_modifyitems(items):
    """Mark the tests of finished graphs, which `make test` runs beside the others."""
    for item in items:
        if "finished" in item.fixturenames or item.path.stem in GRAPHS:
            item.add_marker("workflow")
