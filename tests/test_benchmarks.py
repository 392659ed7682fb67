"""Benchmarks run and state their figures in the one form; what they measure is not judged here."""

import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "benchmarks"


def test_packet_sizes_hold_and_are_printed_in_the_one_form():
    done = subprocess.run(
        [sys.executable, FOLDER / "packet.py", "--quick", "--json"], capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    assert len(figures) > 5
    assert all(set(one) == {"figure", "value", "hold", "ok"} for one in figures)
    sizes = [one for one in figures if one["ok"] is not None]
    assert len(sizes) == 3
    assert all(one["ok"] for one in sizes), sizes
