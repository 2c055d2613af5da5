"""A past run as what its report and its charts are made of."""

from ssn_probe.errors import ResultError
from ssn_probe.report.finished import FinishedRun
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.kept_findings import kept_findings


def past_run(folder: RunFolder) -> FinishedRun:
    """What the folder of a run holds. Raises ResultError where the run is not done, or a file is damaged."""
    manifest = folder.manifest()
    if manifest["status"] != "done":
        raise ResultError(
            f"the run is {manifest['status']}, so there is nothing to draw yet", "Run the recipe again, which goes on."
        )
    recipe = find_recipe(str(folder.path / "recipe.json"), {})
    return FinishedRun(recipe=recipe, manifest=manifest, findings=kept_findings(folder, recipe))
