"""Pages of the site that are made from the code when it is built, so that they cannot fall behind it.

One module makes one page, or one folder of pages, and returns its Markdown.
"""

from generate import (
    api,
    benchmarks,
    commands,
    configuration,
    coverage,
    design,
    metrics,
    networks,
    notebooks,
    policies,
    policy_table,
    protocols,
)
from generate.notebooks import images

__all__ = ["images", "pages"]


def pages() -> dict[str, str]:
    """Returns the Markdown of every page that is made from the code, by its path below docs/."""
    return {
        "reference/cli.md": commands.page(),
        "reference/configuration.md": configuration.page(),
        "reference/coverage.md": coverage.page(),
        "reference/metrics.md": metrics.page(),
        "reference/policies.md": policies.page(),
        "reference/policy-table.md": policy_table.page(),
        "reference/protocols.md": protocols.page(),
        "reference/networks.md": networks.page(),
        "benchmarks.md": benchmarks.page(),
        "design.md": design.page(),
        **notebooks.pages(),
        **api.pages(),
    }
