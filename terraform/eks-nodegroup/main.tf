# Nodes with GPUs for an EKS cluster: what nodes of a group have in common (here), their instances (template.tf), the groups
# and what the cluster autoscaler reads (groups.tf), and the role of the nodes (iam.tf). The README says why.

locals {
  tags = merge(var.tags, { Component = "gpu-nodes", Cluster = var.cluster_name })

  # One kind of card per group: a replica's speed and its price are then the same on each node of it.
  cards = {
    g5  = "nvidia-a10g"
    g6  = "nvidia-l4"
    g6e = "nvidia-l40s"
  }
  families = { for name, group in var.node_groups : name => split(".", group.instance_types[0])[0] }

  own_labels = {
    for name, group in var.node_groups : name => {
      "node.kubernetes.io/lifecycle" = group.capacity_type == "SPOT" ? "spot" : "on-demand"
      "nvidia.com/gpu"               = "true"
      # NVIDIA's device plugin goes to nodes with this label, so that it needs no feature discovery.
      "nvidia.com/gpu.present" = "true"
      # The cluster autoscaler waits for the cards of nodes with this label, instead of starting further nodes meanwhile.
      "k8s.amazonaws.com/accelerator" = local.cards[local.families[name]]
    }
  }

  # Pods without a GPU stay away from all these nodes; those that bear no interruption, from the spot ones too.
  gpu_taint  = { key = "nvidia.com/gpu", value = "true", effect = "NO_SCHEDULE" }
  spot_taint = { key = "spot", value = "true", effect = "NO_SCHEDULE" }

  groups = {
    for name, group in var.node_groups : name => {
      capacity_type  = group.capacity_type
      instance_types = group.instance_types
      subnet_ids     = coalesce(group.subnet_ids, var.subnet_ids)
      min_size       = group.min_size
      max_size       = group.max_size
      desired_size   = coalesce(group.desired_size, group.min_size)
      labels         = merge(group.labels, local.own_labels[name])
      taints         = distinct(concat([local.gpu_taint], group.capacity_type == "SPOT" ? [local.spot_taint] : [], group.taints))
    }
  }

  # As Kubernetes spells them.
  effects = {
    NO_SCHEDULE        = "NoSchedule"
    NO_EXECUTE         = "NoExecute"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
  }

  # What pods of the chart have to bear beside the module's own taints.
  own_tolerations = distinct(flatten([
    for group in values(var.node_groups) : [
      for taint in group.taints : { key = taint.key, operator = "Equal", value = taint.value, effect = local.effects[taint.effect] }
    ]
  ]))
}
