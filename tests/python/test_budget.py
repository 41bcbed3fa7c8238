# SPDX-License-Identifier: Apache-2.0
"""Budgets: assert_budget and the pytest plug-in."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch

import torchtally
from torchtally._units import parse_bytes


@pytest.fixture
def recorded(tmp_path):
    model = torch.nn.Linear(256, 256, bias=False)  # 256 KiB
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torchtally.profile(model, optimizer, recording=tmp_path / "run.tally") as p:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.ones(4, 256)).sum().backward()
            optimizer.step()
    return p


def test_within(recorded):
    torchtally.assert_budget(recorded, peak="2 MiB", parameter=262144, gradients="256 KiB")
    torchtally.assert_budget(recorded.data(), peak="2 MiB")
    torchtally.assert_budget(recorded.recording, peak="2 MiB")


def test_over_says_what(recorded):
    with pytest.raises(AssertionError) as error:
        torchtally.assert_budget(recorded, peak="2 MiB", parameters=262143)
    assert str(error.value).startswith("over budget: parameters: 256.00 KiB (262,144 bytes) in step 0")
    assert "peak" not in str(error.value)


def test_without_sense(recorded):
    with pytest.raises(ValueError, match="'weights' is no role"):
        torchtally.assert_budget(recorded, weights="1 MiB")
    with pytest.raises(ValueError, match="'lots' is no number of bytes"):
        torchtally.assert_budget(recorded, peak="lots")
    with pytest.raises(ValueError, match="no budget"):
        torchtally.assert_budget(recorded)


def test_units():
    assert parse_bytes("1.5 KiB") == 1536 and parse_bytes("2 MB") == 2_000_000 and parse_bytes(7) == 7


def test_marker(tmp_path):
    (tmp_path / "test_it.py").write_text(textwrap.dedent("""
        import pytest, torch

        @pytest.mark.torchtally_budget(peak="64 MiB")
        def test_good():
            torch.ones(1024, 1024)

        @pytest.mark.torchtally_budget(peak="1 MiB")
        def test_bad():
            torch.ones(1024, 1024)

        @pytest.mark.torchtally_budget(peak="1 MiB")
        def test_fails_by_itself():
            assert False, "its own reason"

        def test_unmarked():
            pass
    """))
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "torchtally._pytest", "--strict-markers", "-q",
         "--override-ini=addopts=", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "2 failed, 2 passed" in result.stdout
    assert "over budget: peak: 4.00 MiB (4,194,304 bytes) in step 0" in result.stdout
    assert "its own reason" in result.stdout
