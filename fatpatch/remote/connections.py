"""Connections to web servers: direct, through the proxy of the environment, or to public addresses only."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from urllib.parse import SplitResult
from urllib.request import getproxies, proxy_bypass

from fatpatch.base.errors import InputError
from fatpatch.base.limits import Remote
from fatpatch.remote.address import parts_of, shown_address

_EMBEDDED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
"""IPv6 addresses that end in an IPv4 address: NAT64, IPv4-compatible, IPv4-translated."""
_LOCAL = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "2001:db8::/32", "3fff::/20", "192.88.99.0/24")))
"""Networks of a site or of none, whatever the release of Python calls them: local NAT64, documentation, relays of 6to4."""
_UNICAST = ipaddress.ip_network("2000::/3")
"""The global unicast addresses of IPv6 (RFC 4291, IANA): all others are of a site, or of nobody."""


class ViaProxy(http.client.HTTPConnection):
    """To a proxy, which is asked for whole addresses; ``authorization`` is what it wants to be told."""

    authorization: str | None = None


def connect(target: SplitResult, options: Remote, shown: str) -> http.client.HTTPConnection:
    """A connection to the host, or to the proxy that the environment names for it; for public hosts only, never by a proxy."""
    host, port, secure = target.hostname or "", target.port, target.scheme == "https"
    if options.public_only:
        return (_CheckedTls if secure else _Checked)(host, port, timeout=options.timeout)
    proxy = getproxies().get(target.scheme)
    if proxy and not proxy_bypass(host):
        via, authorization = _proxy(proxy, target.scheme, shown)
        if not secure:
            plain = ViaProxy(via.hostname or "", via.port, timeout=options.timeout)
            plain.authorization = authorization
            return plain
        tunnel = _Tls(via.hostname or "", via.port, timeout=options.timeout)
        tunnel.set_tunnel(host, port or 443, {"Proxy-Authorization": authorization} if authorization else {})
        return tunnel
    return (_Tls if secure else http.client.HTTPConnection)(host, port, timeout=options.timeout)


def _proxy(text: str, scheme: str, shown: str) -> tuple[SplitResult, str | None]:
    try:
        return parts_of(text if "://" in text else f"http://{text}", shown)
    except InputError as error:
        message = f"the proxy in {scheme}_proxy cannot be used: {shown_address(text)}"
        raise InputError(message, locator=shown, hint="set it to http://host:port, or unset it") from error


class _Tls(http.client.HTTPSConnection):
    """Encrypted; the socket is at hand while hands are shaken, so that a deadline can end that too."""

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self._shake_hands()

    def _shake_hands(self) -> None:
        tunnel: str | None = getattr(self, "_tunnel_host", None)
        secure = ssl.create_default_context().wrap_socket(self.sock, server_hostname=tunnel or self.host, do_handshake_on_connect=False)
        self.sock = secure
        secure.do_handshake()


class _Checked(http.client.HTTPConnection):
    """Connects to public addresses only: what the name stands for is looked up once, and that is what is used."""

    def connect(self) -> None:
        self.sock = _public_socket(self.host, self.port, self.timeout)


class _CheckedTls(_Tls):
    """As ``_Checked``, encrypted."""

    def connect(self) -> None:
        self.sock = _public_socket(self.host, self.port, self.timeout)
        self._shake_hands()


def _public_socket(host: str, port: int, timeout: float | None) -> socket.socket:
    addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if not _public(ipaddress.ip_address(address.partition("%")[0])):
            message = f"{host} resolves to a private address ({address})"
            raise InputError(message, hint="leave out --public-only to read from machines of your own network")
    return socket.create_connection((addresses[0], port), timeout)


def _public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the internet; one that stands for an IPv4 address (mapped, 6to4, NAT64) as that is."""
    if any(address in network for network in _LOCAL):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _EMBEDDED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None and address.teredo is not None:
            inner = address.teredo[1]
        if inner is not None:
            return _public(inner)
        if address not in _UNICAST:
            return False
    return address.is_global and not address.is_multicast
