# What the module promises, checked with a provider that makes nothing (terraform test).

mock_provider "aws" {
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/nodes" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 3 }
  }
  mock_resource "aws_eks_node_group" {
    defaults = {
      arn       = "arn:aws:eks:eu-west-1:123456789012:nodegroup/c/g/1"
      resources = [{ autoscaling_groups = [{ name = "eks-some" }], remote_access_security_group_id = "" }]
    }
  }
}

variables {
  cluster_name = "prod"
  subnet_ids   = ["subnet-0a", "subnet-0b"]
}

run "by_default_there_are_spot_groups_and_an_on_demand_floor" {
  assert {
    condition     = { for name, group in aws_eks_node_group.gpu : name => group.capacity_type } == { gpu-spot = "SPOT", gpu-spot-g6 = "SPOT", gpu-on-demand = "ON_DEMAND" }
    error_message = "The plan's group, one of another card, and one that nobody takes back."
  }
  assert {
    condition     = aws_eks_node_group.gpu["gpu-spot"].scaling_config[0] == { min_size = 1, max_size = 10, desired_size = 2 }
    error_message = "The sizes are those of the plan."
  }
  assert {
    condition     = alltrue([for group in aws_eks_node_group.gpu : group.ami_type == "AL2023_x86_64_NVIDIA"])
    error_message = "The image has a driver."
  }
  assert {
    condition     = alltrue([for group in aws_eks_node_group.gpu : one(group.update_config).max_unavailable == 1 && !coalesce(group.force_update_version, false)])
    error_message = "Updates take one node at a time and kill nothing."
  }
}

run "every_node_keeps_other_pods_away_and_spot_nodes_those_that_bear_no_interruption" {
  assert {
    condition = toset([for taint in aws_eks_node_group.gpu["gpu-spot"].taint : "${taint.key}=${taint.value}:${taint.effect}"]) == toset([
      "nvidia.com/gpu=true:NO_SCHEDULE", "spot=true:NO_SCHEDULE",
    ])
    error_message = "Spot nodes have both taints."
  }
  assert {
    condition     = [for taint in aws_eks_node_group.gpu["gpu-on-demand"].taint : taint.key] == ["nvidia.com/gpu"]
    error_message = "On-demand nodes have that of the GPU alone."
  }
}

run "labels_say_how_a_node_is_paid_and_which_card_it_has" {
  assert {
    condition = aws_eks_node_group.gpu["gpu-spot"].labels == tomap({
      "node.kubernetes.io/lifecycle"  = "spot"
      "nvidia.com/gpu"                = "true"
      "nvidia.com/gpu.present"        = "true"
      "k8s.amazonaws.com/accelerator" = "nvidia-a10g"
    })
    error_message = "The plan's labels, the device plugin's and the autoscaler's."
  }
  assert {
    condition     = aws_eks_node_group.gpu["gpu-on-demand"].labels["node.kubernetes.io/lifecycle"] == "on-demand"
    error_message = "On-demand nodes say so."
  }
}

run "disks_are_large_and_encrypted_and_metadata_ask_for_a_token" {
  assert {
    condition = alltrue([for template in aws_launch_template.gpu :
      one(template.block_device_mappings).device_name == "/dev/xvda" &&
      one(one(template.block_device_mappings).ebs).volume_size == 200 &&
      one(one(template.block_device_mappings).ebs).volume_type == "gp3" &&
      tobool(one(one(template.block_device_mappings).ebs).encrypted)
    ])
    error_message = "20 GiB, the default of EKS, do not hold the image."
  }
  assert {
    condition = alltrue([for template in aws_launch_template.gpu :
      one(template.metadata_options).http_tokens == "required" && one(template.metadata_options).http_put_response_hop_limit == 1
    ])
    error_message = "IMDSv2 only, and not for pods."
  }
  assert {
    condition     = alltrue([for name, group in aws_eks_node_group.gpu : one(group.launch_template).version == "3"])
    error_message = "A group follows its template."
  }
  assert {
    condition     = alltrue([for template in aws_launch_template.gpu : length(coalesce(template.vpc_security_group_ids, [])) == 0])
    error_message = "Without others, nodes get the cluster's own security group."
  }
}

run "bottlerocket_keeps_images_on_its_second_disk" {
  variables {
    ami_type = "BOTTLEROCKET_x86_64_NVIDIA"
    disk_gib = 300
  }

  assert {
    condition     = one(aws_launch_template.gpu["gpu-spot"].block_device_mappings).device_name == "/dev/xvdb"
    error_message = "The first disk is the system's."
  }
  assert {
    condition     = one(one(aws_launch_template.gpu["gpu-spot"].block_device_mappings).ebs).volume_size == 300
    error_message = "The size is the one asked for."
  }
}

run "the_role_has_what_kubelets_need_and_no_more" {
  assert {
    condition     = toset(keys(aws_iam_role_policy_attachment.nodes)) == toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonEKS_CNI_Policy"])
    error_message = "Join the cluster, pull images, give addresses."
  }
  assert {
    condition     = jsondecode(aws_iam_role.nodes[0].assume_role_policy).Statement[0].Principal == { Service = "ec2.amazonaws.com" }
    error_message = "Only instances have the role."
  }
  assert {
    condition     = aws_iam_role.nodes[0].name == "prod-gpu-nodes" && output.node_role_name == "prod-gpu-nodes"
    error_message = "The role is named after the cluster."
  }
}

run "rights_can_be_added_and_taken" {
  variables {
    attach_cni_policy = false
    session_manager   = true
    policy_arns       = { models = "arn:aws:iam::123456789012:policy/inferdock-registry-prod-pull" }
    node_role_name    = "nodes-of-prod"
  }

  assert {
    condition     = toset(keys(aws_iam_role_policy_attachment.nodes)) == toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly", "AmazonSSMManagedInstanceCore", "models"])
    error_message = "The policies are those that were asked for."
  }
}

run "a_role_that_exists_is_used_as_it_is" {
  variables {
    create_node_role = false
    node_role_arn    = "arn:aws:iam::123456789012:role/mine"
  }

  assert {
    condition     = length(aws_iam_role.nodes) + length(aws_iam_role_policy_attachment.nodes) == 0
    error_message = "Nothing is made or attached."
  }
  assert {
    condition     = alltrue([for group in aws_eks_node_group.gpu : group.node_role_arn == "arn:aws:iam::123456789012:role/mine"])
    error_message = "The groups have the given role."
  }
}

run "the_autoscaler_knows_nodes_of_an_empty_group" {
  assert {
    condition = { for key, tag in aws_autoscaling_group_tag.template : tag.tag[0].key => tag.tag[0].value if startswith(key, "gpu-spot-g6 ") } == {
      "k8s.io/cluster-autoscaler/node-template/label/node.kubernetes.io/lifecycle"   = "spot"
      "k8s.io/cluster-autoscaler/node-template/label/nvidia.com/gpu"                 = "true"
      "k8s.io/cluster-autoscaler/node-template/label/nvidia.com/gpu.present"         = "true"
      "k8s.io/cluster-autoscaler/node-template/label/k8s.amazonaws.com/accelerator"  = "nvidia-l4"
      "k8s.io/cluster-autoscaler/node-template/label/eks.amazonaws.com/capacityType" = "SPOT"
      "k8s.io/cluster-autoscaler/node-template/taint/nvidia.com/gpu"                 = "true:NoSchedule"
      "k8s.io/cluster-autoscaler/node-template/taint/spot"                           = "true:NoSchedule"
      "k8s.io/cluster-autoscaler/node-template/resources/ephemeral-storage"          = "200Gi"
    }
    error_message = "Labels, taints and the disk are tags of the autoscaling group."
  }
  assert {
    condition     = alltrue([for tag in aws_autoscaling_group_tag.template : tag.autoscaling_group_name == "eks-some" && !tag.tag[0].propagate_at_launch])
    error_message = "The tags are the group's, not the instances'."
  }
}

run "without_an_autoscaler_there_are_no_such_tags" {
  variables {
    autoscaler_tags = false
  }

  assert {
    condition     = length(aws_autoscaling_group_tag.template) == 0
    error_message = "Karpenter needs none."
  }
}

run "groups_have_labels_taints_and_subnets_of_their_own" {
  variables {
    tags = { Team = "ml", Cluster = "overruled" }
    node_groups = {
      big = {
        instance_types = ["g6e.12xlarge"]
        max_size       = 2
        subnet_ids     = ["subnet-0c"]
        labels         = { team = "ml", "nvidia.com/gpu" = "no" }
        taints         = [{ key = "team", value = "ml", effect = "NO_EXECUTE" }]
      }
    }
  }

  assert {
    condition     = aws_eks_node_group.gpu["big"].labels["team"] == "ml" && aws_eks_node_group.gpu["big"].labels["nvidia.com/gpu"] == "true"
    error_message = "Own labels are added, those of the module stay true."
  }
  assert {
    condition     = toset([for taint in aws_eks_node_group.gpu["big"].taint : taint.key]) == toset(["nvidia.com/gpu", "team"])
    error_message = "Own taints are added."
  }
  assert {
    condition     = aws_eks_node_group.gpu["big"].subnet_ids == toset(["subnet-0c"])
    error_message = "The group has its own subnets."
  }
  assert {
    condition     = aws_eks_node_group.gpu["big"].scaling_config[0] == { min_size = 0, max_size = 2, desired_size = 0 }
    error_message = "A group may begin empty."
  }
  assert {
    condition     = aws_autoscaling_group_tag.template["big taint/team"].tag[0].value == "ml:NoExecute"
    error_message = "The autoscaler knows own taints too."
  }
  assert {
    condition     = yamldecode(output.helm_values).engine.tolerations == [{ key = "team", operator = "Equal", value = "ml", effect = "NoExecute" }]
    error_message = "Pods bear own taints."
  }
  assert {
    condition     = !yamldecode(output.helm_values).engine.spot.enabled
    error_message = "Nothing here is spot."
  }
  assert {
    condition     = aws_eks_node_group.gpu["big"].tags == tomap({ Team = "ml", Component = "gpu-nodes", Cluster = "prod" })
    error_message = "Own tags are added, those of the module stay true."
  }
}

run "the_chart_is_told_the_same" {
  assert {
    condition     = yamldecode(output.helm_values).engine.instanceTypes == ["g5.2xlarge", "g5.xlarge", "g6.2xlarge", "g6.xlarge"]
    error_message = "Pods may go to every kind of node that the groups start."
  }
  assert {
    condition     = yamldecode(output.helm_values).engine.spot.tolerations == [{ key = "spot", operator = "Equal", value = "true", effect = "NoSchedule" }]
    error_message = "Pods bear the taint of spot nodes."
  }
  assert {
    condition     = !contains(keys(yamldecode(output.helm_values).engine), "tolerations")
    error_message = "Other tolerations are left as they are."
  }
}

run "p3_is_refused" {
  command = plan
  variables {
    node_groups = { old = { instance_types = ["p3.2xlarge"], max_size = 1 } }
  }
  expect_failures = [var.node_groups]
}

run "two_kinds_of_card_in_one_group_are_refused" {
  command = plan
  variables {
    node_groups = { mixed = { instance_types = ["g5.xlarge", "g6.xlarge"], max_size = 1 } }
  }
  expect_failures = [var.node_groups]
}

run "arm_is_refused" {
  command = plan
  variables {
    node_groups = { arm = { instance_types = ["g5g.xlarge"], max_size = 1 } }
  }
  expect_failures = [var.node_groups]
}

run "a_group_without_instances_is_refused" {
  command = plan
  variables {
    node_groups = { none = { instance_types = ["g5.xlarge", "g5.xlarge"], max_size = 0 } }
  }
  expect_failures = [var.node_groups]
}

run "sizes_that_contradict_are_refused" {
  command = plan
  variables {
    node_groups = { sizes = { instance_types = ["g5.xlarge"], min_size = 3, desired_size = 2, max_size = 4 } }
  }
  expect_failures = [var.node_groups]
}

run "an_unknown_capacity_is_refused" {
  command = plan
  variables {
    node_groups = { cheap = { capacity_type = "spot", instance_types = ["g5.xlarge"], max_size = 1 } }
  }
  expect_failures = [var.node_groups]
}

run "labels_that_a_kubelet_may_not_set_are_refused" {
  command = plan
  variables {
    node_groups = { labels = { instance_types = ["g5.xlarge"], max_size = 1, labels = { "kubernetes.io/role" = "gpu" } } }
  }
  expect_failures = [var.node_groups]
}

run "taints_with_kubernetes_spelling_are_refused" {
  command = plan
  variables {
    node_groups = { taints = { instance_types = ["g5.xlarge"], max_size = 1, taints = [{ key = "a", effect = "NoSchedule" }] } }
  }
  expect_failures = [var.node_groups]
}

run "no_groups_are_refused" {
  command = plan
  variables {
    node_groups = {}
  }
  expect_failures = [var.node_groups]
}

run "an_image_without_a_driver_is_refused" {
  command = plan
  variables {
    ami_type = "AL2023_x86_64_STANDARD"
  }
  expect_failures = [var.ami_type]
}

run "small_and_impossible_disks_are_refused" {
  command = plan
  variables {
    disk_gib        = 20
    disk_throughput = 900
  }
  expect_failures = [var.disk_gib, var.disk_throughput]
}

run "what_is_no_subnet_no_version_no_key_and_no_cluster_is_refused" {
  command = plan
  variables {
    cluster_name       = "my cluster"
    node_role_name     = "nodes"
    subnet_ids         = ["vpc-0a"]
    kubernetes_version = "v1.33"
    disk_kms_key_arn   = "alias/disks"
    metadata_hop_limit = 3
  }
  expect_failures = [var.cluster_name, var.subnet_ids, var.kubernetes_version, var.disk_kms_key_arn, var.metadata_hop_limit]
}

run "a_role_that_is_both_made_and_given_is_refused" {
  command = plan
  variables {
    node_role_arn = "arn:aws:iam::123456789012:role/mine"
  }
  expect_failures = [var.node_role_arn]
}

run "a_cluster_with_a_long_name_needs_a_name_for_the_role" {
  command = plan
  variables {
    cluster_name = "a-cluster-with-a-name-that-is-longer-than-names-of-roles-may-be"
  }
  expect_failures = [var.node_role_name]
}
