"""Frozen dataclasses that cost nothing to define.

``dataclasses`` generates and compiles the methods of each class when its module is imported, half a millisecond each.
For the hundred classes of this runtime that is more than all else that a short command does. Here all classes share
methods that look their fields up. In all else they are frozen dataclasses, also to what dataclasses has for instances.
"""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from typing import Any, TypeVar

    T = TypeVar("T")

MISSING = object()
_FIELDS = "__frozen_fields__"


class Field:
    """A field as a class has it: ``annotation`` is the text of its type, ``metadata`` what the class notes of it."""

    __slots__ = ("name", "annotation", "default", "default_factory", "repr", "kw_only", "metadata")

    def __init__(
        self, default: Any, default_factory: Any, repr: bool, kw_only: bool, metadata: Mapping[str, str]
    ) -> None:
        self.name = self.annotation = ""
        self.default, self.default_factory = default, default_factory
        self.repr, self.kw_only, self.metadata = repr, kw_only, metadata

    @property
    def required(self) -> bool:
        return self.default is MISSING and self.default_factory is MISSING


class _DataclassFields:
    """``__dataclass_fields__`` of a class, made by dataclasses from a twin when somebody asks for it."""

    def __get__(self, instance: object, kind: type) -> Any:
        import dataclasses

        twins: list[Any] = []
        for f in fields(kind):
            given = {"default": f.default, "default_factory": f.default_factory}
            given = {name: value for name, value in given.items() if value is not MISSING}
            twin = dataclasses.field(kw_only=f.kw_only, repr=f.repr, metadata=f.metadata, **given)
            twins.append((f.name, f.annotation, twin))
        found: Any = dataclasses.make_dataclass(kind.__name__, twins, frozen=True)
        return found.__dataclass_fields__


def fields(kind: type) -> tuple[Field, ...]:
    """The fields of a class, those of its bases first."""
    found: tuple[Field, ...] = getattr(kind, _FIELDS)
    return found


def is_frozen(kind: object) -> bool:
    """Whether it is one of these classes."""
    return isinstance(kind, type) and hasattr(kind, _FIELDS)


def replace(value: T, **changes: object) -> T:
    """A copy with other values in some fields."""
    return type(value)(**{**{f.name: getattr(value, f.name) for f in fields(type(value))}, **changes})


def as_dict(value: object) -> dict[str, object]:
    """The values by their fields' names, as they are."""
    return {f.name: getattr(value, f.name) for f in fields(type(value))}


def _collected(cls: type) -> tuple[Field, ...]:
    found = {f.name: f for base in reversed(cls.__bases__) for f in getattr(base, _FIELDS, ())}
    for name, annotation in cls.__dict__.get("__annotations__", {}).items():
        if annotation.startswith("ClassVar"):
            continue
        value = cls.__dict__.get(name, MISSING)
        own = value if isinstance(value, Field) else Field(value, MISSING, True, False, {})
        own.name, own.annotation = name, annotation
        if own.default is not MISSING:
            setattr(cls, name, own.default)
        elif value is not MISSING:
            delattr(cls, name)
        found[name] = own
    return tuple(found.values())


def _values_of(names: tuple[str, ...]) -> Callable[[Any], Any]:
    return attrgetter(*names) if names else lambda value: ()


def _initializer(own: tuple[Field, ...], after: Callable[[Any], None] | None) -> Callable[..., None]:
    names = tuple(f.name for f in own if not f.kw_only)
    defaults = {f.name: f.default for f in own if f.default is not MISSING}
    factories = [(f.name, f.default_factory) for f in own if f.default_factory is not MISSING]
    most, count = len(names), len(own)

    def __init__(self: Any, /, *arguments: object, **keywords: object) -> None:
        values = self.__dict__
        values.update(defaults)
        values.update(zip(names, arguments, strict=False))
        if keywords:
            values.update(keywords)
            if arguments and not keywords.keys().isdisjoint(names[: len(arguments)]):
                raise TypeError(f"{type(self).__name__}: a field is given twice")
        for name, factory in factories:
            if name not in values:
                values[name] = factory()
        if len(values) != count or len(arguments) > most:
            raise TypeError(f"{type(self).__name__}: the fields are {', '.join(f.name for f in own)}")
        if after:
            after(self)

    return __init__


def _eq(self: Any, other: Any) -> Any:
    if type(self) is not type(other):
        return NotImplemented
    values = type(self).__frozen_values__
    return bool(values(self) == values(other))


def _hash(self: Any) -> int:
    return hash(type(self).__frozen_values__(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(type(self)) if f.repr)
    return f"{type(self).__qualname__}({shown})"


def _setattr(self: Any, name: str, value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {"__eq__": _eq, "__hash__": _hash, "__repr__": _repr, "__setattr__": _setattr, "__delattr__": _delattr}

if not TYPE_CHECKING:

    def field(*, default=MISSING, default_factory=MISSING, repr=True, kw_only=False, metadata=None):
        """As of dataclasses."""
        return Field(default, default_factory, repr, kw_only, metadata or {})

    def dataclass(*, frozen):
        """As of dataclasses; they are all frozen."""

        def made(cls):
            own = _collected(cls)
            setattr(cls, _FIELDS, own)
            cls.__frozen_values__ = staticmethod(_values_of(tuple(f.name for f in own)))
            cls.__init__ = _initializer(own, getattr(cls, "__post_init__", None))
            cls.__match_args__ = tuple(f.name for f in own if not f.kw_only)
            cls.__dataclass_fields__ = _DataclassFields()
            for name, method in _METHODS.items():
                if name not in cls.__dict__ or name == "__hash__" and cls.__dict__[name] is None:
                    setattr(cls, name, method)
            return cls

        return made
