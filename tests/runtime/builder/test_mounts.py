"""What ``RUN --mount`` says, read and refused without a container."""

from __future__ import annotations

import pytest

from runtime.builder.mounts import RunMount, parse_mount, source_stage


def mount(text: str) -> RunMount:
    return parse_mount(text, lambda value: value.replace("$X", "x"))


def test_each_type_with_its_own_defaults() -> None:
    bind = mount("type=bind,from=build,src=/a,dst=/b")
    assert (bind.source_name, bind.source, bind.target, bind.read_only) == ("build", "/a", "/b", True)
    assert mount("target=/b").type == "bind" and not mount("target=/b,rw").read_only
    cache = mount('type=CACHE,"target=/a,b",sharing=locked,uid=5,mode=0700')
    assert (cache.id, cache.sharing, cache.uid, cache.mode, cache.read_only) == ("/a,b", "locked", 5, 0o700, False)
    assert mount("type=tmpfs,target=/t,size=64m").size_bytes == 64 << 20
    secret = mount("type=secret,target=/run/x/$X,required")
    assert (secret.id, secret.target, secret.required) == ("x", "/run/x/x", True)
    assert mount("type=secret,src=s,env=S").id == "s" and not mount("type=secret,id=a,required=false").required
    assert mount("type=ssh").id == "default"


def test_what_the_cache_of_steps_depends_on_has_one_order() -> None:
    assert mount("dst=/b,type=bind,src=a").key == mount("source=a,target=/b").key


def test_the_stage_of_a_mount_is_known_before_variables_are() -> None:
    assert source_stage("type=cache,from=a$X,target=/") == "a$X"
    assert source_stage('"') == source_stage("") == source_stage("target=/x") == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=volume,target=/x", "unknown type volume; known: bind, cache, secret, ssh, tmpfs"),
        ("type=bind", "a bind needs a target"),
        ("type=bind,target=", "a bind needs a target"),
        ("type=bind,target", "target needs a value"),
        ("type=bind,target=/x,size=3", "bind has no size"),
        ("type=tmpfs,target=/x,size=many", "size=many is no size"),
        ("type=cache,target=/x,sharing=none", "unknown sharing none"),
        ("type=cache,target=/x,mode=999", "mode=999 is no number in octal digits"),
        ("type=cache,target=/x,uid=4294967295", "uid=4294967295 is no number"),
        ("type=cache,target=/x,ro=perhaps", "readonly=perhaps is neither true nor false"),
        ("type=secret", "a secret needs an id"),
        ("type=secret,id=a,src=b", "either a source or an id"),
        ('type=bind,"target=/x', "unexpected end of data"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="--mount") as caught:
        mount(text)
    assert message in str(caught.value)
