"""Certificates for tests of TLS, made by the openssl command: no package that we need makes any."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest


class Shown(NamedTuple):
    """What one side shows: PEM files."""

    certificate: Path
    key: Path


class Authority:
    """An authority of its own, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            reason = "no certificates: there is no openssl command"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        folder.mkdir(parents=True)
        self._folder = folder
        self.ca, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", *_NEW_KEY, "-subj", "/CN=Tests", "-keyout", self._key, "-out", self.ca)

    def issue(self, name: str, *alternatives: str) -> Shown:
        """A certificate for `name`, e.g. with "IP:127.0.0.1" beside it."""
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        shown = Shown(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        extensions.write_text(f"subjectAltName={','.join((f'DNS:{name}', *alternatives))}\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", shown.key, "-out", request)
        signed = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, *signed, "-out", shown.certificate)
        return shown


_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
