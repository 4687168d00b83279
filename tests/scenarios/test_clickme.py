"""The clickme application itself: built from its Dockerfiles, and answering as compose.yaml says it will."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import container
from runtime.builder.build import build
from runtime.home import store_root
from runtime.images.model import Image
from runtime.images.process import image_process
from runtime.images.store import Store
from runtime.spec import Spec

pytestmark = [pytest.mark.root, pytest.mark.network]

FOLDER = Path(__file__).parents[2] / "scenarios" / "clickme"

# Runs in one container that has both services' layers and no network but its own loopback.
SCRIPT = """
require 'net/http'
web = URI('http://127.0.0.1:8080')
puma = spawn('puma', '--quiet', '--config', 'puma.rb', 'config.ru', out: '/dev/null')
answer = lambda do |request|
  Net::HTTP.start(web.host, web.port) { |http| http.request(request) }
rescue Errno::ECONNREFUSED
  sleep 0.02
  retry
end
get = ->(path) { answer.call(Net::HTTP::Get.new(path)) }
click = ->(headers = {}) { answer.call(Net::HTTP::Post.new('/click', headers)) }
without = get.call('/health')
puts "without redis: #{without.code}"
redis = spawn('redis-server', '--save', '', out: '/dev/null')
sleep 0.02 until (health = get.call('/health')).code == '200'
puts "health: #{health.body}"
2.times { puts "click: #{click.call.body}" }
browser = click.call('Accept' => 'text/html')
puts "browser: #{browser.code} #{URI(browser['Location']).path}"
puts "page: #{get.call('/').body[/<button.*button>/]} #{get.call('/').body[/<strong.*strong>/]}"
Process.kill('TERM', redis)
Process.wait(redis)
puts "redis gone: #{click.call.code}"
Process.kill('TERM', puma)
"""


def image(service: str) -> Image:
    folder = FOLDER / service
    return build(
        Store(store_root() / "images"),
        context=folder,
        dockerfile=folder / "Dockerfile",
        reference=f"clickme/{service}",
        progress=print,
    )


def test_it_counts_clicks_and_says_when_it_cannot(cgroup_parent: str, tmp_path: Path) -> None:
    web, redis = image("web"), image("redis")
    assert web.layers[0] == redis.layers[0], "both services stand on the same base"
    process = image_process(web, entrypoint=("ruby", "-e", SCRIPT), environment={"REDIS_URL": "redis://127.0.0.1:6379"})
    layers = tuple(str(layer.path) for layer in (*web.layers, *redis.layers[1:]))
    log = tmp_path / "log"
    with log.open("wb") as file:
        status = container.run(Spec(process, layers, "clickme"), name=f"{cgroup_parent}/clickme", log=file.fileno())
    assert status == 0, log.read_text()
    assert log.read_text().splitlines()[-7:] == [
        "without redis: 503",
        "health: ok",
        "click: 1",
        "click: 2",
        "browser: 303 /",
        'page: <button type="submit">Click me</button> <strong id="clicks">3</strong>',
        "redis gone: 503",
    ]


@pytest.mark.parametrize(("service", "user"), [("web", "clickme"), ("redis", "redis")])
def test_neither_service_runs_as_root(service: str, user: str) -> None:
    built = image(service)
    process = image_process(built, environment={})
    assert built.config.user == user
    assert process.user.uid > 0
