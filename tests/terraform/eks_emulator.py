"""moto's server, with what it does otherwise than EKS put right. Run as a program, with moto's own arguments.

moto 5.2 makes up an SSH key for groups that have none, drops how a group is to be updated, gives nodes Kubernetes
1.19, names an autoscaling group that is nowhere, and takes a launch template's own tags for tags of what it launches.
With that, every second plan would want to replace all groups, and no tag could be set.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from moto.autoscaling.models import autoscaling_backends
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.eks.models import EKSBackend, Nodegroup
from moto.eks.responses import EKSResponse
from moto.server import main

DEFAULT_UPDATE = {"maxUnavailable": 1}

create_nodegroup = EKSBackend.create_nodegroup
delete_nodegroup = EKSBackend.delete_nodegroup
answer_create = EKSResponse.create_nodegroup
create_template = LaunchTemplateBackend.create_launch_template


def true_create(self: EKSBackend, *args: Any, **words: Any) -> Nodegroup:
    """As moto, without what it makes up, and with an autoscaling group."""
    group = create_nodegroup(self, *args, **words)
    group.remote_access = words.get("remote_access")
    if not words.get("version"):
        group.version = self.clusters[group.cluster_name].version
    autoscaling = autoscaling_backends[self.account_id][self.region_name]
    autoscaling.create_auto_scaling_group(
        name=name_of_autoscaling_group(group),
        availability_zones=[f"{self.region_name}a"],
        desired_capacity=0,
        min_size=0,
        max_size=group.scaling_config["maxSize"],
        launch_config_name=None,
        launch_template={
            "LaunchTemplateId": group.launch_template["id"],
            "Version": group.launch_template["version"],
        },
        vpc_zone_identifier=None,
        default_cooldown=None,
        health_check_period=None,
        health_check_type=None,
        load_balancers=[],
        target_group_arns=[],
        placement_group=None,
        termination_policies=[],
        tags=[],
        capacity_rebalance=group.capacity_type == "SPOT",
    )
    return group


def true_delete(self: EKSBackend, cluster_name: str, nodegroup_name: str) -> Nodegroup:
    """As moto; the autoscaling group goes too."""
    group = delete_nodegroup(self, cluster_name, nodegroup_name)
    autoscaling_backends[self.account_id][self.region_name].autoscaling_groups.pop(name_of_autoscaling_group(group))
    return group


def true_answer(self: EKSResponse) -> Any:
    """As moto, with the group's way of updating."""
    answer = answer_create(self)
    group = self.eks_backend.describe_nodegroup(self._get_param("name"), self._get_param("nodegroupName"))
    group.update_config = self._get_param("updateConfig") or DEFAULT_UPDATE
    return answer


def true_template(self: LaunchTemplateBackend, name: str, description: str, data: dict[str, Any], tags: Any) -> Any:
    """As moto; the tags of the template are not in what it says of instances."""
    given = data.get("TagSpecifications", [])
    data["TagSpecifications"] = [each for each in given if each["ResourceType"] != "launch-template"]
    return create_template(self, name, description, data, tags)


def name_of_autoscaling_group(group: Nodegroup) -> str:
    return group.resources["autoScalingGroups"][0]["name"]


if __name__ == "__main__":
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    EKSBackend.create_nodegroup = true_create
    EKSBackend.delete_nodegroup = true_delete
    EKSResponse.create_nodegroup = true_answer
    LaunchTemplateBackend.create_launch_template = true_template
    main(sys.argv[1:])
