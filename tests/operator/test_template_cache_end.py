"""What stays and what goes when a template cache is deleted, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from operator_shim.cluster import ApiError
from operator_shim.finalizers import SOON_S
from operator_shim.keys import ARTIFACT, TEMPLATE_CACHE, Key
from operator_shim.objects import Object, at, is_deleted, name_of, timestamp
from tests.operator.cache_land import (
    HERE,
    ONE,
    CacheLand,
    artifact,
    cache,
    land,
    namespace,
    service_template,
)
from tests.operator.fakes import Killed

NAMESPACE = Key("Namespace", "", HERE)


def is_there(there: CacheLand, name: str = "qwen") -> bool:
    return Key(TEMPLATE_CACHE, HERE, name) in there.objects


@pytest.mark.parametrize(
    ("state", "stays"),
    [
        ("Ready", True),
        ("", False),
        ("Pending", False),
        ("Progressing", False),
        ("Degraded", False),
        ("NotAvailable", False),
        ("Failed", False),
    ],
)
async def test_models_that_are_there_stay_and_others_go(state: str, *, stays: bool) -> None:
    there = land(service_template(sources=[ONE]), cache())
    await there.look()
    if state:
        there.becomes("hf://org/one", state)
    there.ask_to_go()
    await there.look()
    assert bool(there.artifacts()) is stays
    assert not is_there(there)
    if not stays:
        assert there.told[-1][:2] == ("Normal", "ArtifactRemoved")


class Hasty(CacheLand):
    """While an artifact is listed for its end, it becomes Ready."""

    late = True

    async def listed(
        self, kind: str, namespace: str = "", selector: str = "", fields: str = ""
    ) -> list[Object]:
        found = await super().listed(kind, namespace, selector, fields)
        if kind == ARTIFACT and found and self.late and is_deleted(self.cache()):
            self.late = False
            self.becomes("hf://org/one", "Ready")
        return found


async def test_what_became_ready_at_the_last_moment_stays() -> None:
    there = Hasty()
    for each in (namespace(), service_template(sources=[ONE]), cache()):
        there.put(each)
    await there.look()
    there.ask_to_go()
    # It is found out, and looked at again.
    assert await there.look() == SOON_S
    await there.look()
    assert [at(each, "status.status") for each in there.artifacts().values()] == ["Ready"]
    assert not is_there(there)
    assert "ArtifactRemoved" not in [reason for _, reason, _ in there.told]


async def test_what_it_used_and_has_not_made_stays() -> None:
    there = land(
        service_template(sources=[ONE]), cache(), artifact("mine", "hf://org/one", "Progressing")
    )
    await there.look()
    there.ask_to_go()
    await there.look()
    assert [name_of(each) for each in there.of_kind("AIMArtifact")] == ["mine"]


async def test_what_a_cache_has_made_and_no_longer_lists_is_not_anothers_to_take() -> None:
    there = land(service_template(sources=[ONE]), cache(), cache("other"))
    await there.look()
    await there.look("other")
    # The one that has made it has found another, and does not wait for it any more.
    there.cache()["status"]["artifacts"] = {}
    there.ask_to_go("other")
    await there.look("other")
    assert there.artifacts()


async def test_what_belongs_to_somebody_else_by_now_stays() -> None:
    there = land(service_template(sources=[ONE]), cache())
    await there.look()
    owner = {"kind": "Other", "name": "o", "uid": "u", "controller": True}
    there.artifacts()["hf://org/one"]["metadata"]["ownerReferences"] = [owner]
    there.ask_to_go()
    await there.look()
    assert there.artifacts()


async def test_what_another_cache_waits_for_stays_until_that_one_goes() -> None:
    there = land(service_template(sources=[ONE]), cache(), cache("other"))
    await there.look()
    await there.look("other")
    there.ask_to_go()
    await there.look()
    assert there.artifacts()
    assert not is_there(there)
    there.ask_to_go("other")
    await there.look("other")
    assert not there.artifacts()


async def test_what_was_left_to_a_cache_goes_with_it_though_its_template_went_before() -> None:
    there = land(service_template(sources=[ONE]), cache(), cache("other"))
    await there.look()
    await there.look("other")
    there.ask_to_go()
    await there.look()
    there.remove("AIMServiceTemplate", HERE, "qwen")
    await there.look("other")
    there.ask_to_go("other")
    await there.look("other")
    assert not there.artifacts()


async def test_a_cache_that_goes_too_waits_for_nothing() -> None:
    there = land(service_template(sources=[ONE]), cache(), cache("other"))
    await there.look()
    await there.look("other")
    there.ask_to_go()
    there.ask_to_go("other")
    await there.look()
    assert not there.artifacts()


async def test_what_a_user_made_stays_though_a_cache_that_waits_for_it_goes() -> None:
    mine = artifact("mine", "hf://org/one", "Failed")
    mine["metadata"]["labels"] = {"aim.eai.amd.com/template-cache.name": "qwen-of-old"}
    there = land(service_template(sources=[ONE]), cache(), mine)
    await there.look()
    there.ask_to_go()
    await there.look()
    assert there.artifacts()


async def test_of_two_long_names_with_the_same_beginning_each_takes_its_own() -> None:
    long = "q" * 70
    there = land(
        service_template(sources=[ONE]),
        cache(f"{long}-a"),
        cache(f"{long}-b", spec={"env": [{"name": "HF_ENDPOINT", "value": "http://b"}]}),
    )
    for name in (f"{long}-a", f"{long}-b"):
        await there.look(name)
    assert len(there.of_kind("AIMArtifact")) == 2
    # It has not said yet what it waits for.
    there.cache(f"{long}-b")["status"] = {}
    there.ask_to_go(f"{long}-a")
    await there.look(f"{long}-a")
    (left,) = there.of_kind("AIMArtifact")
    assert at(left, "spec.env")


async def test_a_name_may_hold_what_a_label_may_not() -> None:
    name = "qwen.2.5-" + "x" * 100
    there = land(service_template(sources=[ONE]), cache(name))
    await there.look(name)
    there.ask_to_go(name)
    await there.look(name)
    assert not there.artifacts()


async def test_what_a_dedicated_cache_has_made_goes_with_it_ready_or_not() -> None:
    there = land(service_template(), cache(spec={"mode": "Dedicated"}))
    await there.look()
    there.becomes("hf://org/one", "Ready")
    there.ask_to_go()
    await there.look()
    assert not there.artifacts()


def ends(there: CacheLand) -> None:
    there.objects[NAMESPACE]["metadata"]["deletionTimestamp"] = timestamp(there.now)


def is_gone(there: CacheLand) -> None:
    del there.objects[NAMESPACE]


def is_unreadable(there: CacheLand) -> None:
    there.forbidden = {"Namespace"}


@pytest.mark.parametrize("namespace", [ends, is_gone, is_unreadable])
async def test_in_a_namespace_that_ends_nothing_is_cleaned_up_and_nothing_holds_it(
    namespace: Callable[[CacheLand], None],
) -> None:
    there = land()
    await there.look()
    there.ask_to_go()
    namespace(there)
    await there.look()
    assert len(there.artifacts()) == 2
    assert not is_there(there)


async def test_a_paused_cache_is_cleaned_up() -> None:
    there = land()
    await there.look()
    there.cache()["metadata"]["annotations"] = {"aim.eai.amd.com/reconciliation-paused": "true"}
    there.ask_to_go()
    await there.look()
    assert not there.artifacts()
    assert not is_there(there)


async def test_finalizers_of_others_are_left_and_nothing_is_done_twice() -> None:
    there = land(service_template(), cache(finalizers=["others.test/theirs"]))
    await there.look()
    there.ask_to_go()
    await there.look()
    assert there.cache()["metadata"]["finalizers"] == ["others.test/theirs"]
    writes = there.writes.total()
    await there.look()
    assert there.writes.total() == writes


class Vanishing(CacheLand):
    """Whose finalizers we are about to change is gone by then."""

    async def patch_finalizers(self, object_: Object, finalizers: Sequence[str]) -> Object:
        if is_there(self):
            self.remove(TEMPLATE_CACHE, HERE, "qwen")
        return await super().patch_finalizers(object_, finalizers)


@pytest.mark.parametrize("is_held", [True, False])
async def test_a_cache_that_is_gone_before_its_finalizers_are_changed_is_no_fault(
    *, is_held: bool
) -> None:
    there = Vanishing()
    there.put(namespace())
    there.put(cache(finalizers=["aim.eai.amd.com/artifactcleanup"] if is_held else []))
    if is_held:
        there.ask_to_go()
    assert await there.look() == SOON_S
    assert await there.look() is None
    assert not there.told


@pytest.mark.parametrize("verb", ["list", "delete"])
async def test_a_clean_up_that_is_refused_is_told_and_tried_again(verb: str) -> None:
    there = land()
    await there.look()
    there.ask_to_go()
    forbidden = there.forbidden if verb == "delete" else there.unlisted
    forbidden.add("AIMArtifact")
    with pytest.raises(ApiError):
        await there.look()
    assert is_there(there)
    assert there.told[-1][:2] == ("Warning", "CleanupFailed")
    forbidden.clear()
    await there.look()
    assert not is_there(there)


@pytest.mark.parametrize("writes", range(3))
async def test_killed_before_any_write_its_clean_up_comes_to_the_same_end(writes: int) -> None:
    there = land()
    await there.look()
    there.ask_to_go()
    there.writes_left = writes
    with pytest.raises(Killed):
        await there.look()
    there.writes_left = None
    await there.look()
    assert not is_there(there)
    assert not there.artifacts()
