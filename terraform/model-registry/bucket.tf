resource "aws_s3_bucket" "models" {
  bucket        = local.bucket_name
  force_destroy = var.force_destroy
  tags          = local.tags
}

# A file that is overwritten or deleted, by whom and how ever, can be brought back for noncurrent_version_days.
resource "aws_s3_bucket_versioning" "models" {
  bucket = aws_s3_bucket.models.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "models" {
  bucket = aws_s3_bucket.models.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }

    # One call of KMS for many objects: a sharded model has hundreds of parts.
    bucket_key_enabled = var.kms_key_arn != null
  }
}

resource "aws_s3_bucket_public_access_block" "models" {
  bucket                  = aws_s3_bucket.models.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Without ACLs the policies are the whole truth about who may read a model.
resource "aws_s3_bucket_ownership_controls" "models" {
  bucket = aws_s3_bucket.models.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

locals {
  bucket_arns = [aws_s3_bucket.models.arn, "${aws_s3_bucket.models.arn}/*"]

  tls_statements = !var.require_tls ? [] : [{
    Sid       = "OnlyTls"
    Effect    = "Deny"
    Principal = "*"
    Action    = "s3:*"
    Resource  = local.bucket_arns
    Condition = { Bool = { "aws:SecureTransport" = "false" } }
  }]

  # An upload that names no encryption gets the bucket's own. These two refuse those that name another one: "Null" is
  # needed because StringNotEquals is also true of a header that is not there.
  kms_statements = var.kms_key_arn == null ? [] : [
    {
      Sid       = "OnlyKms"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = ["${aws_s3_bucket.models.arn}/*"]
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption" = "aws:kms" }
      }
    },
    {
      Sid       = "OnlyThisKey"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = ["${aws_s3_bucket.models.arn}/*"]
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = var.kms_key_arn }
      }
    },
  ]

  bucket_statements = concat(local.tls_statements, local.kms_statements)
}

resource "aws_s3_bucket_policy" "models" {
  count = var.require_tls || var.kms_key_arn != null ? 1 : 0

  bucket = aws_s3_bucket.models.id
  policy = jsonencode({ Version = "2012-10-17", Statement = local.bucket_statements })

  # S3 refuses changes of one bucket that meet.
  depends_on = [aws_s3_bucket_public_access_block.models, aws_s3_bucket_ownership_controls.models]
}

resource "aws_s3_bucket_lifecycle_configuration" "models" {
  bucket = aws_s3_bucket.models.id

  rule {
    id     = "incomplete-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = var.incomplete_upload_days
    }
  }

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days           = var.noncurrent_version_days
      newer_noncurrent_versions = var.noncurrent_versions_kept > 0 ? var.noncurrent_versions_kept : null
    }

    # What is left of a deleted object when its last bytes have expired.
    expiration {
      expired_object_delete_marker = true
    }
  }

  # A rule about noncurrent versions means nothing before there can be any.
  depends_on = [aws_s3_bucket_versioning.models]
}
