from __future__ import annotations

import pytest

from runtime.errors import UsageError
from runtime.registry.proxies import Proxy, parse, proxy_for


def test_the_environment_names_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_for("https://a.example/") is None
    monkeypatch.setenv("https_proxy", "http://u:p%40@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inner.example,b.example:5000")
    assert proxy_for("https://a.example/") == Proxy("proxy.example", 3128, "Basic dTpwQA==")
    assert proxy_for("http://a.example/") is None
    for address in (
        "https://x.inner.example/",
        "https://b.example:5000/",
        "https://127.0.0.1:5/",
        "https://localhost/",
    ):
        assert proxy_for(address) is None
    monkeypatch.setenv("all_proxy", "other.example")
    assert proxy_for("http://a.example/") == Proxy("other.example", 80)


@pytest.mark.parametrize("text", ["socks5://a:1", "https://a", "http://", "http://a:x"])
def test_another_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(UsageError, match="only proxies of HTTP"):
        parse(text)
