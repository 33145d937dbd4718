"""Connections to web servers: direct, through the proxy of the environment, or to public addresses only."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from urllib.parse import SplitResult
from urllib.request import getproxies, proxy_bypass

from fatpatch.errors import InputError
from fatpatch.limits import Remote
from fatpatch.remote.address import parts_of


class ViaProxy(http.client.HTTPConnection):
    """To a proxy, which is asked for whole addresses."""


def connect(target: SplitResult, options: Remote, shown: str) -> http.client.HTTPConnection:
    """A connection to the host, or to the proxy that the environment names for it; for public hosts only, never by a proxy."""
    host, port, secure = target.hostname or "", target.port, target.scheme == "https"
    if options.public_only:
        return (_CheckedTls if secure else _Checked)(host, port, timeout=options.timeout)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(host):
        via, _ = parts_of(proxy if "://" in proxy else f"http://{proxy}", shown)
        if not secure:
            return ViaProxy(via.hostname or "", via.port, timeout=options.timeout)
        tunnel = http.client.HTTPSConnection(via.hostname or "", via.port, timeout=options.timeout)
        tunnel.set_tunnel(host, port or 443)
        return tunnel
    return (http.client.HTTPSConnection if secure else http.client.HTTPConnection)(host, port, timeout=options.timeout)


class _Checked(http.client.HTTPConnection):
    """Connects to public addresses only: what the name stands for is looked up once, and that is what is used."""

    def connect(self) -> None:
        self.sock = _public_socket(self.host, self.port, self.timeout)


class _CheckedTls(http.client.HTTPSConnection):
    """As ``_Checked``, encrypted."""

    def connect(self) -> None:
        plain = _public_socket(self.host, self.port, self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


def _public_socket(host: str, port: int, timeout: float | None) -> socket.socket:
    addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            message = f"{host} is at {address}, which is no public address"
            raise InputError(message, hint="leave out --public-only to read from machines of your own network")
    return socket.create_connection((addresses[0], port), timeout)
