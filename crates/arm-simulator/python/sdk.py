"""Upgrades the mesh of the simulated cluster with the Azure SDK for Python, and says what it saw.

Everything it needs comes from the environment; the last line of its output is JSON. With arguments it sets the revisions of
the mesh to these and nothing else.
"""

import json
import os
import sys
import time

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError
from azure.identity import ClientAssertionCredential
from azure.mgmt.containerservice import ContainerServiceClient

BASE = os.environ["SIM_BASE_URL"]
GROUP, NAME = os.environ["SIM_GROUP"], os.environ["SIM_CLUSTER"]
SEEN = {}


def client():
    """The real client, signed in with a federated token."""
    credential = ClientAssertionCredential(
        os.environ["SIM_TENANT"],
        os.environ["SIM_CLIENT"],
        func=lambda: os.environ["SIM_FEDERATED_TOKEN"],
        authority=BASE,
        disable_instance_discovery=True,
    )
    return ContainerServiceClient(
        credential,
        os.environ["SIM_SUBSCRIPTION"],
        base_url=BASE,
        credential_scopes=["https://management.azure.com/.default"],
        polling_interval=0.05,
        # What the server answers must reach us as it is.
        retry_total=0,
    )


def put(clusters, change):
    """A full PUT of what a GET answered, with the eTag of that GET."""
    cluster = clusters.get(GROUP, NAME)
    istio = cluster.service_mesh_profile.istio
    istio.revisions = change(list(istio.revisions))
    poller = clusters.begin_create_or_update(
        GROUP, NAME, cluster, etag=cluster.e_tag, match_condition=MatchConditions.IfNotModified
    )
    result = poller.result()
    assert poller.status() == "Succeeded", poller.status()
    assert result.provisioning_state == "Succeeded", result.provisioning_state
    assert result.e_tag != cluster.e_tag, "the eTag did not change"
    return list(result.service_mesh_profile.istio.revisions)


def refused(act):
    """Status and code of the error that this ends with."""
    try:
        act()
    except HttpResponseError as error:
        code = error.error.code if error.error else None
        return [error.status_code, code, error.message]
    raise AssertionError("nothing was refused")


def main():
    """Everything in the order of an upgrade that is taken back once."""
    clusters = client().managed_clusters
    location = clusters.get(GROUP, NAME).location
    offered = clusters.get_mesh_revision_profile(location, "istio").properties.mesh_revisions
    SEEN["offered"] = {item.revision: item.upgrades for item in offered}
    SEEN["compatible"] = offered[0].compatible_with[0].name
    [profile] = clusters.list_mesh_upgrade_profiles(GROUP, NAME)
    SEEN["upgrades"] = [profile.properties.revision, profile.properties.upgrades]

    SEEN["started"] = put(clusters, lambda revisions: [*revisions, "asm-1-29"])
    SEEN["during"] = refused(lambda: list(clusters.list_mesh_upgrade_profiles(GROUP, NAME)))
    SEEN["rolled_back"] = put(clusters, lambda revisions: [r for r in revisions if r != "asm-1-29"])
    SEEN["started_again"] = put(clusters, lambda revisions: [*revisions, "asm-1-28"])
    SEEN["completed"] = put(clusters, lambda revisions: [r for r in revisions if r != "asm-1-27"])
    SEEN["swap"] = refused(lambda: put(clusters, lambda revisions: ["asm-1-29"]))

    stale = clusters.get(GROUP, NAME)
    stale.e_tag = "somebody-elses"
    try:
        clusters.begin_create_or_update(
            GROUP, NAME, stale, etag=stale.e_tag, match_condition=MatchConditions.IfNotModified
        )
        raise AssertionError("a stale eTag was accepted")
    except ResourceModifiedError as error:
        SEEN["stale"] = [error.status_code, error.error.code]
    # Planted for this PUT, the seventh: its operation fails.
    SEEN["failed"] = refused(lambda: put(clusters, lambda revisions: [*revisions, "asm-1-29"]))
    SEEN["missing"] = refused(lambda: clusters.get(GROUP, "nobody"))[:2]


BEGUN = time.monotonic()
if wanted := sys.argv[1:]:
    SEEN["revisions"] = put(client().managed_clusters, lambda _: wanted)
else:
    main()
SEEN["seconds"] = round(time.monotonic() - BEGUN, 2)
print(json.dumps(SEEN))
