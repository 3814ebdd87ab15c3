import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleet.errors import FleetError
from fleet.gather.hostlist import (
    LARGEST_HOST_COUNT,
    HostListError,
    expand_hosts,
    expand_list,
    fold_hosts,
    hosts_from_file,
    select_hosts,
)
from fleet.naming import natural_key

PREFIXES = st.sampled_from(["gpu", "n", "rack1n", "a-", "a-1-", "x0y", "login", "d1e2f", "7", ""])
NUMBERS = st.one_of(
    st.integers(0, 120).map(str),
    st.integers(0, 120).map("{:03d}".format),
    st.integers(0, 12).map("{:02d}".format),
    st.just(""),
)
SUFFIXES = st.sampled_from(["", "", "", "-ib", ".example.org", ".r2.example.org"])
HOSTS = st.lists(
    st.builds("".join, st.tuples(PREFIXES, NUMBERS, SUFFIXES)).filter(
        lambda host: host[:1].isalnum()
    ),
    max_size=60,
)


def ordered(hosts: list[str]) -> list[str]:
    return sorted(set(hosts), key=lambda host: (natural_key(host), host))


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("gpu[001-003]", "gpu001 gpu002 gpu003"),
        ("gpu[8-11]", "gpu8 gpu9 gpu10 gpu11"),
        ("gpu[08-11]", "gpu08 gpu09 gpu10 gpu11"),
        ("gpu[9-010]", "gpu9 gpu10"),
        ("gpu[001-3]", "gpu001 gpu002 gpu003"),
        ("n[1-1,01]", "n1 n01"),
        ("rack[1-2]n[01-02,07]", "rack1n01 rack1n02 rack1n07 rack2n01 rack2n02 rack2n07"),
        ("a[1-2][3-4]", "a13 a14 a23 a24"),
        ("a,b[1-3]", "a b1 b2 b3"),
        ("[1-3]", "1 2 3"),
        ("a, b[1-2]\tc\nd,,", "a b1 b2 c d"),
        ("gpu[1-2].example.org", "gpu1.example.org gpu2.example.org"),
        ("b1,b[1-2],b1", "b1 b2"),
        ("", ""),
    ],
)
def test_a_list_expands_in_its_own_order(text: str, hosts: str) -> None:
    assert expand_hosts(text) == tuple(hosts.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu[3-1]", "--hosts: character 5: '3-1' ends before it begins; write 1-3"),
        ("a,b[1-4:2]", "--hosts: character 5: '1-4:2' is no range; write numbers and ranges"),
        ("b[]", "--hosts: character 3: '' is no range"),
        ("b[1,x]", "--hosts: character 5: 'x' is no range"),
        ("b[1-]", "character 3: '1-' is no range"),
        ("b[1, 2]", "character 5: ' 2' is no range"),
        ("b[+1]", "character 3: '+1' is no range"),
        ("b[٣]", "character 3: '٣' is no range"),
        ("b[1-2", "character 2: '[' without ']'; close each bracket once"),
        ("b]1", "character 2: ']' without '['"),
        ("a[[1-2]]", "character 2: '[' without ']'"),
        ("-x", "'-x' is no host name; use letters, digits"),
        ("a;rm", "'a;rm' is no host name"),
        ("a\x00b", "is no host name"),
        ("a/b", "'a/b' is no host name"),
        ("..", "'..' is no host name"),
        ("é[1-2]", "is no host name"),
        ("a" * 254, "is no host name"),
        ("a[" + "1" * 300 + "]", "is no range"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(HostListError) as caught:
        expand_hosts(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["n[1-100001]", "a[1-99999999][1-9999999999]", "n[0-" + "9" * 99])
def test_a_list_that_is_too_long_is_refused_before_it_is_spelt_out(text: str) -> None:
    with pytest.raises(HostListError, match=r"names at most|name at most 100,000"):
        expand_hosts(text + "]" * (text.count("[") - text.count("]")))


def test_the_longest_list_allowed_expands() -> None:
    hosts = expand_hosts(f"n[1-{LARGEST_HOST_COUNT}]")
    assert (len(hosts), hosts[-1]) == (LARGEST_HOST_COUNT, f"n{LARGEST_HOST_COUNT}")


def test_a_list_of_other_words_may_hold_anything_but_brackets() -> None:
    assert expand_list("http://g[1-2]:9409 unix:/run/a.sock", where="--agents") == (
        "http://g1:9409",
        "http://g2:9409",
        "unix:/run/a.sock",
    )


@pytest.mark.parametrize(
    ("hosts", "text"),
    [
        ("gpu1 gpu2 gpu3", "gpu[1-3]"),
        ("gpu001 gpu002 gpu004", "gpu[001-002,004]"),
        ("gpu8 gpu9 gpu10", "gpu[8-10]"),
        ("gpu09 gpu10 gpu010", "gpu[09,010,10]"),
        ("login", "login"),
        ("gpu1 login gpu2", "gpu[1-2],login"),
        ("rack2n1 rack1n1 rack1n2", "rack1n[1-2],rack2n1"),
        ("10.0.0.8 10.0.0.7", "10.0.0.[7-8]"),
        ("gpu2.example.org gpu1.example.org", "gpu[1-2].example.org"),
        ("", ""),
    ],
)
def test_hosts_fold_to_the_list_a_person_would_write(hosts: str, text: str) -> None:
    assert fold_hosts(hosts.split()) == text


@settings(deadline=None)
@given(HOSTS)
def test_what_is_folded_expands_to_the_same_hosts_in_natural_order(hosts: list[str]) -> None:
    assert list(expand_hosts(fold_hosts(hosts))) == ordered(hosts)


@settings(deadline=None)
@given(st.text(alphabet="ab01239[]-, .\t", max_size=30))
def test_any_text_expands_or_is_refused_and_never_breaks(text: str) -> None:
    try:
        hosts = expand_hosts(text)
    except HostListError:
        return
    assert set(expand_hosts(fold_hosts(hosts))) == set(hosts)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that lets scontrol speak of names without a controller."""
    if shutil.which("scontrol") is None:
        pytest.skip("Slurm's scontrol is not installed")
    path = tmp_path_factory.mktemp("slurm") / "slurm.conf"
    path.write_text("ClusterName=x\nSlurmctldHost=localhost\nNodeName=n1\n")
    return path


def scontrol_hostnames(text: str, slurm: Path) -> list[str] | None:
    """What Slurm itself makes of a list, None where it refuses it."""
    done = subprocess.run(
        ["scontrol", "show", "hostnames", text],
        env={"SLURM_CONF": str(slurm), "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return None if done.returncode or "nvalid" in done.stderr else done.stdout.split()


def test_scontrol_reads_what_we_fold(slurm: Path) -> None:
    @settings(deadline=None)
    @given(
        HOSTS.map(lambda hosts: [host for host in hosts if "." not in host and "-ib" not in host])
    )
    def same(hosts: list[str]) -> None:
        assume(hosts)
        assert scontrol_hostnames(fold_hosts(hosts), slurm) == ordered(hosts)

    same()


def test_scontrol_expands_as_we_do(slurm: Path) -> None:
    number = st.one_of(st.integers(0, 30).map(str), st.integers(0, 30).map("{:03d}".format))
    span = st.tuples(number, number).map("-".join)
    bracket = st.lists(st.one_of(number, span), min_size=1, max_size=3).map(
        lambda parts: f"[{','.join(parts)}]"
    )
    item = st.lists(st.tuples(st.sampled_from(["a", "n-", "r1"]), bracket), max_size=2).map(
        lambda pairs: "".join(text for pair in pairs for text in pair) or "login"
    )
    lists = st.lists(item, min_size=1, max_size=3).flatmap(
        lambda items: st.sampled_from([",", " ", ", "]).map(lambda mark: mark.join(items))
    )

    @settings(deadline=None)
    @given(lists)
    def same(text: str) -> None:
        theirs = scontrol_hostnames(text, slurm)
        try:
            ours = list(expand_hosts(text))
        except HostListError:
            assert theirs is None
        else:
            assert theirs is not None
            assert ours == list(dict.fromkeys(theirs))

    same()


def test_a_hostfile_holds_lists_on_lines_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# rack 1\ngpu[1-2]  # two\n\n gpu3 , login\ngpu1\n")
    assert hosts_from_file(path) == ("gpu1", "gpu2", "gpu3", "login")


def test_a_fault_in_a_hostfile_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("gpu1\ngpu[2-\n")
    with pytest.raises(HostListError, match=r"hosts: line 2: character 4: '\[' without"):
        hosts_from_file(tmp_path / "hosts")


def test_lists_and_files_join_and_the_excluded_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("gpu[3-5]")
    chosen = select_hosts(["gpu[1-3]", "a"], hostfile=str(tmp_path / "hosts"), exclude=["gpu[2,4]"])
    assert chosen == ("gpu1", "gpu3", "a", "gpu5")


@pytest.mark.parametrize(
    ("lists", "exclude", "message"),
    [([], [], "no host is named"), (["a"], ["a,b"], "all hosts are excluded")],
)
def test_nobody_left_to_ask_is_an_error(lists: list[str], exclude: list[str], message: str) -> None:
    with pytest.raises(FleetError, match=message):
        select_hosts(lists, exclude=exclude)
