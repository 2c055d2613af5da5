"""Several calls as one traced block. This source travels to the host."""

import nnsight


def run_packed(model, backend, calls):
    """[body(model, *arguments) for body, arguments in calls], where the backend runs the block."""
    with model.session(backend=backend):
        results = nnsight.save([])
        for body, arguments in calls:
            results.append(body(model, *arguments))
    return results
