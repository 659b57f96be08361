"""Every option of ``serve``, by flag and by environment, good and bad."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from certificates import Certificates

from trio_echo.cli import main
from trio_echo.cli.serve import parse
from trio_echo.errors import ConfigError
from trio_echo.server.config import ServerConfig, TLSConfig

DEFAULTS = ServerConfig(ports=[9000], prefix="one")


def changed(**fields: object) -> dict[str, object]:
    """Name the fields that a configuration differs in from the default one."""
    return fields


def differences(config: ServerConfig) -> dict[str, object]:
    """Find the fields that differ from the default ones."""
    return {
        field: getattr(config, field)
        for field in ServerConfig.__dataclass_fields__
        if getattr(config, field) != getattr(DEFAULTS, field)
    }


GOOD = [
    ("--host", "::1", changed(hosts=["::1"])),
    ("--max-line", "1", changed(max_line=1)),
    ("--max-line", "1k", changed(max_line=1000)),
    ("--max-connections", "1", changed(max_connections=1)),
    ("--idle-timeout", "0.5", changed(idle_timeout=0.5)),
    ("--idle-timeout", "inf", changed(idle_timeout=float("inf"))),
    ("--drain-timeout", "0", changed(drain_timeout=0.0)),
    ("--admin-port", "0", changed(admin_port=0)),
]

TLS = {
    "--tls-ports": "9443,0",
    "--tls-cert": "cert.pem",
    "--tls-key": "key.pem",
    "--tls-client-ca": "ca.pem",
}


def variable(flag: str) -> str:
    """Name the environment variable of an option."""
    return "TRIO_ECHO_" + flag.removeprefix("--").upper().replace("-", "_")


def test_the_defaults_are_those_of_the_configuration() -> None:
    """One truth about them, whether they come from the command line or from Python."""
    assert differences(parse(["9000", "one"], {})) == {}


@pytest.mark.parametrize(("flag", "value", "expected"), GOOD)
def test_an_option_by_flag_and_by_environment(
    flag: str, value: str, expected: dict[str, object]
) -> None:
    """Both say the same."""
    assert differences(parse(["9000", "one", flag, value], {})) == expected
    assert differences(parse(["9000", "one"], {variable(flag): value})) == expected


@pytest.mark.parametrize(("flag", "value", "expected"), GOOD)
def test_a_flag_wins_over_the_environment(
    flag: str, value: str, expected: dict[str, object]
) -> None:
    """Even over a value that would be refused."""
    environment = {variable(flag): "not a value at all"}
    assert differences(parse(["9000", "one", flag, value], environment)) == expected


def test_ports_and_prefix_by_argument_and_by_environment() -> None:
    """The two that the original takes, also as a comma list."""
    environment = {"TRIO_ECHO_PORTS": "9001,9002", "TRIO_ECHO_PREFIX": "two"}
    assert differences(parse([], environment)) == {"ports": [9001, 9002], "prefix": "two"}
    assert differences(parse(["9000,0", "three"], environment)) == {
        "ports": [9000, 0],
        "prefix": "three",
    }


def test_an_empty_prefix_echoes_plainly() -> None:
    """It is a value, not a missing one."""
    assert differences(parse(["9000", ""], {})) == {"prefix": ""}


def test_host_repeats() -> None:
    """By flag as often as needed, in the environment separated by blanks."""
    flags = ["--host", "127.0.0.1", "--host", "::1"]
    assert differences(parse(["9000", "one", *flags], {})) == {"hosts": ["127.0.0.1", "::1"]}
    environment = {"TRIO_ECHO_HOST": "127.0.0.1 ::1"}
    assert differences(parse(["9000", "one"], environment)) == {"hosts": ["127.0.0.1", "::1"]}


def test_the_options_of_tls_belong_together() -> None:
    """By flag and by environment."""
    flags = [word for pair in TLS.items() for word in pair]
    environment = {variable(flag): value for flag, value in TLS.items()}
    expected = {
        "tls": TLSConfig(
            ports=[9443, 0],
            cert=Path("cert.pem"),
            key=Path("key.pem"),
            client_ca=Path("ca.pem"),
        )
    }
    assert differences(parse(["9000", "one", *flags], {})) == expected
    assert differences(parse(["9000", "one"], environment)) == expected


@pytest.mark.parametrize("flag", ["--log-lines", "--greeting", "--proxy-protocol"])
def test_a_switch(flag: str) -> None:
    """In the environment it is said by a word."""
    on = {flag.removeprefix("--").replace("-", "_"): True}
    assert differences(parse(["9000", "one", flag], {})) == on
    for word, expected in (("1", on), ("true", on), ("0", {})):
        assert differences(parse(["9000", "one"], {variable(flag): word})) == expected


BAD_ARGUMENTS = [
    ("PORTS", "http"),
    ("PORTS", "65536"),
    ("PORTS", "-1"),
    ("PORTS", "90_00"),
    ("PORTS", "\N{FULLWIDTH DIGIT THREE}"),
    ("PORTS", "9" * 5000),
    ("PORTS", "9000,"),
    ("PORTS", "9000;9001"),
    ("PORTS", "9000,9000"),
    ("PREFIX", "two\nlines"),
    ("PREFIX", "\x1b[2J"),
    ("PREFIX", "x" * 256),
]

BAD = [
    ("--max-line", "0"),
    ("--max-line", "-1"),
    ("--max-line", "64kB"),
    ("--max-connections", "0"),
    ("--max-connections", "many"),
    ("--idle-timeout", "0"),
    ("--idle-timeout", "-1"),
    ("--idle-timeout", "nan"),
    ("--idle-timeout", "1h"),
    ("--drain-timeout", "-0.1"),
    ("--drain-timeout", "nan"),
    ("--drain-timeout", "soon"),
    ("--admin-port", "65536"),
    ("--admin-port", "-1"),
    ("--admin-port", "http"),
    ("--tls-ports", "65536"),
    ("--tls-ports", "9443"),  # without --tls-cert
    ("--tls-ports", "https"),
    ("--log-format", "xml"),
    ("--log-level", "loud"),
    ("--host", "192.0.2.1"),  # for documentation: no machine has it
]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run ``serve`` with something that cannot work; return what was said."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("trio-echo: ")
    assert printed.err.endswith("\n")
    assert printed.err[:-1].isprintable()  # one line, and no escape
    return printed.err


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let none of the caller's variables decide."""
    for name in [name for name in os.environ if name.startswith("TRIO_ECHO_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("flag", "value"), BAD)
def test_a_bad_value_is_refused_by_name(
    flag: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By flag and by environment: one line that names the option, exit code 2."""
    good = ["0", "one"]
    assert flag in refused([*good, flag, value], capsys)
    monkeypatch.setenv(variable(flag), value)
    assert flag in refused(good, capsys)


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--max-line", "64kB", "must be a number of bytes, such as 65536 or 256Mi, got '64kB'"),
        ("--idle-timeout", "1h", "must be a number, got '1h'"),
        ("--log-level", "loud", "must be one of debug, info, warning, error, got 'loud'"),
    ],
)
def test_what_cannot_be_read_is_quoted(
    flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value, and what would be right."""
    assert refused(["0", "one", flag, value], capsys) == f"trio-echo: {flag}: {said}\n"


@pytest.mark.parametrize(("value", "right"), [("1", True), ("False", False), ("on", True)])
def test_a_switch_can_be_set_by_the_environment(value: str, right: bool) -> None:
    """In the usual spellings."""
    assert parse(["0", "one"], {"TRIO_ECHO_LOG_LINES": value}).log_lines is right


def test_a_switch_takes_no_other_word() -> None:
    """Neither yes nor no."""
    with pytest.raises(ConfigError, match="must be true or false, got 'maybe'"):
        parse(["0", "one"], {"TRIO_ECHO_LOG_LINES": "maybe"})


@pytest.mark.parametrize(("name", "value"), BAD_ARGUMENTS)
def test_a_bad_argument_is_refused_by_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for the two that have no dashes."""
    words = {"PORTS": "0", "PREFIX": "one"} | {name: value}
    assert name in refused(["--", *words.values()], capsys)
    for each, word in words.items():
        monkeypatch.setenv("TRIO_ECHO_" + each, word)
    assert name in refused([], capsys)


def test_a_switch_that_is_no_word_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the environment can say it wrongly."""
    monkeypatch.setenv("TRIO_ECHO_LOG_LINES", "perhaps")
    assert "--log-lines" in refused(["0", "one"], capsys)


@pytest.mark.parametrize("missing", [["0"], []])
def test_a_missing_argument_is_named(
    missing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of the help."""
    name = "PREFIX" if missing else "PORTS"
    assert refused(missing, capsys) == f"trio-echo: Missing argument '{name}'.\n"


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-client-ca"])
def test_tls_options_without_ports_are_refused(
    flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would do nothing, and nobody would notice that there is no TLS."""
    assert "--tls-ports" in refused(["0", "one", flag, "file.pem"], capsys)


def test_tls_ports_need_a_certificate(capsys: pytest.CaptureFixture[str]) -> None:
    """The option that is missing is named."""
    assert "--tls-cert" in refused(["0", "one", "--tls-ports", "0"], capsys)


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key", "--tls-client-ca"])
@pytest.mark.parametrize("content", [None, b"", b"no PEM at all"])
def test_a_bad_certificate_file_is_refused_by_option(
    flag: str,
    content: bytes | None,
    capsys: pytest.CaptureFixture[str],
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    """Each by its own, whether the file is missing, empty or something else."""
    bad = tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)
    files = {
        "--tls-cert": certificates.cert,
        "--tls-key": certificates.key,
        "--tls-client-ca": certificates.ca,
    } | {flag: bad}
    words = [word for option, path in files.items() for word in (option, str(path))]
    said = refused(["0", "one", "--tls-ports", "0", *words], capsys)
    assert said.startswith(f"trio-echo: {flag}: ")
    assert str(bad) in said


@pytest.mark.parametrize("flag", ["PORTS", "--tls-ports", "--admin-port"])
def test_a_port_in_use_is_refused_by_option(
    flag: str, capsys: pytest.CaptureFixture[str], certificates: Certificates
) -> None:
    """And so that it can be mended."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["--host", "127.0.0.1", "0", "one"]
        if flag == "PORTS":
            words[2] = port
        elif flag == "--tls-ports":
            words += [flag, port, "--tls-cert", str(certificates.cert)]
            words += ["--tls-key", str(certificates.key)]
        else:
            words += [flag, port]
        said = refused(words, capsys)
    assert said.startswith(f"trio-echo: {flag}: 127.0.0.1:{port} is already in use")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Made once: keys take a while."""
    return Certificates.issue(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("268435456", 256 << 20),
        ("256Mi", 256 << 20),
        ("1Gi", 1 << 30),
        ("100000Ki", 102_400_000),
        ("1G", 10**9),
        ("500M", 500_000_000),
        ("70000k", 70_000_000),
    ],
)
def test_a_memory_limit_as_kubernetes_writes_it(text: str, read: int) -> None:
    """In bytes, or in any unit that its manifests use."""
    assert parse(["9000", "one", "--max-memory", text], {}).max_memory == read


@pytest.mark.parametrize("text", ["256MB", "-1", "1.5Gi", "Mi", "1 Gi", "٣Mi"])
def test_a_memory_limit_that_is_none(text: str) -> None:
    """It is quoted, beside one that would do."""
    with pytest.raises(
        ConfigError, match="max_memory: must be a number of bytes, such as 65536 or 256"
    ):
        parse(["9000", "one", "--max-memory", text], {})


def test_a_memory_limit_that_leaves_nothing() -> None:
    """The interpreter alone takes more than half of the least."""
    with pytest.raises(ConfigError, match="max_memory: must be at least 67108864 bytes"):
        parse(["9000", "one", "--max-memory", "32Mi"], {})
