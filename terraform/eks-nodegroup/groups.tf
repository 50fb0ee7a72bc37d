resource "aws_eks_node_group" "gpu" {
  for_each = local.groups

  cluster_name    = var.cluster_name
  node_group_name = each.key
  node_role_arn   = local.node_role_arn
  subnet_ids      = each.value.subnet_ids
  version         = var.kubernetes_version
  ami_type        = var.ami_type
  capacity_type   = each.value.capacity_type
  instance_types  = each.value.instance_types
  labels          = each.value.labels

  launch_template {
    id      = aws_launch_template.gpu[each.key].id
    version = aws_launch_template.gpu[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min_size
    max_size     = each.value.max_size
    desired_size = each.value.desired_size
  }

  # A new version of nodes comes one by one, and waits for budgets of pods; it fails rather than kill (no force).
  update_config {
    max_unavailable = 1
  }

  dynamic "taint" {
    for_each = each.value.taints

    content {
      key    = taint.value.key
      value  = taint.value.value
      effect = taint.value.effect
    }
  }

  tags = local.tags

  lifecycle {
    # The autoscaler's, from the first minute on.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # A node that loses these rights before it is gone cannot be drained.
  depends_on = [aws_iam_role_policy_attachment.nodes]
}

# What a node of a group will be like, for the cluster autoscaler while the group has none. EKS itself tags the groups so
# that the autoscaler finds them, and gives nodes the label of their capacity.
locals {
  template_tags = {
    for name, group in local.groups : name => merge(
      { for key, value in group.labels : "label/${key}" => value },
      { "label/eks.amazonaws.com/capacityType" = group.capacity_type },
      { for taint in group.taints : "taint/${taint.key}" => "${taint.value}:${local.effects[taint.effect]}" },
      { "resources/ephemeral-storage" = "${var.disk_gib}Gi" },
    )
  }
  autoscaler_tags = merge([
    for name, tags in local.template_tags : {
      for key, value in tags : "${name} ${key}" => { group = name, key = key, value = value } if var.autoscaler_tags
    }
  ]...)
}

resource "aws_autoscaling_group_tag" "template" {
  for_each = local.autoscaler_tags

  autoscaling_group_name = aws_eks_node_group.gpu[each.value.group].resources[0].autoscaling_groups[0].name

  tag {
    key                 = "k8s.io/cluster-autoscaler/node-template/${each.value.key}"
    value               = each.value.value
    propagate_at_launch = false
  }
}
