# The role that kubelets of these nodes have: to join the cluster, to give pods addresses, to pull images. Nothing of what
# pods do: that is for roles of their service accounts.

data "aws_partition" "current" {}

locals {
  managed_policies = concat(
    ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"],
    var.attach_cni_policy ? ["AmazonEKS_CNI_Policy"] : [],
    var.session_manager ? ["AmazonSSMManagedInstanceCore"] : [],
  )
  policies = merge(
    { for name in local.managed_policies : name => "arn:${data.aws_partition.current.partition}:iam::aws:policy/${name}" },
    var.policy_arns,
  )
  node_role_arn = var.create_node_role ? aws_iam_role.nodes[0].arn : var.node_role_arn
}

resource "aws_iam_role" "nodes" {
  count = var.create_node_role ? 1 : 0

  name        = coalesce(var.node_role_name, "${var.cluster_name}-gpu-nodes")
  description = "Nodes with GPUs of the EKS cluster ${var.cluster_name}."

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  tags = local.tags
}

resource "aws_iam_role_policy_attachment" "nodes" {
  for_each = { for name, arn in local.policies : name => arn if var.create_node_role }

  role       = aws_iam_role.nodes[0].name
  policy_arn = each.value
}
