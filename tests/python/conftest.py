# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gc

import pytest
import torch

import torchtally
import truth

torch.set_num_threads(2)


class Checked:
    """A recording of `make`'s training beside two runs without the profiler."""

    def __init__(self, make, path, **options) -> None:
        gc.collect()  # what other tests left is not of this one
        self.plain = truth.run(make)
        self.steps = truth.run(make, measure=True)[2]
        profiles = []

        def around(job: truth.Job):
            profiles.append(
                torchtally.profile(job.model, job.optimizer, recording=path / "run.tally", **options)
            )
            return profiles[0]

        self.recorded = truth.run(make, around)
        self.profile = profiles[0]
        self.data = self.profile.data()

    def check(self) -> None:
        self.check_harmless()
        self.check_books()

    def check_harmless(self) -> None:
        assert self.plain[0] == self.recorded[0], "the losses differ"
        assert self.plain[1].keys() == self.recorded[1].keys()
        for name, gradient in self.plain[1].items():
            other = self.recorded[1][name]
            if gradient.layout != torch.strided:
                gradient, other = gradient.coalesce().values(), other.coalesce().values()
            assert torch.equal(gradient, other), f"the gradient of {name} differs"

    def check_books(self) -> None:
        assert len(self.data["steps"]) == len(self.steps)
        for expected, step in zip(self.steps, self.data["steps"]):
            device = step["devices"]["cpu"]
            for mark in device["marks"]:
                where = f"step {step['index']} at {mark['name']}: {mark['roles']}"
                assert mark["difference"] == 0, where
                assert sum(mark["roles"].values()) == mark["bytes"], where
                assert mark["roles"]["unattributed"] == 0, where
                assert mark["roles"]["external"] <= device["marks"][0]["roles"]["external"], where
                assert mark["roles"]["parameter"] == expected.parameter, where
                assert mark["roles"]["buffer"] == expected.buffer, where
            marks = {mark["name"]: mark for mark in device["marks"]}
            edges = [mark["saved_bytes"] for mark in device["marks"] if mark["name"] == "forward_edge"]
            assert edges == expected.saved, f"step {step['index']}"
            assert marks["end"]["roles"]["gradient"] == expected.gradient
            assert marks["end"]["roles"]["optimizer_state"] == expected.state


@pytest.fixture
def checked(tmp_path):
    """checked(make, **options of profile) -> Checked."""
    return lambda make, **options: Checked(make, tmp_path, **options)


@pytest.fixture
def nothing_of_earlier_tests() -> None:
    """Their models may live in cycles, and would be alive at each peak."""
    gc.collect()
