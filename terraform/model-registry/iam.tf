# Three policies to attach to the roles of those who push, pull and clean up. Each is complete by itself.

locals {
  objects_arn  = "${aws_s3_bucket.models.arn}/${local.models_prefix}*"
  versions_arn = "${aws_dynamodb_table.versions.arn}/index/by_version_order"

  # Listing has no condition on the prefix: S3 answers 404 for a missing object only to those who may list the bucket,
  # and with a condition it answers 403, which looks like missing rights. Nothing else lies in this bucket.
  list_bucket = {
    Sid      = "ListModels"
    Effect   = "Allow"
    Action   = ["s3:ListBucket"]
    Resource = [aws_s3_bucket.models.arn]
  }

  # One model at a time, by its name; all models at once only from the index, which has no claims and little history.
  read_records = [
    {
      Sid      = "ReadRecords"
      Effect   = "Allow"
      Action   = ["dynamodb:GetItem", "dynamodb:Query"]
      Resource = [aws_dynamodb_table.versions.arn]
    },
    {
      Sid      = "ListVersions"
      Effect   = "Allow"
      Action   = ["dynamodb:Query", "dynamodb:Scan"]
      Resource = [local.versions_arn]
    },
  ]

  # Only through the two services: nobody decrypts anything else with this key by these policies.
  kms_actions = {
    push = ["kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"]
    pull = ["kms:Decrypt"]
  }
  kms = {
    for who, actions in local.kms_actions : who => var.kms_key_arn == null ? [] : [{
      Sid       = "UseKey"
      Effect    = "Allow"
      Action    = actions
      Resource  = [var.kms_key_arn]
      Condition = { StringLike = { "kms:ViaService" = ["s3.*", "dynamodb.*"] } }
    }]
  }

  pull_statements = concat([
    {
      Sid      = "ReadFiles"
      Effect   = "Allow"
      Action   = ["s3:GetObject"]
      Resource = [local.objects_arn]
    },
    local.list_bucket,
  ], local.read_records, local.kms.pull)

  # Reading is part of a push: a file that is there already is copied inside the store, and what was sent is read back.
  # No s3:DeleteObject: a push that fails leaves its files for the next try.
  push_statements = concat([
    {
      Sid    = "SendFiles"
      Effect = "Allow"
      Action = [
        "s3:PutObject",
        "s3:GetObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
      ]
      Resource = [local.objects_arn]
    },
    local.list_bucket,
    {
      Sid      = "ListUploads"
      Effect   = "Allow"
      Action   = ["s3:ListBucketMultipartUploads"]
      Resource = [aws_s3_bucket.models.arn]
    },
    {
      Sid    = "WriteRecords"
      Effect = "Allow"
      Action = [
        "dynamodb:PutItem",
        "dynamodb:UpdateItem",
      ]
      Resource = [aws_dynamodb_table.versions.arn]
    },
    # A push ends its claim in the transaction that writes the record. IAM knows the hash key of an item and not its
    # range key, so it cannot say "claims only" (README, "What the policies cannot say"); but it can keep a hand from
    # deleting items one by one.
    {
      Sid      = "EndClaim"
      Effect   = "Allow"
      Action   = ["dynamodb:DeleteItem"]
      Resource = [aws_dynamodb_table.versions.arn]
      Condition = {
        "ForAnyValue:StringEquals" = { "dynamodb:EnclosingOperation" = ["TransactWriteItems"] }
      }
    },
  ], local.read_records, local.kms.push)

  # Deleting models, and bringing deleted ones back.
  admin_statements = concat(local.push_statements, [
    {
      Sid    = "DeleteFiles"
      Effect = "Allow"
      Action = [
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:GetObjectVersion",
      ]
      Resource = [local.objects_arn]
    },
    {
      Sid      = "ListOldFiles"
      Effect   = "Allow"
      Action   = ["s3:ListBucketVersions"]
      Resource = [aws_s3_bucket.models.arn]
    },
    {
      Sid      = "CleanTable"
      Effect   = "Allow"
      Action   = ["dynamodb:DeleteItem", "dynamodb:Scan", "dynamodb:DescribeTable"]
      Resource = [aws_dynamodb_table.versions.arn]
    },
  ])

  policies = {
    push = {
      description = "Push versions of models to ${local.bucket_name} and move their aliases; nothing is deleted from the bucket."
      document    = jsonencode({ Version = "2012-10-17", Statement = local.push_statements })
    }
    pull = {
      description = "Read models and their records from ${local.bucket_name}."
      document    = jsonencode({ Version = "2012-10-17", Statement = local.pull_statements })
    }
    admin = {
      description = "Push, delete and bring back models in ${local.bucket_name}."
      document    = jsonencode({ Version = "2012-10-17", Statement = local.admin_statements })
    }
  }
}

resource "aws_iam_policy" "registry" {
  for_each = local.policies

  name        = "${var.policy_name_prefix}-${var.environment}-${each.key}"
  description = each.value.description
  policy      = each.value.document
  tags        = local.tags
}
