"""The plan's path, unmodified, applied on an emulator of EKS beside a cluster and its network; read back, destroyed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from inferdock.app.render import merged
from tests.support.chart import COMBINATIONS, chart_objects
from tests.support.kubernetes_checks import engines
from tests.support.kubernetes_pod_checks import pods_fit_on_their_nodes
from tests.support.terraform import Terraform, initialised
from tests.terraform.emulator import REGION, Emulator, running_emulator
from tests.terraform.test_nodegroup import FOLDER

pytestmark = pytest.mark.timeout(400)

CLUSTER = "prod"
VERSION = "1.33"
CAPACITY, INSTANCE = "eks.amazonaws.com/capacityType", "node.kubernetes.io/instance-type"
"""Labels that nodes get from EKS and from the kubelet."""
EFFECTS = {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute"}
TEMPLATE_TAG = "k8s.io/cluster-autoscaler/node-template/"


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What was made.

    Attributes:
        words: variables, for further commands.
        groups: node groups as EKS describes them, by name.
    """

    terraform: Terraform
    emulator: Emulator
    words: tuple[str, ...]
    groups: dict[str, dict[str, Any]]
    outputs: dict[str, Any]


def network_and_cluster(emulator: Emulator) -> list[str]:
    """What is there before: a network of two zones, and a cluster in it; its subnets."""
    ec2, eks = emulator.client("ec2"), emulator.client("eks")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"][
            "SubnetId"
        ]
        for number, zone in enumerate("ab")
    ]
    role = "arn:aws:iam::123456789012:role/cluster"
    eks.create_cluster(name=CLUSTER, version=VERSION, roleArn=role, resourcesVpcConfig={"subnetIds": subnets})
    return subnets


def groups_of(emulator: Emulator) -> dict[str, dict[str, Any]]:
    eks = emulator.client("eks")
    names = eks.list_nodegroups(clusterName=CLUSTER)["nodegroups"]
    return {name: eks.describe_nodegroup(clusterName=CLUSTER, nodegroupName=name)["nodegroup"] for name in names}


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    """The default groups; at the end destroyed, with nothing left."""
    folder = tmp_path_factory.mktemp("nodes")
    root = initialised(FOLDER, folder)
    with running_emulator(folder, "tests.terraform.eks_emulator") as emulator:
        subnets = ",".join(f'"{subnet}"' for subnet in network_and_cluster(emulator))
        words = (f"-var=cluster_name={CLUSTER}", f"-var=subnet_ids=[{subnets}]", '-var=tags={"Team":"ml"}')
        here = root.of_copy(folder / "applied", **emulator.environment)
        here.apply(*words)
        yield Applied(
            terraform=here, emulator=emulator, words=words, groups=groups_of(emulator), outputs=here.outputs()
        )
        here.destroy(*words)
        assert groups_of(emulator) == {}
        assert emulator.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"] == []
        assert emulator.client("ec2").describe_launch_templates()["LaunchTemplates"] == []
        assert emulator.client("iam").list_roles()["Roles"] == []


def test_a_second_plan_finds_nothing_to_change(applied: Applied):
    applied.terraform.run("plan", "-detailed-exitcode", "-input=false", "-no-color", *applied.words, expect=[0])


def test_spot_and_on_demand_groups_are_there(applied: Applied):
    capacity = {name: group["capacityType"] for name, group in applied.groups.items()}
    assert capacity == {"gpu-spot": "SPOT", "gpu-spot-g6": "SPOT", "gpu-on-demand": "ON_DEMAND"}


def test_labels_are_those_of_the_plan_and_say_which_card_it_is(applied: Applied):
    labels = {name: group["labels"] for name, group in applied.groups.items()}
    assert {name: each["node.kubernetes.io/lifecycle"] for name, each in labels.items()} == {
        "gpu-spot": "spot",
        "gpu-spot-g6": "spot",
        "gpu-on-demand": "on-demand",
    }
    assert {each["nvidia.com/gpu"] for each in labels.values()} == {"true"}
    assert labels["gpu-spot-g6"]["k8s.amazonaws.com/accelerator"] == "nvidia-l4"


def test_taints_keep_other_pods_away(applied: Applied):
    gpu = {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}
    spot = {"key": "spot", "value": "true", "effect": "NO_SCHEDULE"}
    taints = {name: sorted(group["taints"], key=lambda taint: taint["key"]) for name, group in applied.groups.items()}
    assert taints == {"gpu-spot": [gpu, spot], "gpu-spot-g6": [gpu, spot], "gpu-on-demand": [gpu]}


def test_image_instances_sizes_and_updates_are_as_asked(applied: Applied):
    spot = applied.groups["gpu-spot"]
    assert {group["amiType"] for group in applied.groups.values()} == {"AL2023_x86_64_NVIDIA"}
    assert spot["instanceTypes"] == ["g5.xlarge", "g5.2xlarge"]
    assert spot["scalingConfig"] == {"minSize": 1, "maxSize": 10, "desiredSize": 2}
    assert spot["updateConfig"] == {"maxUnavailable": 1}
    assert spot["tags"]["Team"] == "ml"


def test_disks_and_metadata_are_those_of_the_template(applied: Applied):
    ec2 = applied.emulator.client("ec2")
    for group in applied.groups.values():
        template = group["launchTemplate"]
        found = ec2.describe_launch_template_versions(
            LaunchTemplateId=template["id"], Versions=[str(template["version"])]
        )
        data = found["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        disk = data["BlockDeviceMappings"][0]
        assert (disk["DeviceName"], disk["Ebs"]["VolumeSize"], disk["Ebs"]["VolumeType"]) == ("/dev/xvda", 200, "gp3")
        assert disk["Ebs"]["Encrypted"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == 1


def test_the_role_is_for_instances_and_has_three_policies(applied: Applied):
    iam, name = applied.emulator.client("iam"), "prod-gpu-nodes"
    role = iam.get_role(RoleName=name)["Role"]
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert {policy["PolicyName"] for policy in attached} == {
        "AmazonEKSWorkerNodePolicy",
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonEKS_CNI_Policy",
    }
    assert {group["nodeRole"] for group in applied.groups.values()} == {role["Arn"]}


def test_the_autoscaler_can_read_labels_and_taints_of_empty_groups(applied: Applied):
    found = applied.emulator.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    tags = {each["AutoScalingGroupName"]: {tag["Key"]: tag["Value"] for tag in each["Tags"]} for each in found}
    for group in applied.groups.values():
        here = tags[group["resources"]["autoScalingGroups"][0]["name"]]
        assert here[f"{TEMPLATE_TAG}label/eks.amazonaws.com/capacityType"] == group["capacityType"]
        assert {key: here[f"{TEMPLATE_TAG}label/{key}"] for key in group["labels"]} == group["labels"]
        assert {here[f"{TEMPLATE_TAG}taint/{taint['key']}"] for taint in group["taints"]} == {"true:NoSchedule"}


def test_nodes_that_the_autoscaler_added_stay(applied: Applied):
    eks = applied.emulator.client("eks")
    grown = {"minSize": 1, "maxSize": 10, "desiredSize": 7}
    eks.update_nodegroup_config(clusterName=CLUSTER, nodegroupName="gpu-spot", scalingConfig=grown)
    applied.terraform.run("plan", "-detailed-exitcode", "-input=false", "-no-color", *applied.words, expect=[0])


def test_outputs_are_what_is_there(applied: Applied):
    for name, made in applied.outputs["node_groups"].items():
        group = applied.groups[name]
        assert made["arn"] == group["nodegroupArn"]
        assert made["labels"] == group["labels"]
        assert made["autoscaling_group"] == group["resources"]["autoScalingGroups"][0]["name"]


def bears(template: dict[str, Any], taint: dict[str, str]) -> bool:
    """Whether a pod tolerates a taint of a node group."""
    return any(
        each.get("key") == taint["key"]
        and (each["operator"] == "Exists" or each.get("value") == taint["value"])
        and each["effect"] == EFFECTS[taint["effect"]]
        for each in template["spec"]["tolerations"]
    )


def wants(template: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a node's labels are what a pod's affinity requires; all terms here are of the operator In."""
    affinity = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return any(
        all(labels.get(one["key"]) in one["values"] for one in term["matchExpressions"])
        for term in affinity["nodeSelectorTerms"]
    )


def places(template: dict[str, Any], groups: dict[str, dict[str, Any]]) -> set[str]:
    """Groups that may take a pod, whichever of their instances EC2 starts."""
    return {
        name
        for name, group in groups.items()
        if all(bears(template, taint) for taint in group["taints"])
        and all(
            wants(template, group["labels"] | {CAPACITY: group["capacityType"], INSTANCE: kind})
            for kind in group["instanceTypes"]
        )
    }


def test_pods_of_the_chart_find_their_nodes(applied: Applied):
    values = merged(COMBINATIONS["prod"], yaml.safe_load(applied.outputs["helm_values"]))
    everything = chart_objects(values)
    found = [template for _, template, _ in engines(everything)]
    by_place = {
        template["metadata"]["labels"]["inferdock.io/capacity"]: places(template, applied.groups) for template in found
    }
    assert by_place == {"any": set(applied.groups), "on-demand": {"gpu-on-demand"}}
    assert list(pods_fit_on_their_nodes(everything)) == []
