variable "environment" {
  description = "Name of the environment, for instance prod. It ends the names of the bucket and of the policies."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$", var.environment))
    error_message = "The environment must have 1 to 32 lower-case letters, digits and hyphens, with no hyphen at its ends."
  }
}

variable "bucket_name" {
  description = "Name of the bucket, where llm-model-registry-ENVIRONMENT is not wanted or already taken by somebody else."
  type        = string
  default     = null

  # No dots: the certificate of S3 does not cover them, so that TLS would fail.
  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "The name of the bucket must have 3 to 63 lower-case letters, digits and hyphens, with no hyphen at its ends."
  }
}

variable "table_name" {
  description = "Name of the DynamoDB table. Give each environment of one account and region its own."
  type        = string
  default     = "llm-model-versions"
  nullable    = false

  validation {
    condition     = can(regex("^[a-zA-Z0-9_.-]{3,255}$", var.table_name))
    error_message = "The name of the table must have 3 to 255 letters, digits, hyphens, dots and underscores."
  }
}

variable "kms_key_arn" {
  description = "ARN of the KMS key that encrypts bucket and table. Without one: the keys of S3 and of DynamoDB."
  type        = string
  default     = null

  # An alias or a bare id would do for the default of the bucket, but not for the policies, which compare ARNs.
  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "The KMS key must be the full ARN of a key (arn:aws:kms:REGION:ACCOUNT:key/ID), not an id or an alias."
  }
}

variable "require_tls" {
  description = "Refuse every request to the bucket that does not come over TLS. Only emulators of S3 need false."
  type        = bool
  default     = true
  nullable    = false
}

variable "incomplete_upload_days" {
  description = "Days after which the parts of a multipart upload that was never completed are removed."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.incomplete_upload_days >= 1 && floor(var.incomplete_upload_days) == var.incomplete_upload_days
    error_message = "The days of an incomplete upload must be a whole number, 1 or more."
  }
}

variable "noncurrent_version_days" {
  description = "Days that the bytes of a deleted or overwritten object can still be brought back."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.noncurrent_version_days >= 1 && floor(var.noncurrent_version_days) == var.noncurrent_version_days
    error_message = "The days of a noncurrent version must be a whole number, 1 or more."
  }
}

variable "noncurrent_versions_kept" {
  description = "Newest noncurrent versions of each object that never expire. Above 0, deleted models are paid for until removed by hand."
  type        = number
  default     = 0
  nullable    = false

  validation {
    condition     = var.noncurrent_versions_kept >= 0 && var.noncurrent_versions_kept <= 100 && floor(var.noncurrent_versions_kept) == var.noncurrent_versions_kept
    error_message = "The noncurrent versions kept must be a whole number from 0 to 100, the most that S3 knows."
  }
}

variable "force_destroy" {
  description = "Let terraform destroy the bucket with every model in it. For trials only."
  type        = bool
  default     = false
  nullable    = false
}

variable "deletion_protection" {
  description = "Refuse to delete the table until this is switched off and applied."
  type        = bool
  default     = true
  nullable    = false
}

variable "policy_name_prefix" {
  description = "Start of the names of the IAM policies: PREFIX-ENVIRONMENT-push, -pull and -admin."
  type        = string
  default     = "inferdock-registry"
  nullable    = false

  # IAM allows 128 characters; the environment and the longest ending take up to 39.
  validation {
    condition     = can(regex("^[A-Za-z0-9+=,.@_-]{1,80}$", var.policy_name_prefix))
    error_message = "The prefix must have 1 to 80 letters, digits and the characters + = , . @ _ -"
  }
}

variable "tags" {
  description = "Tags of everything that the module makes, beside its own Component and Environment."
  type        = map(string)
  default     = {}
  nullable    = false
}
