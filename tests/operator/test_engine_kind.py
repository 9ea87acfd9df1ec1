"""AIM Engine's own kind AIMArtifact: what it does not know is told by annotations, and not lost."""

from __future__ import annotations

import json

from operator_shim.access import Access
from operator_shim.objects import at
from operator_shim.order import ENGINE_IMAGE
from tests.cluster.artifacts import AIM_ENGINE, artifact, artifacts
from tests.cluster.client import Cluster
from tests.operator.fake_node import OPTIONS, FakeNode, Operator, OperatorsDoor, is_ready


async def test_under_aim_engines_own_kind_extensions_are_annotations(
    control_plane: Cluster,
) -> None:
    access = await Access.load(str(control_plane.kubeconfig))
    with artifacts(control_plane, AIM_ENGINE) as space:
        demo = artifact("demo") | {"spec": {"sourceUri": "hf://org/model", "shards": 9}}
        demo["metadata"]["annotations"] = {
            "aim.eai.amd.com/shards": "2",
            "aim.eai.amd.com/access-mode": "ReadWriteMany",
            "aim.eai.amd.com/resources": '{"requests": {"cpu": "2"}}',
        }
        space.kubectl("create", "--validate=false", "-f", "-", input=json.dumps(demo))
        node = FakeNode(space)
        async with OperatorsDoor(access) as door:
            operator = Operator(door, space)
            await operator.until(is_ready, node.work)
            writes = door.writes.total()
            for _ in range(3):
                await operator.look()
            assert door.writes.total() == writes
        # What AIM Engine's kind fills in counts as nobody's wish.
        assert operator.artifact["spec"]["modelDownloadImage"] == ENGINE_IMAGE
        job = next(each for each in space.listed("jobs") if at(each, "spec.completions") == 2)
        container = at(job, "spec.template.spec.containers")[0]
        assert container["image"] == OPTIONS.default_download_image
        assert container["resources"] == {"requests": {"cpu": "2"}}
        node.clear()
