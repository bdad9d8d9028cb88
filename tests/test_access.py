"""Local users: what [access] lets them do, and what a refusal says."""

import grp
import os

import pytest

from msgd.access import VERBS, Credentials, check, may
from msgd.commands import COMMANDS, SERVICE_COMMANDS
from msgd.config import Access
from msgd.errors import PermissionRefused

NOBODY = 65534
GROUP = grp.getgrgid(NOBODY).gr_name
NAME = "nobody"


def user(*gids: int, uid: int = NOBODY) -> Credentials:
    return Credentials(1, uid, frozenset(gids))


def refusal(who: Credentials, access: Access, verb: str) -> str:
    with pytest.raises(PermissionRefused) as caught:
        check(who, access, verb)
    return f"{caught.value.message} | {caught.value.hint}"


@pytest.mark.parametrize("verb", [*VERBS, "any"])
def test_root_and_the_daemons_own_user_may_do_everything(verb: str) -> None:
    """Whatever the rules say."""
    nobody_may = Access(send=(), history=(), pair=(), admin=())
    assert may(user(uid=0), nobody_may, verb)
    assert may(user(uid=os.geteuid()), nobody_may, verb)
    assert not may(user(), nobody_may, verb)


@pytest.mark.parametrize("rule", [NAME, f"%{GROUP}"])
def test_rule_is_for_its_verb_alone(rule: str) -> None:
    """A user by name, or by a supplementary group."""
    access = Access(send=(rule,))
    who = user(4711, NOBODY)
    assert ["send", "any"] == [verb for verb in (*VERBS, "any") if may(who, access, verb)]


def test_group_that_is_not_there_names_nobody() -> None:
    assert not may(user(NOBODY), Access(send=("%no-such-group",)), "send")


def test_refusal_names_user_verb_rule_and_way_out() -> None:
    """As configured; and where it is the default, that it is."""
    assert (
        f"User {NAME} may not read the history: access.history is %adm, eva (as configured). | As root: "
        f'`adduser {NAME} adm` and log in again; or add "{NAME}" to history under [access] in the '
        "configuration, then `msgctl reload`."
    ) == refusal(user(), Access(history=("%adm", "eva")), "history")
    assert "access.admin is %msgd (the default)" in refusal(user(), Access(), "admin")
    assert "access.pair is empty: only root (as configured). | As root: add" in refusal(
        user(), Access(pair=()), "pair"
    )


def test_user_without_any_verb_hears_all_rules() -> None:
    said = refusal(user(), Access(admin=("eva",)), "any")
    assert "may not use msgd here" in said
    assert all(f"access.{verb} is" in said for verb in VERBS)


def test_every_method_has_a_verb_and_the_description_is_public() -> None:
    """No method is forgotten."""
    assert {*VERBS, "any"} >= {command.verb for command in COMMANDS.values()}
    assert {""} == {command.verb for command in SERVICE_COMMANDS.values()}
