output "node_groups" {
  description = "What was made, by the group's name: ARN, autoscaling group, capacity, instances, labels, taints."
  value = {
    for name, made in aws_eks_node_group.gpu : name => {
      arn               = made.arn
      autoscaling_group = made.resources[0].autoscaling_groups[0].name
      capacity_type     = made.capacity_type
      instance_types    = made.instance_types
      labels            = local.groups[name].labels
      taints            = local.groups[name].taints
    }
  }
}

output "node_role_arn" {
  description = "ARN of the nodes' role."
  value       = local.node_role_arn
}

output "node_role_name" {
  description = "Name of the role that was made; null where it was given."
  value       = var.create_node_role ? aws_iam_role.nodes[0].name : null
}

output "helm_values" {
  description = "Values by which the chart finds these nodes: instance types, label of the capacity, tolerations."
  value = yamlencode({
    engine = merge(
      {
        instanceTypes = sort(distinct(flatten([for group in values(local.groups) : group.instance_types])))
        spot = {
          enabled     = anytrue([for group in values(local.groups) : group.capacity_type == "SPOT"])
          nodeLabel   = { key = "eks.amazonaws.com/capacityType", spot = "SPOT", onDemand = "ON_DEMAND" }
          tolerations = [{ key = local.spot_taint.key, operator = "Equal", value = local.spot_taint.value, effect = "NoSchedule" }]
        }
      },
      # Only where there are any: a list of values replaces that of other files.
      { for key, value in { tolerations = local.own_tolerations } : key => value if length(value) > 0 },
    )
  })
}
