"""Files that are replaced, on a real file system, with real mounts where this machine lets us make some."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.namespaces import mount_namespace
from twisted_etcd.errors import RenderError
from twisted_etcd.rendering.file import FileAccess, TargetFile

ROOT = os.geteuid() == 0


def replace(file: TargetFile, content: bytes, *, owed: bool = False) -> bool:
    staged = file.stage(content)
    try:
        return file.replace(staged, owed=owed)
    finally:
        staged.discard()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))  # noqa: PTH208 - names are what is compared


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shop.conf"
    path.write_bytes(b"old")
    return path


def test_a_file_is_replaced_by_another_one_and_nothing_is_left(file: Path) -> None:
    before = file.stat().st_ino
    with file.open("rb") as reader:
        assert replace(TargetFile(file), b"new")
        # Who reads goes on with what it began.
        assert reader.read() == b"old"
    assert file.read_bytes() == b"new"
    assert file.stat().st_ino != before
    assert names(file.parent) == ["shop.conf"]


def test_until_then_it_is_as_it_was_and_the_new_one_stands_beside_it(file: Path) -> None:
    target = TargetFile(file)
    staged = target.stage(b"new")
    assert file.read_bytes() == b"old"
    assert staged.path.read_bytes() == b"new"
    assert staged.path.parent == file.parent
    # What is read by *.conf is not to read this one; what looks at the end of a name is to know it.
    assert staged.path.name.startswith(".")
    assert staged.path.name.endswith("-shop.conf")
    staged.discard()
    staged.discard()
    assert names(file.parent) == ["shop.conf"]


def test_a_program_that_is_staged_can_be_run_by_its_check(tmp_path: Path) -> None:
    staged = TargetFile(tmp_path / "run.sh", FileAccess(mode=0o700)).stage(b"#!/bin/sh\necho it runs\n")
    said = subprocess.run([staged.path], check=True, capture_output=True, text=True)
    assert said.stdout == "it runs\n"
    staged.discard()


def test_has_compares_content_and_what_is_asked_of_mode_and_owner(file: Path) -> None:
    file.chmod(0o640)
    assert TargetFile(file).has(b"old")
    assert not TargetFile(file).has(b"new")
    assert not TargetFile(file).has(b"longer")
    assert not TargetFile(file.with_name("none")).has(b"")
    assert TargetFile(file, FileAccess(mode=0o640, owner=os.geteuid())).has(b"old")
    assert not TargetFile(file, FileAccess(mode=0o600)).has(b"old")
    assert not TargetFile(file, FileAccess(group=12345)).has(b"old")


# --- mode and owner -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o4755])
def test_the_mode_stays(file: Path, mode: int) -> None:
    file.chmod(mode)
    replace(TargetFile(file), b"new")
    assert mode_of(file) == mode


def test_a_new_file_has_the_mode_that_is_asked_for_or_one_that_all_may_read_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        replace(TargetFile(tmp_path / "a"), b"")
        replace(TargetFile(tmp_path / "b", FileAccess(mode=0o660)), b"")
    finally:
        os.umask(before)
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "b")) == (0o644, 0o660)


def test_a_mode_that_is_asked_for_wins(file: Path) -> None:
    file.chmod(0o666)
    replace(TargetFile(file, FileAccess(mode=0o600)), b"new")
    assert mode_of(file) == 0o600


def test_the_group_stays_where_it_is_another_than_ours(file: Path) -> None:
    """As root any other; else one of those that the user is in, if there are some."""
    groups = [12345] if ROOT else [group for group in os.getgroups() if group != os.getegid()]
    for group in groups:
        os.chown(file, -1, group)
        replace(TargetFile(file), b"new")
        assert file.stat().st_gid == group


def test_the_owner_is_what_is_asked_for_or_it_is_said_that_it_cannot_be(file: Path) -> None:
    target = TargetFile(file, FileAccess(owner=12345, group=23456))
    if ROOT:
        file.chmod(0o4750)
        replace(target, b"new")
        assert (file.stat().st_uid, file.stat().st_gid, mode_of(file)) == (12345, 23456, 0o4750)
        replace(TargetFile(file), b"newer")
        assert (file.stat().st_uid, file.stat().st_gid, mode_of(file)) == (12345, 23456, 0o4750)
    else:
        refuses_the_owner(target, file)


@pytest.mark.skipif(not ROOT, reason="the test before this one shows it to those who are not root")
def test_who_may_not_give_a_file_away_says_so_and_leaves_the_old_one(file: Path) -> None:
    os.chown(file.parent, 12345, 12345)
    for parent in [*file.parent.parents][:-2]:
        parent.chmod(0o755)
    drop = "import os; os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
    code = IN_CHILD.replace("file = ", f"{drop}file = ")
    said = subprocess.run([sys.executable, "-c", code, str(file), "new"], check=False, capture_output=True, text=True)
    assert "cannot be owned by user 0 and group 0: Operation not permitted; run as root, or" in said.stdout, said.stderr
    assert file.read_bytes() == b"old"
    assert names(file.parent) == ["shop.conf"]


def refuses_the_owner(target: TargetFile, file: Path) -> None:
    with pytest.raises(
        RenderError, match=r"shop\.conf cannot be owned by user \d+ .*: Operation not permitted; run as"
    ):
        target.stage(b"new")
    assert file.read_bytes() == b"old"
    assert names(file.parent) == ["shop.conf"]


# --- links ----------------------------------------------------------------------------------------------------------


def test_of_a_link_what_it_leads_to_is_replaced(file: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    link = there / "link.conf"
    link.symlink_to("../shop.conf")
    target = TargetFile(link)
    staged = target.stage(b"new")
    assert staged.path.parent == tmp_path
    assert target.replace(staged, owed=False)
    assert link.is_symlink()
    assert (file.read_bytes(), link.read_bytes()) == (b"new", b"new")
    assert names(there) == ["link.conf"]
    assert target.has(b"new")


def test_a_link_to_nothing_gets_something_to_lead_to(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    replace(TargetFile(link), b"new")
    assert (link.is_symlink(), (tmp_path / "target").read_bytes()) == (True, b"new")


# --- what cannot be written -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "cannot be written: it is no regular file"),
        (os.mkfifo, "cannot be written: it is no regular file"),
        (lambda path: path.symlink_to(path), "cannot be written: "),
    ],
    ids=["folder", "pipe", "loop"],
)
def test_what_is_no_file_is_left_alone(tmp_path: Path, make: Callable[[Path], object], said: str) -> None:
    path = tmp_path / "x"
    make(path)
    with pytest.raises(RenderError, match=said):
        TargetFile(path).stage(b"")
    with pytest.raises(RenderError, match="x cannot be read: "):
        TargetFile(path).has(b"")
    assert names(tmp_path) == ["x"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RenderError) as caught:
        TargetFile(tmp_path / "a" / "b").stage(b"")
    assert str(caught.value) == (
        f"{tmp_path}/a/b cannot be written: No such file or directory; make the folder {tmp_path}/a"
    )


def test_a_disk_that_is_full_leaves_the_old_file_and_nothing_else(file: Path) -> None:
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); {IN_CHILD}"
    said = subprocess.run(
        [sys.executable, "-c", limit, str(file), "x" * 10_000], check=False, capture_output=True, text=True
    )
    assert said.stdout == f"{file} cannot be written: File too large\n", said.stderr
    assert file.read_bytes() == b"old"
    assert names(file.parent) == ["shop.conf"]


#: Replaces a file, and says how that went; SIGXFSZ is what a limit would kill it with.
IN_CHILD = """
import signal, sys
from pathlib import Path
from twisted_etcd.errors import RenderError
from twisted_etcd.rendering.file import TargetFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
file = TargetFile(Path(sys.argv[1]))
try:
    print(file.replace(file.stage(sys.argv[2].encode()), owed=False))
except RenderError as error:
    print(error)
"""

# --- mounts ---------------------------------------------------------------------------------------------------------


def in_namespace(*commands: str, file: Path, content: str) -> str | None:
    """What replacing a file says after commands in a mount namespace of its own; None where there can be none."""
    script = " && ".join([*commands, 'exec "$PYTHON" -c "$CODE" "$FILE" "$CONTENT"'])
    environ = {"PYTHON": sys.executable, "CODE": IN_CHILD, "FILE": str(file), "CONTENT": content}
    namespace = mount_namespace()
    if namespace is None:
        return None
    done = subprocess.run(
        [*namespace, "sh", "-c", script], check=False, capture_output=True, text=True, env=os.environ | environ
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def as_mount(file: Path, content: bytes) -> bool:
    """Replace a file as where it is a mount, whose rename fails as the kernel lets it fail."""

    def rename(_source: Path, _target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    return replace(TargetFile(file, rename=rename), content)


@pytest.mark.parametrize("name", ["shop.conf", "a file\\with spaces"])
def test_a_file_that_is_a_mount_is_written_as_it_is(tmp_path: Path, name: str) -> None:
    mounted, inside = tmp_path / "mounted", tmp_path / name
    mounted.write_bytes(b"a longer old text")
    mounted.chmod(0o640)
    inside.write_bytes(b"below")
    number = mounted.stat().st_ino
    said = in_namespace(f"mount --bind '{mounted}' '{inside}'", file=inside, content="new")
    if said is None:
        # No rights to mount anything here: what is left is what the kernel would say.
        said = str(as_mount(mounted, b"new"))
    assert said == "False"
    assert (mounted.read_bytes(), mounted.stat().st_ino, mode_of(mounted)) == (b"new", number, 0o640)
    assert names(tmp_path) == sorted(["mounted", name])


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_rename_that_fails_as_for_a_mount_leads_to_writing_it_as_it_is(file: Path, number: int) -> None:
    def rename(_source: Path, _target: Path) -> None:
        raise OSError(number, os.strerror(number))

    before = file.stat().st_ino
    target = TargetFile(file, FileAccess(mode=0o600), rename=rename)
    assert not replace(target, b"n")
    assert (file.read_bytes(), file.stat().st_ino, mode_of(file)) == (b"n", before, 0o600)
    assert names(file.parent) == ["shop.conf"]


def test_any_other_rename_that_fails_leaves_the_old_file(file: Path) -> None:
    def rename(_source: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(RenderError, match=r"shop\.conf cannot be written: Operation not permitted; the user that this"):
        replace(TargetFile(file, rename=rename), b"new")
    assert file.read_bytes() == b"old"
    assert names(file.parent) == ["shop.conf"]


def test_a_mount_in_a_folder_that_can_only_be_read_is_written_too(tmp_path: Path) -> None:
    """As in a container whose own files cannot be changed: the new text is checked elsewhere."""
    folder, mounted = tmp_path / "etc", tmp_path / "mounted"
    folder.mkdir()
    inside = folder / "shop.conf"
    inside.write_bytes(b"below")
    mounted.write_bytes(b"old")
    said = in_namespace(
        f"mount --bind '{folder}' '{folder}'",
        f"mount --bind '{mounted}' '{inside}'",
        f"mount -o remount,bind,ro '{folder}'",
        file=inside,
        content="new",
    )
    if said is not None:
        assert (said, mounted.read_bytes()) == ("False", b"new")
    assert names(folder) == ["shop.conf"]
    assert inside.read_bytes() == b"below"


def test_a_folder_that_can_only_be_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    file = folder / "shop.conf"
    file.write_bytes(b"old")
    said = in_namespace(
        f"mount --bind '{folder}' '{folder}'", f"mount -o remount,bind,ro '{folder}'", file=file, content="new"
    )
    assert said in {None, f"{file} cannot be written: Read-only file system"}
    assert file.read_bytes() == b"old"


# --- what is left of a crash ----------------------------------------------------------------------------------------


def test_what_a_crash_left_is_taken_away_and_what_another_process_uses_stays(file: Path) -> None:
    target = TargetFile(file)
    used = target.stage(b"in use")
    left = file.parent / ".twisted-etcd-abcdefgh-shop.conf"
    others = [".twisted-etcd-abcdefgh-other.conf", ".shop.conf", "twisted-etcd-shop.conf"]
    for name in (left.name, *others):
        (file.parent / name).write_bytes(b"x")
    target.clean_up()
    assert names(file.parent) == sorted([*others, "shop.conf", used.path.name])
    used.discard()
    TargetFile(file.parent / "no" / "folder").clean_up()


def test_a_process_that_was_killed_holds_no_lock(file: Path) -> None:
    code = IN_CHILD.split("try:", maxsplit=1)[0] + "import os\nfile.stage(b'half')\nos.kill(os.getpid(), 9)\n"
    done = subprocess.run([sys.executable, "-c", code, str(file)], check=False, capture_output=True)
    assert done.returncode == -9
    assert len(names(file.parent)) == 2
    assert file.read_bytes() == b"old"
    TargetFile(file).clean_up()
    assert names(file.parent) == ["shop.conf"]


def test_a_reload_that_is_owed_is_known_until_it_is_settled(file: Path) -> None:
    target = TargetFile(file)
    assert not target.is_owed()
    replace(target, b"new", owed=True)
    again = TargetFile(file)
    again.clean_up()
    assert again.is_owed()
    again.settle()
    again.settle()
    assert not target.is_owed()
    assert names(file.parent) == ["shop.conf"]


def test_the_lock_of_what_is_staged_is_let_go(file: Path) -> None:
    target = TargetFile(file)
    staged = target.stage(b"new")
    descriptor = os.open(staged.path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    target.replace(staged, owed=False)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
