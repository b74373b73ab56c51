"""Pulling a model, from a hub on the loopback: only what is wanted, only what is verified, whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffulex_edge import api
from diffulex_edge.cli.main import main
from diffulex_edge.errors import ArtefactError, BackendUnavailable, ResourceError, UsageError
from diffulex_edge.hub import download, shelf, transfer
from diffulex_edge.hub.download import WANTED, pull
from diffulex_edge.tests.hub_toys import COMMIT, OLDER, REPO, Hub, serve
from diffulex_edge.tests.tree import ROOT

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
        monkeypatch.setattr(transfer, "PAUSE_S", 0.0)
        monkeypatch.setenv("DIFFULEX_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def place(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models" / "aria--toy"


def command(hub: Hub, tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """`pull` as a process of its own."""
    quiet = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "NO_PROXY": "127.0.0.1"}
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.endpoint, **quiet}
    return [sys.executable, "-m", "diffulex_edge.cli.main", "pull", REPO, "--json", "-"], env


def test_a_pull_brings_what_a_model_folder_needs_and_nothing_else(hub: Hub, tmp_path: Path) -> None:
    folder = pull(REPO)
    assert folder == place(tmp_path) / COMMIT
    wanted = {name for name in hub.files if WANTED.fullmatch(name)}
    assert {file.name for file in folder.iterdir()} == wanted | {shelf.RECORD}
    assert all((folder / name).read_bytes() == hub.files[name] for name in wanted)
    assert len(wanted) == 9
    assert {name for name, _ in hub.asked} == wanted
    shelf.verify(folder)


@pytest.mark.parametrize(
    "name",
    [
        "modeling.py",
        "LICENSE.py",
        "pytorch_model.bin",
        "model.pt",
        "model.ckpt",
        "state.pkl",
        "model.safetensors.py",
        "model.safetensors.index.json.py",
        "config.json\n",
        ".safetensors",
        "a/model.safetensors",
        "../config.json",
    ],
)
def test_no_name_of_code_of_a_pickle_or_of_another_folder_is_wanted(name: str) -> None:
    assert not WANTED.fullmatch(name)


@pytest.mark.parametrize(("name", "algorithm"), [(SHARD, "sha256"), ("tokenizer.json", "git-sha1")])
def test_bytes_of_the_right_length_and_the_wrong_digest_are_refused_and_not_published(
    hub: Hub, tmp_path: Path, name: str, algorithm: str
) -> None:
    hub.sent = {name: b"x" * len(hub.files[name])}
    with pytest.raises(ArtefactError, match=rf"{name}: corrupt: its {algorithm}"):
        pull(REPO)
    assert not (place(tmp_path) / COMMIT).exists()
    assert not (place(tmp_path) / f".{COMMIT}.tmp" / name).exists()
    assert shelf.pulled(REPO) is None
    hub.sent = {}
    shelf.verify(pull(REPO))


def test_more_or_fewer_bytes_than_stated_are_refused(hub: Hub, tmp_path: Path) -> None:
    hub.sent = {SHARD: hub.files[SHARD] + b"x"}
    with pytest.raises(ArtefactError, match="sends more than"):
        pull(REPO)
    hub.sent = {SHARD: hub.files[SHARD][:-1]}
    with pytest.raises(ResourceError, match=r"299,999 of 300,000"):
        pull(REPO)
    assert not (place(tmp_path) / COMMIT).exists()


def test_a_transfer_that_breaks_off_goes_on_where_it_was(hub: Hub) -> None:
    hub.cut = {SHARD: [100_000, 50_000]}
    folder = pull(REPO)
    assert (folder / SHARD).read_bytes() == hub.files[SHARD]
    assert [asked for name, asked in hub.asked if name == SHARD] == [None, "bytes=100000-", "bytes=150000-"]


def test_a_line_that_never_brings_anything_is_given_up_and_the_next_pull_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.cut = {SHARD: [100_000, *[0] * transfer.ATTEMPTS]}
    with pytest.raises(ResourceError, match=r"aria/toy cannot be read"):
        pull(REPO)
    assert (place(tmp_path) / f".{COMMIT}.tmp" / SHARD).stat().st_size == 100_000
    hub.asked.clear()
    pull(REPO)
    assert (SHARD, "bytes=100000-") in hub.asked
    assert not any(name == "config.json" for name, _ in hub.asked)


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(hub: Hub) -> None:
    hub.cut, hub.ranges = {SHARD: [100_000]}, False
    assert (pull(REPO) / SHARD).read_bytes() == hub.files[SHARD]


def test_a_bad_beginning_is_noticed_at_the_end_and_fetched_afresh(hub: Hub, tmp_path: Path) -> None:
    temp = place(tmp_path) / f".{COMMIT}.tmp"
    temp.mkdir(parents=True)
    (temp / SHARD).write_bytes(b"z" * 1000)
    (temp / "config.json").write_bytes(b"z" * 10_000)
    (temp / "evil.py").write_text("of another pull")
    folder = pull(REPO)
    shelf.verify(folder)
    assert not (folder / "evil.py").exists()
    assert [asked for name, asked in hub.asked if name == SHARD] == ["bytes=1000-", None]


def test_a_killed_pull_leaves_nothing_with_a_name_and_the_next_goes_on(hub: Hub, tmp_path: Path) -> None:
    argv, env = command(hub, tmp_path)
    hub.gate = threading.Event()
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert hub.halfway.wait(120)
        temp = place(tmp_path) / f".{COMMIT}.tmp" / SHARD
        while not temp.stat().st_size:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    kept = temp.stat().st_size
    assert 0 < kept < 300_000
    assert [path.name for path in place(tmp_path).iterdir() if path.is_dir()] == [f".{COMMIT}.tmp"]
    assert shelf.models()[-1].commit is None
    hub.gate.set()
    hub.asked.clear()
    shelf.verify(pull(REPO))
    assert (SHARD, f"bytes={kept}-") in hub.asked


def test_two_pulls_at_once_fetch_each_file_once_and_both_end_well(hub: Hub, tmp_path: Path) -> None:
    argv, env = command(hub, tmp_path)
    hub.gate = threading.Event()
    pipe = subprocess.PIPE
    children = [subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    assert hub.halfway.wait(120)
    assert "waiting" in next(_first_words(children))
    hub.gate.set()
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert {json.loads(out)["path"] for out, _ in said} == {str(place(tmp_path) / COMMIT)}
    names = [name for name, _ in hub.asked]
    assert len(names) == len(set(names)) == 9


def _first_words(children: list[subprocess.Popen[str]]) -> Iterator[str]:
    """The first line on standard error of whichever child has one."""
    import selectors

    with selectors.DefaultSelector() as ready:
        for child in children:
            assert child.stderr is not None
            ready.register(child.stderr, selectors.EVENT_READ, child.stderr)
        for key, _ in ready.select(120):
            yield key.data.readline()


def test_a_second_pull_verifies_what_is_there_and_mends_what_is_damaged(hub: Hub) -> None:
    folder = pull(REPO)
    hub.asked.clear()
    assert pull(REPO) == folder
    assert hub.asked == []
    (folder / SHARD).write_bytes(b"y" * 300_000)
    (folder / "tokenizer.json").unlink()
    pull(REPO)
    shelf.verify(folder)
    assert {name for name, _ in hub.asked} == {SHARD, "tokenizer.json"}


def test_a_revision_becomes_a_commit_and_the_one_pulled_last_is_what_the_name_means(hub: Hub, tmp_path: Path) -> None:
    newest, older = pull(REPO), pull(REPO, "old")
    assert (newest.name, older.name) == (COMMIT, OLDER)
    assert api.locate(REPO) == older
    assert pull(REPO, COMMIT) == newest
    assert api.locate(REPO) == newest
    assert [model.commit for model in shelf.models() if model.name == REPO] == [COMMIT, OLDER]
    assert api.locate(str(tmp_path / "aria" / "toy")) == tmp_path / "aria" / "toy"


def test_a_commit_that_is_here_needs_no_hub(hub: Hub) -> None:
    folder = pull(REPO)
    hub.refusal = (500, {})
    assert pull(REPO, COMMIT) == folder


def test_a_path_goes_before_a_pulled_model_of_the_same_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pull(REPO)
    monkeypatch.chdir(tmp_path)
    assert api.locate(REPO) == folder
    (tmp_path / REPO).mkdir(parents=True)
    assert api.locate(REPO) == Path(REPO)


@pytest.mark.parametrize(
    ("refusal", "revision", "said"),
    [
        ((404, {"X-Error-Code": "RepoNotFound"}), None, "has no model aria/toy"),
        ((401, {}), None, "has no model aria/toy"),
        ((403, {"X-Error-Code": "GatedRepo"}), None, r"gated: accept its terms on .*aria/toy and log in"),
        (None, "nowhere", "no branch, tag or commit 'nowhere'"),
    ],
)
def test_what_the_hub_does_not_give_is_a_usage_error(
    hub: Hub, refusal: tuple[int, dict[str, str]] | None, revision: str | None, said: str
) -> None:
    hub.refusal = refusal
    with pytest.raises(UsageError, match=said):
        pull(REPO, revision)


def test_a_hub_that_cannot_be_reached_is_one_line_and_exit_code_4(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody is there
    assert main(["pull", REPO]) == 4
    said = capsys.readouterr().err
    assert said.startswith("error: aria/toy cannot be read from http://127.0.0.1:9")
    assert said.count("\n") == 1


def test_a_page_that_is_no_hub_s_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refusal = (200, {})  # as a hotel's login page answers, whatever is asked
    with pytest.raises(ArtefactError, match="does not answer like the hub"):
        pull(REPO)


def test_a_full_disk_is_told_before_anything_is_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SPARE", 1 << 60)
    with pytest.raises(ResourceError, match="GB are free"):
        pull(REPO)
    assert hub.asked == []


def test_a_repository_that_is_no_model_folder_is_refused(hub: Hub, tmp_path: Path) -> None:
    shards = [name for name in hub.files if name.endswith(".safetensors")]
    del hub.files[shards[1]]
    with pytest.raises(ArtefactError, match=rf"index\.json names files that the repository has not: {shards[1]}"):
        pull(REPO)
    del hub.files[shards[0]]
    hub.files.pop("model.safetensors.index.json")
    with pytest.raises(ArtefactError, match="no model folder"):
        pull(REPO)
    assert not (place(tmp_path) / COMMIT).exists()


@pytest.mark.parametrize(
    "name", ["toy", "a/b/c", "../x/y", "a/..", "/a", "a--b/c", "a/b\n", "a /b", "a/b:c", "", "a/-b"]
)
def test_what_is_no_name_of_a_model_never_becomes_a_path(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="OWNER/NAME"):
        pull(name, cache=tmp_path)
    assert shelf.pulled(name, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_without_its_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'diffulex-edge\[hub\]'"):
        pull(REPO, cache=tmp_path)


def test_pull_and_list_tell_what_is_there_and_what_is_damaged(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", REPO, "--json", "-"]) == 0
    pulled = json.loads(capsys.readouterr().out)
    assert (pulled["name"], pulled["family"], pulled["commit"]) == (REPO, "sdar", COMMIT)
    assert pulled["size"] > 600_000
    assert main(["list", "--verify", "--json", "-"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed[REPO] == {**pulled, "fault": None}
    assert listed[api.SHIPPED]["family"] == "eco_hybrid"
    (Path(pulled["path"]) / SHARD).write_bytes(b"y" * 300_000)
    assert main(["list"]) == 0
    assert main(["list", "--verify", "--json", "-"]) == 3
    said = capsys.readouterr()
    assert f"{SHARD}: corrupt" in said.err
    assert "damaged" in said.err


def test_a_record_that_was_changed_is_noticed(hub: Hub) -> None:
    record = pull(REPO) / shelf.RECORD
    record.write_text(record.read_text().replace("git-sha1", "sha256", 1))
    with pytest.raises(ArtefactError, match=r"pull\.json"):
        shelf.verify(record.parent)
