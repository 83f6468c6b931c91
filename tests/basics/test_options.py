"""Options without effect are refused by name."""

import pytest

from basics.errors import UserError
from basics.options import refuse_unused_options


def test_the_first_option_without_effect_is_named() -> None:
    refuse_unused_options([], "with plain")
    with pytest.raises(UserError, match=r"^The option --step-size changes nothing with plain; leave it out\.$"):
        refuse_unused_options(["step_size", "eps"], "with plain")
