"""What we tell of a template that names its models itself, and the cache that it asks for."""

from __future__ import annotations

from typing import Any

import pytest

from operator_shim.cluster import ApiError
from operator_shim.objects import Object, at, labels_of, uid_of
from tests.operator.cache_land import ONE, TWO, CacheLand, cache, land, made_by_users
from tests.operator.fakes import reasons

KINDS = ("AIMServiceTemplate", "AIMClusterServiceTemplate")
OURS = "aim-service-template-controller"


def template(spec: Object, kind: str = KINDS[0], **metadata: Any) -> Object:
    return made_by_users(kind, "qwen", {"modelName": "qwen", **spec}, **metadata)


def told_by(manager: str, *, of: str = "f:status") -> dict[str, Any]:
    fields: Object = {"f:status": {of: {}}}
    return {"managedFields": [{"manager": manager, "subresource": "status", "fieldsV1": fields}]}


def status(there: CacheLand) -> Object:
    (found,) = (*there.of_kind(KINDS[0]), *there.of_kind(KINDS[1]))
    return at(found, "status", {})  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_template_that_names_its_models_is_ready(kind: str) -> None:
    there = land(template({"modelSources": [ONE, TWO]}, kind))
    await there.look(kind=kind)
    assert status(there)["status"] == "Ready"
    assert status(there)["modelSources"] == [ONE, TWO]
    assert status(there)["observedGeneration"] == 1
    assert reasons(status(there)) == {
        "Discovered": "True InlineModelSources",
        "Ready": "True AllComponentsReady",
    }


@pytest.mark.parametrize(
    ("spec", "metadata"),
    [
        ({}, {}),
        ({"modelSources": []}, {}),
        ({"modelSources": [ONE]}, told_by("aim-engine")),
        ({}, told_by("aim-engine")),
        (
            {"modelSources": [ONE]},
            {"annotations": {"aim.eai.amd.com/reconciliation-paused": "true"}},
        ),
        ({"modelSources": [ONE]}, {"deletionTimestamp": "2026-01-31T10:00:00Z"}),
    ],
)
async def test_a_template_of_another_controller_is_not_touched(spec: Object, metadata: Any) -> None:
    there = land(template(spec, **metadata))
    await there.look(kind=KINDS[0])
    assert not there.writes
    assert not there.told


async def test_what_others_tell_beside_the_status_does_not_keep_us_from_it() -> None:
    there = land(template({"modelSources": [ONE]}, **told_by("tool", of="f:hardwareSummary")))
    await there.look(kind=KINDS[0])
    assert status(there)["status"] == "Ready"


@pytest.mark.parametrize(
    ("told", "is_ready"),
    [
        # AIM Engine's kind has Pending as a default: it goes to whoever writes anything beside it.
        (("f:status", "f:hardwareSummary"), True),
        (("f:status", "f:conditions"), False),
    ],
)
async def test_a_status_that_is_only_a_default_is_nobodys(
    told: tuple[str, ...], *, is_ready: bool
) -> None:
    fields: Object = {"f:status": {each: {} for each in told}}
    by = [{"manager": "tool", "subresource": "status", "fieldsV1": fields}]
    found = template({"modelSources": [ONE]}, managedFields=by)
    there = land(found | {"status": {"status": "Pending", "hardwareSummary": "8 x MI300X"}})
    await there.look(kind=KINDS[0])
    assert (status(there)["status"] == "Ready") is is_ready


async def test_what_another_tells_beside_us_is_left_to_it() -> None:
    there = land(template({"modelSources": [ONE]}))
    await there.look(kind=KINDS[0])
    (found,) = there.of_kind(KINDS[0])
    by = told_by(OURS)["managedFields"] + told_by("aim-engine")["managedFields"]
    found["metadata"] |= {"generation": 2, "managedFields": by}
    found["spec"]["modelSources"] = [TWO]
    await there.look(kind=KINDS[0])
    assert status(there)["modelSources"] == [ONE]


async def test_models_that_change_are_told() -> None:
    there = land(template({"modelSources": [ONE, TWO]}))
    await there.look(kind=KINDS[0])
    (found,) = there.of_kind(KINDS[0])
    found["spec"]["modelSources"] = [TWO]
    found["metadata"]["generation"] = 2
    await there.look(kind=KINDS[0])
    assert status(there)["modelSources"] == [TWO]


async def test_a_template_that_names_its_models_no_more_is_told_of_no_more() -> None:
    there = land(template({"modelSources": [ONE]}))
    await there.look(kind=KINDS[0])
    (found,) = there.of_kind(KINDS[0])
    found["spec"]["modelSources"] = []
    found["metadata"] |= {"generation": 2, **told_by(OURS)}
    await there.look(kind=KINDS[0])
    assert not status(there).get("modelSources")
    assert not status(there).get("status")


# -- its cache ---------------------------------------------------------------------------------


async def test_a_template_that_asks_for_a_cache_gets_one_that_it_controls() -> None:
    token = {"name": "HF_TOKEN", "value": "t"}
    spec = {"caching": {"enabled": True, "env": [token]}, "runtimeConfigName": "mine"}
    labels = {"aim.eai.amd.com/set": "a", "team": "b"}
    there = land(template(spec, labels=labels))
    await there.look(kind=KINDS[0])
    made = there.cache()
    assert made["spec"] == {
        "templateName": "qwen",
        "templateScope": "Namespace",
        "mode": "Shared",
        "env": [token],
        "runtimeConfigName": "mine",
    }
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (uid_of(there.of_kind(KINDS[0])[0]), True)
    assert labels_of(made) == {
        "aim.eai.amd.com/service-template.name": "qwen",
        "aim.eai.amd.com/set": "a",
        "app.kubernetes.io/managed-by": OURS,
    }
    assert [told[1] for told in there.told] == ["CacheCreated"]


async def test_the_cache_is_there_before_services_hear_that_the_template_is_ready() -> None:
    there = land(template({"modelSources": [ONE], "caching": {"enabled": True}}))
    written: list[str] = []
    there.refuse = lambda wanted: written.append(wanted["kind"])
    await there.look(kind=KINDS[0])
    assert written == ["AIMTemplateCache", KINDS[0], "Event"]


async def test_a_template_is_ready_though_its_cache_is_refused() -> None:
    there = land(template({"modelSources": [ONE], "caching": {"enabled": True}}))
    no = ApiError("cannot apply AIMTemplateCache", 403, "Forbidden", "exceeded quota: caches")
    there.refuse = lambda wanted: no if wanted["kind"] == "AIMTemplateCache" else None
    with pytest.raises(ApiError, match="exceeded quota"):
        await there.look(kind=KINDS[0])
    assert status(there)["status"] == "Ready"


@pytest.mark.parametrize(
    ("spec", "made"),
    [
        ({"caching": {"enabled": True}}, True),
        ({"caching": {"enabled": False}}, False),
        ({"caching": {}}, False),
        ({}, False),
    ],
)
async def test_no_cache_is_made_unless_it_is_asked_for(spec: Object, *, made: bool) -> None:
    there = land(template(spec))
    await there.look(kind=KINDS[0])
    assert bool(there.of_kind("AIMTemplateCache")) is made


@pytest.mark.parametrize(
    ("owner", "made"),
    [({"controller": True}, False), ({}, True)],
    ids=["it controls one already", "it owns one, which a service has made"],
)
async def test_one_cache_that_it_controls_is_enough(owner: Object, *, made: bool) -> None:
    reference = {"kind": KINDS[0], "name": "qwen", "uid": "t", **owner}
    there = land(
        template({"caching": {"enabled": True}}, uid="t"),
        cache("qwen-a04542d9", ownerReferences=[reference]),
    )
    await there.look(kind=KINDS[0])
    assert (len(there.of_kind("AIMTemplateCache")) == 2) is made


async def test_a_cache_of_that_name_that_is_somebody_elses_is_left_as_it_is() -> None:
    there = land(template({"caching": {"enabled": True}}), cache(template="other"))
    for _ in range(2):
        await there.look(kind=KINDS[0])
    assert not there.writes
    [(kind, reason, message)] = there.told
    assert (kind, reason) == ("Warning", "CacheNotMade")
    assert "AIMTemplateCache qwen is there already, of template other" in message


@pytest.mark.parametrize(
    ("scope", "is_told"), [("Namespace", False), (None, False), ("Cluster", True)]
)
async def test_a_cache_of_its_own_that_somebody_has_made_is_well(
    scope: str | None, *, is_told: bool
) -> None:
    theirs = cache(spec={"templateScope": scope})
    there = land(template({"caching": {"enabled": True}}), theirs)
    await there.look(kind=KINDS[0])
    assert bool(there.told) is is_told


async def test_a_cache_stays_when_it_is_no_longer_asked_for() -> None:
    there = land(template({"caching": {"enabled": True}}))
    await there.look(kind=KINDS[0])
    there.of_kind(KINDS[0])[0]["spec"]["caching"]["enabled"] = False
    await there.look(kind=KINDS[0])
    assert there.of_kind("AIMTemplateCache")


async def test_a_cluster_template_has_no_cache() -> None:
    there = land(template({"caching": {"enabled": True}}, KINDS[1]))
    await there.look(kind=KINDS[1])
    assert not there.of_kind("AIMTemplateCache")
