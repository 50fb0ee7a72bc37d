# Nodes with GPUs for a cluster that exists, as a configuration by itself: `terraform apply` in this folder, with a state
# of its own. What it makes, and every other variable, is in the module beside this file (eks-nodegroup/README.md), which
# goes into a configuration of yours as well.

terraform {
  # 1.9 lets the condition of a variable look at other variables.
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80.0, < 7.0.0"
    }
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets for the nodes, best private ones in several zones."
  type        = list(string)
}

variable "node_groups" {
  description = "Groups of nodes, as the module's variable of this name; null: its default."
  type        = any
  default     = null
}

variable "ami_type" {
  description = "Operating system with the driver, as the module's variable of this name; null: its default."
  type        = string
  default     = null
}

variable "disk_gib" {
  description = "Size of each node's disk in GiB; null: the module's default."
  type        = number
  default     = null
}

variable "tags" {
  description = "Tags of everything that is made here."
  type        = map(string)
  default     = {}
}

module "gpu_nodes" {
  source = "./eks-nodegroup"

  cluster_name = var.cluster_name
  subnet_ids   = var.subnet_ids
  node_groups  = var.node_groups
  ami_type     = var.ami_type
  disk_gib     = var.disk_gib
  tags         = var.tags
}

output "node_groups" {
  description = "What was made, by the group's name."
  value       = module.gpu_nodes.node_groups
}

output "node_role_arn" {
  description = "ARN of the nodes' role."
  value       = module.gpu_nodes.node_role_arn
}

output "helm_values" {
  description = "Values by which the chart finds these nodes."
  value       = module.gpu_nodes.helm_values
}
