"""The site file that `site init` writes, and what is refused by its key."""

import re
import stat
import subprocess
import sys

import pytest
import yaml

from fluoronav.site.init import init_site
from fluoronav.site.site_file import SiteError, load_site


def test_a_new_site_is_valid_and_its_key_is_for_this_user_alone(tmp_path):
    path = init_site(tmp_path / "site", "OR-1", 11200)
    site = load_site(path)
    assert (site.name, site.issuer, site.node.port) == ("OR-1", "OR-1", 11200)
    assert site.peers[site.results_to].dimse.called in site.node.titles
    assert site.key == tmp_path / "site" / "site.key" and len(site.key.read_bytes()) == 32
    assert stat.S_IMODE(site.key.stat().st_mode) == 0o600


def test_the_sources_that_a_new_site_leaves_out_can_be_taken_in_by_their_lines(tmp_path):
    path = init_site(tmp_path)
    text = path.read_text()
    assert load_site(path).worklist is load_site(path).hl7 is load_site(path).fhir is None
    block = text[text.index("# fetch:") : text.index("# Archives")]
    keys = re.sub(r"^# ( *[a-z0-9_]+:)", r"\1", block, flags=re.M)
    path.write_text(text.replace(block, keys).replace("peer: pacs", "peer: archive"))
    site = load_site(path)
    assert (site.fetch.peer, site.hl7.port, site.worklist.station) == ("archive", 2575, "FLUORO_PLAN")
    assert site.hl7.tls.ca.is_absolute() and site.fhir.token.is_absolute()


def test_a_site_that_is_there_is_never_overwritten(tmp_path):
    key = init_site(tmp_path).parent / "site.key"
    before = key.read_bytes()
    with pytest.raises(SiteError, match=r"SITE\.yaml: is there already"):
        init_site(tmp_path)
    (tmp_path / "SITE.yaml").unlink()
    with pytest.raises(SiteError, match=r"site\.key: is there already"):
        init_site(tmp_path)
    assert key.read_bytes() == before


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("node", "insecure"), False, "give either `tls` .* or `insecure: true`"),
        (("node", "titles"), {"A TITLE THAT IS TOO LONG": "plan"}, "is no AE title"),
        (("node", "titles"), {"PLAN": "dance"}, "node.titles"),
        (("node", "callers"), [], "node.callers"),
        (("node", "colour"), "red", "node.colour: unknown key"),
        (("results_to",), "nowhere", "results_to names 'nowhere', which is not one of the peers"),
        (("series", "count_from"), "nobody", "series.count_from names 'nobody'"),
        (("peers", "archive"), {}, "give `dicomweb` or `dimse`"),
        (("peers", "archive"), {"dicomweb": {"url": "http://pacs/x"}}, "speaks in the clear"),
        (("peers", "archive"), {"dicomweb": {"url": "ftp://pacs/x"}}, "url"),
        (("peers", "../x"), {"dicomweb": {"url": "https://pacs/x"}}, "peers"),
    ],
)
def test_a_wrong_key_is_named(tmp_path, where, value, said):
    path = init_site(tmp_path)
    content = yaml.safe_load(path.read_text())
    part = content
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SiteError, match=said) as caught:
        load_site(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_no_yaml_is_said_with_what_to_do(tmp_path):
    with pytest.raises(SiteError, match="`fluoronav site init` writes one"):
        load_site(tmp_path / "SITE.yaml")
    (tmp_path / "SITE.yaml").write_text("a: [")
    with pytest.raises(SiteError, match="not valid YAML"):
        load_site(tmp_path / "SITE.yaml")
    (tmp_path / "SITE.yaml").write_text("- a")
    with pytest.raises(SiteError, match="must hold a mapping"):
        load_site(tmp_path / "SITE.yaml")


def test_the_command_writes_it_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, "-m", "fluoronav", "site", "init", str(tmp_path / "s"), "--port", "11999"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "fluoronav pacs serve" in done.stdout
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1 and "is there already" in again.stderr
