"""A push to S3 holds only a few parts in memory, however large the files and however many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.aws import TABLE, make_place, running_aws

LIMIT = 300 * 1024 * 1024

PROGRAM = """
import hashlib, re, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferdock.registry.aws.store import AwsStore
from inferdock.registry.manifest import FileEntry
from tests.support.aws import aws_settings

store = AwsStore(aws_settings(sys.argv[1], "memory", threads=8))
paths = sorted(Path(sys.argv[2]).iterdir())
digests = [hashlib.file_digest(path.open("rb"), "sha256").hexdigest() for path in paths]
entries = [FileEntry(path=p.name, size=p.stat().st_size, sha256=d) for p, d in zip(paths, digests)]
with store.begin("demo", "1.0.0", revision="a" * 64, actor="ada") as upload, ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda pair: upload.send(*pair, lambda count: None), zip(entries, paths)))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_a_push_of_large_and_of_many_files_stays_within_its_memory(tmp_path: Path) -> None:
    for number, mib in enumerate([400, 150, 150, *[16] * 24]):
        with (tmp_path / f"{number:02}").open("wb") as file:
            file.truncate(mib << 20)  # zeros that take no room on the disk
    with running_aws() as endpoint:
        make_place(endpoint, "memory", f"{TABLE}-memory")
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, endpoint, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 <= LIMIT
