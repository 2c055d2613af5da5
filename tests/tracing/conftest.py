"""What tests of hosts share."""

import pytest

from ssn_probe.model import products
from ssn_probe.tracing import effects
from ssn_probe.tracing.readout import forced


@pytest.fixture
def sequences_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Openings run as they do on a host, a sequence for every branch, so that numbers can be equal to the last bit."""
    monkeypatch.setattr(effects, "forced_on", lambda subject, readout, _tokens: forced(readout, subject.vocabulary))


@pytest.fixture
def torchs_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that are loaded here multiply as those of a host do, by torch's own products."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
