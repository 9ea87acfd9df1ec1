"""URLs that every library reads alike, and no others: the token's way hangs on it."""

import ipaddress
import urllib.parse

import pytest
import urllib3.util
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aim_downloader.urls import is_usable, origin, redacted, resolved, without_secrets

LABEL = "a" * 63


@pytest.mark.parametrize(
    "url",
    [
        "http://hub.test",
        "https://hub.test/",
        "HTTPS://Hub.Test/x",
        "http://hub.test:8080/x/y?z=1&y=%2F#part",
        "http://hub.test:0/",
        "http://hub.test:65535/",
        "http://hub.test?x",
        "http://hub.test#x",
        "http://localhost/x",
        "http://under_score.test/x",
        "http://xn--bcher-kva.test/x",
        "http://a-b.c-d.test/x",
        "http://127.0.0.1:8080/x",
        "http://[::1]/x",
        "http://[::1]:8080/x",
        "http://[2001:DB8::1]:443/",
        "http://[::ffff:127.0.0.1]/",
        f"http://{LABEL}.test/",
        # What looks like a user part, and is none: it stands behind the host.
        "http://hub.test/a@b",
        "http://hub.test?a@b",
        "http://hub.test/a:b//c",
        "http://hub.test/'()*!$;,=~|^`{}<>\"",
    ],
)
def test_usable(url: str) -> None:
    assert is_usable(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hub.test",
        "//hub.test/x",
        "/x",
        "http:",
        "http:/hub.test",
        "http://",
        "http:///x",
        "http://:80/",
        "ftp://hub.test/x",
        "file:///etc/passwd",
        "javascript://hub.test/",
        " http://hub.test/",
        "http://hub.test/ ",
        "http ://hub.test/",
        "http://hub.test /x",
        "http://hub.test/a b",
        "http://hub.test/?a b",
        "http://hub .test/",
        "http://hub.test/\n",
        "http://hub.test\n/",
        "ht\ntp://hub.test/",
        "http://hub.test/a\tb",
        "http://hub.test/a\rb",
        "http://hub.test/a\x00b",
        "http://hub.test\x00.evil.test/",
        "http://hub.test/\x7f",
        "http://hub.test/é",
        "http://hüb.test/",
        "http://hub\N{FULLWIDTH FULL STOP}test/",
        "http://hub\N{IDEOGRAPHIC FULL STOP}test/",
        "http://evil.test\N{FULLWIDTH SOLIDUS}hub.test/",
        "http://hub.test/a\\b",
        "http://evil.test\\@hub.test/",
        "http://evil.test:80\\@hub.test:80/x",
        "http:\\\\hub.test\\x",
        "http://user@hub.test/",
        "http://user:password@hub.test/",
        "http://@hub.test/",
        "http://hub.test@evil.test/",
        "http://a@b@hub.test/",
        "http://hub.test:/x",
        "http://hub.test:65536/",
        "http://hub.test:99999/",
        "http://hub.test:123456/",
        "http://hub.test:-1/",
        "http://hub.test:+80/",
        "http://hub.test:8_0/",
        "http://hub.test:80:80/",
        "http://hub.test:http/",
        "http://hub.test: 80/",
        "http://hub.test:٨٠/",
        "http://-hub.test/",
        "http://hub.test-/",
        "http://.hub.test/",
        "http://hub.test./",
        "http://hub..test/",
        "http://hub%2etest/",
        "http://hub.test%2f@evil.test/",
        f"http://{LABEL}a.test/",
        f"http://hub.{LABEL}a/",
        f"http://{'a.' * 130}test/",
        "http://[::1/",
        "http://::1/",
        "http://[]/",
        "http://[::1]evil.test/",
        "http://[::1].evil.test/",
        "http://evil.test[::1]/",
        "http://[fe80::1%25eth0]/",
        "http://[hub.test]/",
        "http://[::1]:99999/",
    ],
    ids=ascii,
)
def test_not_usable(url: str) -> None:
    assert not is_usable(url)


@pytest.mark.parametrize(
    "host", ["[:]", "[.]", "[1]", "[::1::2]", "[1.2.3.4]", "[12345::]", "[1:2:3]", "[:::]"]
)
def test_what_stands_in_brackets_and_is_no_address_is_not_usable(host: str) -> None:
    assert not is_usable(f"http://{host}/x")
    assert not is_usable(f"http://{host}:80")


# -- libraries agree -------------------------------------------------------------------------------

# Letters that have a meaning in a URL, and some that should have none.
HOSTS = st.one_of(
    st.sampled_from(["hub.test", "127.0.0.1", "[::1]", "xn--bcher-kva.test", LABEL]),
    st.text("aZ09.-_", min_size=1, max_size=12),
    st.text("af09:.", min_size=1, max_size=12).map("[{}]".format),
    st.text("aZ09.-_%:@[]\\/?#\t\n é\N{FULLWIDTH FULL STOP}", max_size=12),
)
PORTS = st.one_of(
    st.just(""), st.integers(0, 99999).map(":{}".format), st.text(":09-+ _", max_size=4)
)
RESTS = st.text("/?#@:\\%[]&=.a0!~'\"|{}^` \t\n\x00é", max_size=20)
SCHEMES = st.sampled_from(["http", "https", "HTTP", "Https", "ftp", "httpx"])


@st.composite
def urls(draw: st.DrawFn) -> str:
    separator = draw(st.sampled_from(["://"] * 5 + [":/", ":", ":///", ":\\\\"]))
    user = draw(st.sampled_from([""] * 5 + ["hub.test@", "a:b@", "hub.test:80\\@"]))
    return draw(SCHEMES) + separator + user + draw(HOSTS) + draw(PORTS) + draw(RESTS)


def host_and_port(host: str | None, port: int | None, scheme: str) -> tuple[str, int]:
    standard = {"http": 80, "https": 443}[scheme.lower()]
    host = (host or "").strip("[]").lower()
    # One address of IPv6 has many spellings.
    host = str(ipaddress.IPv6Address(host)) if ":" in host else host
    return host, standard if port is None else port


@given(urls())
@settings(max_examples=400)
@example("http://hub.test:0/")
@example("http://hub.test#@evil.test/")
@example("http://hub.test?@evil.test/")
@example("http://[::ffff:127.0.0.1]:80/x")
@example("HTTP://HUB.test:00080/x")
def test_all_libraries_go_to_the_same_host_and_port(url: str) -> None:
    if not is_usable(url):
        return
    plain = urllib.parse.urlsplit(url)
    of_urllib3 = urllib3.util.parse_url(url)
    of_yarl = yarl.URL(url, encoded=True)
    found = host_and_port(plain.hostname, plain.port, plain.scheme)
    assert found == host_and_port(of_urllib3.host, of_urllib3.port, plain.scheme)
    assert found == host_and_port(of_yarl.raw_host, of_yarl.port, plain.scheme)
    assert found[0]
    assert plain.username is of_urllib3.auth is of_yarl.raw_user is None


@given(st.one_of(urls(), st.text(max_size=40)))
def test_no_text_breaks_anything(text: str) -> None:
    if is_usable(text):
        assert origin(text)[1]
    redacted(text)
    target = resolved("http://hub.test/a/b", text)
    assert target is None or is_usable(target)


# -- origin ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://hub.test/x", ("http", "hub.test", 80)),
        ("https://hub.test", ("https", "hub.test", 443)),
        ("https://HUB.test:443/", ("https", "hub.test", 443)),
        ("https://hub.test:8443?x#y", ("https", "hub.test", 8443)),
        ("http://hub.test:443/", ("http", "hub.test", 443)),
        ("http://hub.test/@evil.test:1/", ("http", "hub.test", 80)),
        ("http://[::1]:8080/", ("http", "::1", 8080)),
        ("HTTP://hub.test/", ("http", "hub.test", 80)),
    ],
)
def test_origin(url: str, found: tuple[str, str, int]) -> None:
    assert origin(url) == found


# -- where a reference leads -----------------------------------------------------------------------

BASE = "https://hub.test/a/b?c=d"


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("https://cdn.test/x?y=%2F", "https://cdn.test/x?y=%2F"),
        ("/x", "https://hub.test/x"),
        ("x", "https://hub.test/a/x"),
        ("../x", "https://hub.test/x"),
        ("?x", "https://hub.test/a/b?x"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("http://cdn.test:80/x", "http://cdn.test:80/x"),
        ("", None),
        ("ftp://cdn.test/x", None),
        ("mailto:somebody", None),
        ("http://evil.test:80\\@hub.test/x", None),
        ("//evil.test\\@hub.test/x", None),
        ("/\\evil.test/x", None),
        ("\\\\evil.test/x", None),
        ("http://hub.test@evil.test/x", None),
        ("//user:password@hub.test/x", None),
        ("http://[::1", None),
        ("//[1.2.3.4]/x", None),
        ("http://hub.test:99999/x", None),
        ("/a b", None),
        ("/a\x00b", None),
        ("/é", None),
    ],
    ids=ascii,
)
def test_where_a_reference_leads(reference: str, target: str | None) -> None:
    assert resolved(BASE, reference) == target


# -- what may be shown -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.test/x?Signature=secret", "https://cdn.test/x?…"),
        ("https://hub.test:8443/x/y", "https://hub.test:8443/x/y"),
        ("https://hub.test/x#secret", "https://hub.test/x"),
        ("https://user:secret@hub.test/x", "https:…"),
        ("https://evil.test\\@hub.test/secret", "https:…"),
        ("secret-secret-secret", "secret-s:…"),
        ("", ":…"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no luck (os error 5)", "no luck (os error 5)"),
        ("GET https://u.test/x?sig=SECRET: 403", "GET https://u.test/x?… 403"),
        ("for url (https://u.test/x?sig=SECRET), domain", "for url (https://u.test/x?…), domain"),
        ("to 'https://u.test/x?sig=SECRET'", "to 'https://u.test/x?…'"),
        # What may end a URL may stand in it too.
        ("for url (https://u.test/x?sig=a)SECRET)", "for url (https://u.test/x?…)"),
        ("by http://me:SECRET@proxy.test:1/ not", "by http:… not"),
        ("s3://bucket/key?SECRET", "s3:…"),
        ("authorization: Bearer SECRET", "authorization: …"),
        ("for hf_SECRETandmuchmore", "for …"),
        (f'Some("Signature={"a1" * 20}SECRET")', 'Some("…")'),
        ("no GET /x?sig=SECRET HTTP/1.1 here", "no GET /x?… HTTP/1.1 here"),
        ("no rev 0123456789abcdef0123456789abcdef01234567", None),
        ("steers \x1b[2Jthe terminal\n", "steers [2Jthe terminal"),
        ("hf_transfer is fine", None),
        ("is it there? a=b", None),
    ],
)
def test_what_is_shown_of_words(said: str, shown: str | None) -> None:
    assert without_secrets(said) == (said if shown is None else shown)
