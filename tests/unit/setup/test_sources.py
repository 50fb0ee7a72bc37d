"""What pip is configured with is found and said to uv."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.setup_sources import Sources, parse_pip_config, read_sources

from tests.unit.setup.machine import FakeRunner


def sources_of(listing: str, env: dict[str, str] | None = None) -> Sources:
    return read_sources("python", runner=FakeRunner({"pip config list": (0, listing)}), env=env or {})


def test_without_settings_uv_gets_no_argument():
    assert sources_of("").uv_arguments() == []


def test_a_pip_that_does_not_answer_means_no_settings():
    assert read_sources("python", runner=FakeRunner(), env={}) == Sources()


@pytest.mark.parametrize(
    ("listing", "arguments"),
    [
        ("global.index-url='https://a.example/simple'", "--default-index https://a.example/simple"),
        (
            "global.extra-index-url='https://a.example https://b.example'",
            "--index https://a.example --index https://b.example --index-strategy unsafe-best-match",
        ),
        ("global.no-index='true'", "--no-index"),
        (
            r"global.trusted-host='a.example\nb.example'",
            "--allow-insecure-host a.example --allow-insecure-host b.example",
        ),
        ("install.find-links='https://a.example/wheels'", "--find-links https://a.example/wheels"),
    ],
)
def test_each_place_becomes_an_argument(listing, arguments):
    assert " ".join(sources_of(listing).uv_arguments()) == arguments


def test_a_folder_of_wheels_is_handed_on_and_a_missing_one_is_not(tmp_path):
    listing = f"global.find-links='{tmp_path} {tmp_path}/missing file://{tmp_path}'"
    assert sources_of(listing).find_links == (str(tmp_path), f"file://{tmp_path}")


def test_the_environment_goes_before_the_install_section_and_that_before_the_global_one():
    listing = ":env:.index-url='e'\nglobal.index-url='g'\ninstall.index-url='i'\n:env:.cert='c'"
    assert parse_pip_config(listing) == {"index-url": "e", "cert": "c"}
    assert parse_pip_config("install.index-url='i'\nglobal.index-url='g'") == {"index-url": "i"}


def test_settings_of_other_commands_are_passed_over():
    assert parse_pip_config("freeze.timeout='10'\ndownload.index-url='x'\nWARNING: odd\n") == {}


def test_what_the_person_set_for_uv_wins():
    sources = sources_of("global.index-url='x'\nglobal.cert='c'", {"UV_DEFAULT_INDEX": "y", "SSL_CERT_FILE": "d"})
    assert sources.uv_arguments() == []
    assert sources.uv_environment() == {}


def test_certificates_proxy_and_time_out_reach_uv():
    environment = sources_of("global.cert='c'\nglobal.proxy='p'\nglobal.timeout='9'").uv_environment()
    assert environment == {"SSL_CERT_FILE": "c", "HTTPS_PROXY": "p", "HTTP_PROXY": "p", "UV_HTTP_TIMEOUT": "9"}


def test_local_wheels_of_a_package_are_found(tmp_path):
    (tmp_path / "torch-2.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    (tmp_path / "torchvision-1.0-py3-none-any.whl").touch()
    assert [wheel.name for wheel in Sources(find_links=(str(tmp_path),)).local_wheels("torch")] == [
        "torch-2.0+cpu-cp311-cp311-linux_x86_64.whl"
    ]


@given(listing=st.text(max_size=200))
def test_any_listing_is_read_without_failing(listing):
    assert isinstance(parse_pip_config(listing), dict)


@given(value=st.text(max_size=50))
def test_any_value_comes_back_as_it_was(value):
    assert parse_pip_config(f"global.index-url={value!r}") == {"index-url": value}
