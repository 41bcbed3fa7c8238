# SPDX-License-Identifier: Apache-2.0
"""pytest plug-in: ``@pytest.mark.torchtally_budget(peak="1.2 GiB", activations="800 MiB")``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "torchtally_budget(peak=None, **limits): record the test and fail it where it has more alive; "
        "sizes as '1.2 GiB', names as in torchtally.assert_budget",
    )


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    marker = item.get_closest_marker("torchtally_budget")
    if marker is None:
        yield
        return
    # Here: tests without the marker need no torch.
    from ._budget import assert_budget
    from ._profile import Profile

    with tempfile.TemporaryDirectory(prefix="torchtally-") as folder:
        profile = Profile(recording=os.path.join(folder, "test.tally"))
        profile.start()
        try:
            outcome = yield
        finally:
            profile.stop()
        if outcome.excinfo is None and profile.records:
            try:
                assert_budget(profile, *marker.args, **marker.kwargs)
            except (AssertionError, ValueError) as error:
                outcome.force_exception(pytest.fail.Exception(str(error), pytrace=False))
