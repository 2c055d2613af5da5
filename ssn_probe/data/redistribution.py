"""May rows of a prompt set be shown to others? Only where its licence is known and its owner sets no conditions."""

from ssn_probe.data.sources import SHIPPED
from ssn_probe.data.sources.adapters import BY_HUB, BY_NAME
from ssn_probe.data.sources.hub_sets import HUB_ID

NO_LICENCE = ("", "unknown", "other", "none", "unlicensed", "proprietary", "all rights reserved")


def why_redacted(source: str, license: str | None) -> str | None:
    """Why rows of the set must not be passed on; None where they may be. `source`: as a recipe names it."""
    if source in SHIPPED:
        return None
    if (license or "").strip().casefold() in NO_LICENCE:
        return "their set names no licence: one in its dataset.json (`license`) would allow it"
    on_hub = HUB_ID.fullmatch(source)
    adapter = BY_NAME.get(source) or (on_hub and BY_HUB.get(on_hub["id"].casefold()))
    if adapter and adapter.hub and adapter.instead and source in (adapter.name, adapter.hub[0]):
        return "their owner gives them only to those who accept conditions"
    if on_hub and not adapter:
        return "whether their owner on the hub sets conditions is not recorded"
    return None
