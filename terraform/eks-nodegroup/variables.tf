variable "cluster_name" {
  description = "Name of the EKS cluster, which exists already."
  type        = string

  validation {
    condition     = can(regex("^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$", var.cluster_name))
    error_message = "The name of the cluster must have 1 to 100 letters, digits, hyphens and underscores, and begin with a letter or digit."
  }
}

variable "subnet_ids" {
  description = "Subnets for the nodes, best private ones in several zones: each zone is a further pool of spot capacity."
  type        = list(string)
  nullable    = false

  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "One subnet at least, each by its id (subnet-0123456789abcdef0)."
  }
}

variable "node_groups" {
  description = "Groups of nodes by name: how they are paid, which instances, how many."
  type = map(object({
    capacity_type  = optional(string, "ON_DEMAND")
    instance_types = list(string)
    min_size       = optional(number, 0)
    max_size       = number
    desired_size   = optional(number)
    subnet_ids     = optional(list(string))
    labels         = optional(map(string), {})
    taints = optional(list(object({
      key    = string
      value  = optional(string, "true")
      effect = optional(string, "NO_SCHEDULE")
    })), [])
  }))
  default = {
    gpu-spot      = { capacity_type = "SPOT", instance_types = ["g5.xlarge", "g5.2xlarge"], min_size = 1, max_size = 10, desired_size = 2 }
    gpu-spot-g6   = { capacity_type = "SPOT", instance_types = ["g6.xlarge", "g6.2xlarge"], max_size = 10 }
    gpu-on-demand = { instance_types = ["g5.xlarge"], min_size = 1, max_size = 4 }
  }
  nullable = false

  validation {
    condition     = length(var.node_groups) > 0 && alltrue([for name in keys(var.node_groups) : can(regex("^[0-9A-Za-z][A-Za-z0-9_-]{0,62}$", name))])
    error_message = "One group at least, each with a name of 1 to 63 letters, digits, hyphens and underscores that begins with a letter or digit."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : contains(["ON_DEMAND", "SPOT"], group.capacity_type)])
    error_message = "The capacity_type of a group must be ON_DEMAND or SPOT."
  }
  # p3 (V100) is left out on purpose: vLLM's fast AWQ kernels and bfloat16 do not run on it. g5g and other Arm instances
  # need another image.
  validation {
    condition = alltrue([
      for group in values(var.node_groups) : length(group.instance_types) > 0 && alltrue([
        for type in group.instance_types : can(regex("^(g5|g6|g6e)\\.(xlarge|2xlarge|4xlarge|8xlarge|12xlarge|16xlarge|24xlarge|48xlarge)$", type))
      ])
    ])
    error_message = "The instance_types of a group must be one or more of g5, g6 and g6e, for instance g5.xlarge."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : length(toset([for type in group.instance_types : split(".", type)[0]])) <= 1])
    error_message = "A group has one kind of card: only g5, only g6 or only g6e. Make another group for the other kind."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : length(distinct(group.instance_types)) == length(group.instance_types)])
    error_message = "The instance_types of a group must differ."
  }
  validation {
    condition = alltrue([
      for group in values(var.node_groups) :
      alltrue([for size in [group.min_size, group.max_size, coalesce(group.desired_size, group.min_size)] : floor(size) == size]) &&
      group.min_size >= 0 && group.max_size >= 1 &&
      group.min_size <= coalesce(group.desired_size, group.min_size) && coalesce(group.desired_size, group.min_size) <= group.max_size
    ])
    error_message = "The sizes of a group must be whole numbers with 0 <= min_size <= desired_size <= max_size, and max_size 1 or more."
  }
  validation {
    condition     = alltrue([for group in values(var.node_groups) : group.subnet_ids == null || length(coalesce(group.subnet_ids, [])) > 0])
    error_message = "The subnet_ids of a group must name one subnet at least; leave them out for those of the module."
  }
  # The kubelet may give its node labels of node.kubernetes.io, but no other ones of Kubernetes' own; EKS keeps its prefix.
  validation {
    condition = alltrue(flatten([
      for group in values(var.node_groups) : [
        for key, value in group.labels :
        can(regex("^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", key)) &&
        can(regex("^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$", value)) &&
        !can(regex("(^|\\.)(eks\\.amazonaws\\.com|k8s\\.io)/", key)) &&
        (!can(regex("(^|\\.)kubernetes\\.io/", key)) || startswith(key, "node.kubernetes.io/"))
      ]
    ]))
    error_message = "A label must be valid for Kubernetes, and not of kubernetes.io (but node.kubernetes.io/...), k8s.io or eks.amazonaws.com."
  }
  validation {
    condition = alltrue(flatten([
      for group in values(var.node_groups) : [
        for taint in group.taints : taint.key != "" && contains(["NO_SCHEDULE", "NO_EXECUTE", "PREFER_NO_SCHEDULE"], taint.effect)
      ]
    ]))
    error_message = "A taint must have a key, and the effect NO_SCHEDULE, NO_EXECUTE or PREFER_NO_SCHEDULE."
  }
}

variable "ami_type" {
  description = "Operating system of the nodes, with NVIDIA's driver: Amazon Linux or Bottlerocket."
  type        = string
  default     = "AL2023_x86_64_NVIDIA"
  nullable    = false

  validation {
    condition     = contains(["AL2023_x86_64_NVIDIA", "BOTTLEROCKET_x86_64_NVIDIA"], var.ami_type)
    error_message = "The ami_type must be AL2023_x86_64_NVIDIA or BOTTLEROCKET_x86_64_NVIDIA: other ones have no driver."
  }
}

variable "kubernetes_version" {
  description = "Version of Kubernetes on the nodes, for instance 1.33. Without one: the cluster's when a group is made."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "The version of Kubernetes must be like 1.33."
  }
}

variable "disk_gib" {
  description = "Size of each node's disk in GiB: for the system, two images of the engine and the weights of some revisions."
  type        = number
  default     = 200
  nullable    = false

  # Image of the engine: about 10 GiB to pull, 25 unpacked; a second one comes with each update.
  validation {
    condition     = var.disk_gib >= 100 && var.disk_gib <= 16384 && floor(var.disk_gib) == var.disk_gib
    error_message = "The disk must have 100 to 16384 GiB: less does not hold two images of the engine and a model."
  }
}

variable "disk_iops" {
  description = "Operations per second of each node's disk."
  type        = number
  default     = 3000
  nullable    = false

  validation {
    condition     = var.disk_iops >= 3000 && var.disk_iops <= 16000 && floor(var.disk_iops) == var.disk_iops
    error_message = "The disk must have 3000 to 16000 operations per second."
  }
}

variable "disk_throughput" {
  description = "Throughput of each node's disk in MiB per second. It bounds how fast images are unpacked and weights are read."
  type        = number
  default     = 500
  nullable    = false

  validation {
    condition     = var.disk_throughput >= 125 && var.disk_throughput <= min(1000, var.disk_iops / 4) && floor(var.disk_throughput) == var.disk_throughput
    error_message = "The throughput must be 125 to 1000 MiB per second, and at most a quarter of disk_iops."
  }
}

variable "disk_kms_key_arn" {
  description = "ARN of the KMS key that encrypts the disks; its policy must let AWSServiceRoleForAutoScaling use it. Without one: the account's key for EBS."
  type        = string
  default     = null

  validation {
    condition     = var.disk_kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.disk_kms_key_arn))
    error_message = "The KMS key must be the full ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an id or an alias."
  }
}

variable "security_group_ids" {
  description = "Security groups of the nodes. They replace the cluster's own, so name that one too. Empty: the cluster's own."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "metadata_hop_limit" {
  description = "Hops that answers of the instance metadata may take. 1 keeps pods from their node's role; 2 lets them have it."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = contains([1, 2], var.metadata_hop_limit)
    error_message = "The hop limit must be 1 or 2."
  }
}

variable "create_node_role" {
  description = "Make a role for the nodes. Else node_role_arn is theirs."
  type        = bool
  default     = true
  nullable    = false
}

variable "node_role_arn" {
  description = "ARN of the nodes' role where none is made. It must have the policies of the README."
  type        = string
  default     = null

  validation {
    condition     = (var.node_role_arn != null) == !var.create_node_role
    error_message = "Give node_role_arn together with create_node_role = false, and only then."
  }
}

variable "node_role_name" {
  description = "Name of the role that is made, where CLUSTER-gpu-nodes is not wanted."
  type        = string
  default     = null

  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,64}$", coalesce(var.node_role_name, "${var.cluster_name}-gpu-nodes")))
    error_message = "The name of the role must have 1 to 64 letters, digits and the characters + = , . @ _ -; for a cluster with a long name, give node_role_name."
  }
}

variable "attach_cni_policy" {
  description = "Let the nodes' role give pods addresses. Not needed where the VPC CNI has a role of its own."
  type        = bool
  default     = true
  nullable    = false
}

variable "session_manager" {
  description = "Let people open a shell on nodes by AWS Systems Manager. There is no SSH."
  type        = bool
  default     = false
  nullable    = false
}

variable "policy_arns" {
  description = "ARNs of further policies for the role that is made, by any name."
  type        = map(string)
  default     = {}
  nullable    = false
}

variable "autoscaler_tags" {
  description = "Tell the cluster autoscaler what nodes of an empty group will be like. Not needed with Karpenter."
  type        = bool
  default     = true
  nullable    = false
}

variable "tags" {
  description = "Tags of everything that the module makes, beside its own Component and Cluster."
  type        = map(string)
  default     = {}
  nullable    = false
}
