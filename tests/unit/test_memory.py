"""What cgroups allow is found wherever they are, and a run keeps within it."""

from pathlib import Path

import pytest

from aim_downloader.linux import memory_groups, memory_limit
from aim_downloader.memory import Allowance, OpenFiles, allowance
from aim_downloader.planner import SMALL_FILE
from aim_downloader.snapshot import MIB

NONE = 9223372036854771712
V1 = "32 31 0:31 {top} {point} rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "41 31 0:41 {top} {point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
OTHERS = """\
23 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
33 31 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
"""


def mounts(kind: str, point: str, top: str = "/") -> str:
    return OTHERS + kind.format(top=top, point=point) + "\n"


# -- where one's own group is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "mounted", "found"),
    [
        ("0::/user.slice/a b\n", mounts(V2, "/c"), [("/c", "/c/user.slice/a b")]),
        ("0::/\n", mounts(V2, "/c"), [("/c", "/c")]),
        # In a container: the group is mounted as the top, or what is told leads elsewhere.
        ("0::/pods/p/c\n", mounts(V2, "/c", "/pods/p/c"), [("/c", "/c")]),
        ("0::/pods/p/c/in\n", mounts(V2, "/c", "/pods/p/c"), [("/c", "/c/in")]),
        ("0::/pods/p/c\n", mounts(V2, "/c", "/pods/q"), [("/c", "/c")]),
        ("0::/../../other\n", mounts(V2, "/c"), [("/c", "/c")]),
        ("0::/x\n", mounts(V2, "/c", "/.."), [("/c", "/c")]),
        ("4:memory:/a\n2:cpu,cpuacct:/b\n", mounts(V1, "/m"), [("/m", "/m/a")]),
        ("4:hugetlb,memory:/a\n", mounts(V1, "/m"), [("/m", "/m/a")]),
        ("4:memory:/docker/d\n", mounts(V1, "/m", "/docker/d"), [("/m", "/m")]),
        (
            "4:memory:/a\n0::/b\n",
            mounts(V1, "/m") + V2.format(top="/", point="/u"),
            [("/m", "/m/a"), ("/u", "/u/b")],
        ),
        ("2:cpu,cpuacct:/b\n", mounts(V1, "/m"), []),
        ("4:memory:/a\n", mounts(V2, "/c"), []),
        ("", mounts(V2, "/c"), []),
        ("0::/a\n", "", []),
        ("neither of\nthem: is: so\n", "nor\nis - this\n", []),
    ],
)
def test_where_ones_own_group_is(own: str, mounted: str, found: list[tuple[str, str]]) -> None:
    assert memory_groups(own, mounted) == found


# -- what it allows --------------------------------------------------------------------------------


def stat(limit: int) -> str:
    return f"cache 0\nhierarchical_memory_limit {limit}\nhierarchical_memsw_limit {NONE}\n"


@pytest.mark.parametrize(
    ("own", "mounted", "files", "limit"),
    [
        ("0::/a/b", V2, {"a/b/memory.max": "max", "a/memory.max": "max"}, None),
        ("0::/a/b", V2, {"a/b/memory.max": "1000", "a/memory.max": "max"}, 1000),
        ("0::/a/b", V2, {"a/b/memory.max": "2000", "a/memory.max": "1000"}, 1000),
        ("0::/a/b", V2, {"a/b/memory.max": "1000", "a/memory.max": "2000"}, 1000),
        ("0::/a/b", V2, {"a/b/memory.max": "max", "a/memory.max": "1000"}, 1000),
        ("0::/a/b", V2, {"a/b/memory.max": "2000", "a/b/memory.high": "1000"}, 1000),
        # Neither a neighbour nor what lies above the mount counts.
        ("0::/a/b", V2, {"a/b/memory.max": "2000", "a/c/memory.max": "1000"}, 2000),
        ("0::/a/b", V2, {"a/b/memory.max": "2000", "../memory.max": "1000"}, 2000),
        ("0::/gone", V2, {"memory.max": "1000"}, 1000),
        ("0::/", V2, {"memory.max": "1000"}, 1000),
        ("0::/", V2, {}, None),
        ("0::/", V2, {"memory.max": ""}, None),
        ("4:memory:/a", V1, {"a/memory.stat": stat(NONE)}, None),
        ("4:memory:/a", V1, {"a/memory.stat": stat(1000)}, 1000),
        ("4:memory:/gone", V1, {"memory.stat": stat(1000)}, 1000),
        ("4:memory:/a", V1, {}, None),
    ],
)
def test_what_the_groups_allow(
    tmp_path: Path, own: str, mounted: str, files: dict[str, str], limit: int | None
) -> None:
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(f"{own}\n")
    (proc / "mountinfo").write_text(mounts(mounted, "/sys/fs/cgroup"))
    top = tmp_path / "sys" / "fs" / "cgroup"
    top.mkdir(parents=True)
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    assert memory_limit(tmp_path) == limit


def test_the_limit_is_found_among_mount_points_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_bytes(b"0::/caf\xe9\n")
    stick = b"50 1 8:1 / /media/Musik\xe4 rw - vfat /dev/sdb1 rw\n"
    mounted = stick + V2.format(top="/", point="/c").encode() + b"\n" + stick
    (tmp_path / "proc" / "self" / "mountinfo").write_bytes(mounted)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "memory.max").write_text("1000\n")
    assert memory_limit(tmp_path) == 1000


def test_no_limit_where_nobody_tells(tmp_path: Path) -> None:
    assert memory_limit(tmp_path) is None


# -- what a run makes of it ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "asked", "connections", "small_files"),
    [
        (None, 16, 16, 8),
        (None, 256, 256, 8),
        (4096, 256, 256, 8),
        (512, 16, 16, 8),
        (512, 256, 112, 8),
        (128, 16, 16, 8),
        (128, 64, 16, 8),
        (96, 16, 9, 6),
        (64, 16, 3, 2),
        (64, 1, 1, 2),
        (48, 16, 1, 1),
        (1, 16, 1, 1),
    ],
)
def test_a_run_keeps_within_its_limit(
    limit: int | None, asked: int, connections: int, small_files: int
) -> None:
    bytes_ = limit * MIB if limit else None
    assert allowance(bytes_, asked) == Allowance(connections, small_files * MIB)


@pytest.mark.parametrize("limit", [0, *range(1, 600)])
def test_there_is_always_room_for_a_connection_and_a_small_file(limit: int) -> None:
    for asked in (1, 16, 256):
        found = allowance(limit * MIB, asked)
        assert 1 <= found.connections <= asked
        assert found.small_files >= SMALL_FILE
        if limit > 60:
            assert found.connections * MIB + found.small_files <= limit * MIB // 2


@pytest.mark.parametrize(
    ("limit", "files", "every"),
    [
        (None, 1, 64),
        (None, 256, 64),
        (4096, 16, 64),
        (512, 1, 64),
        (512, 4, 58),
        (512, 16, 14),
        (64, 1, 8),
        (64, 3, 2),
        (64, 256, 1),
        (1, 1, 1),
    ],
)
def test_pages_of_many_files_share_the_limit(limit: int | None, files: int, every: int) -> None:
    open_files = OpenFiles(limit * MIB if limit else None)
    open_files.add(files)
    assert open_files.settle_every // MIB == every
    open_files.add(1 - files)
    assert open_files.settle_every >= every * MIB
