resource "aws_launch_template" "gpu" {
  for_each = local.groups

  name                   = "${var.cluster_name}-${each.key}"
  description            = "Nodes of the group ${each.key} of the cluster ${var.cluster_name}."
  update_default_version = true
  vpc_security_group_ids = length(var.security_group_ids) > 0 ? var.security_group_ids : null

  # Image, kind of instance and role are the group's: EKS refuses templates that have a role, and without an image it
  # takes its own and joins the node to the cluster by itself.

  block_device_mappings {
    # Bottlerocket keeps images and pods' files on its second disk, and itself on a small first one.
    device_name = startswith(var.ami_type, "BOTTLEROCKET_") ? "/dev/xvdb" : "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = var.disk_gib
      iops                  = var.disk_iops
      throughput            = var.disk_throughput
      encrypted             = true
      kms_key_id            = var.disk_kms_key_arn
      delete_on_termination = true
    }
  }

  # IMDSv2 only. At one hop a pod cannot take over the role of its node.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = var.metadata_hop_limit
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = "${var.cluster_name}-${each.key}" })
    }
  }

  tags = local.tags
}
