"""What VirtualBox's statistics say of a guest's pages."""

from __future__ import annotations

import pytest

from runtime.errors import TestbedError
from testbed.virtualbox.meter import parse_pages

# As VirtualBox 7.2 writes it.
SAID = """<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<Statistics>
<U64 val="36958" unit="pages" name="/GMM/VM/Allocated/cBasePages"/>
<U32 val="2" unit="pages" name="/GMM/VM/Allocated/cFixedPages"/>
<U32 val="0" unit="pages" name="/GMM/VM/Allocated/cShadowPages"/>
</Statistics>
"""


def test_all_that_is_allocated_is_counted() -> None:
    assert parse_pages(SAID) == 36960


@pytest.mark.parametrize("said", ["", "<Statistics>", "<Statistics/>", SAID.replace("36958", "many")])
def test_what_says_nothing_of_pages_is_no_number(said: str) -> None:
    with pytest.raises(TestbedError, match="name no pages"):
        parse_pages(said)
