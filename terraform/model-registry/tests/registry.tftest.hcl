# The module's contract, without AWS and without an emulator: `terraform test` in the module's folder.

mock_provider "aws" {
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::llm-model-registry-prod" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/llm-model-versions" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/some" }
  }
}

variables {
  environment = "prod"
}

run "by_default_everything_is_safe" {
  assert {
    condition     = output.bucket == "llm-model-registry-prod" && output.table == "llm-model-versions"
    error_message = "The names are those of the plan."
  }
  assert {
    condition     = aws_s3_bucket_versioning.models.versioning_configuration[0].status == "Enabled"
    error_message = "Old bytes can be brought back."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.models.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "Objects are encrypted."
  }
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.models.block_public_acls,
      aws_s3_bucket_public_access_block.models.block_public_policy,
      aws_s3_bucket_public_access_block.models.ignore_public_acls,
      aws_s3_bucket_public_access_block.models.restrict_public_buckets,
    ])
    error_message = "Nothing is public."
  }
  assert {
    condition     = !aws_s3_bucket.models.force_destroy && aws_dynamodb_table.versions.deletion_protection_enabled
    error_message = "A destroy by mistake loses no model."
  }
  assert {
    condition     = one(aws_dynamodb_table.versions.point_in_time_recovery).enabled
    error_message = "The table can be set back."
  }
  assert {
    condition     = [for s in jsondecode(aws_s3_bucket_policy.models[0].policy).Statement : s.Sid] == ["OnlyTls"]
    error_message = "The bucket's policy refuses plain HTTP, and nothing else."
  }
  assert {
    condition     = length(aws_dynamodb_table.versions.server_side_encryption) == 0
    error_message = "Without a key the table is encrypted by the key that AWS owns."
  }
}

run "the_table_sorts_versions_by_their_padded_order" {
  assert {
    condition     = aws_dynamodb_table.versions.hash_key == "model_name" && aws_dynamodb_table.versions.range_key == "version"
    error_message = "The key is that of the plan."
  }
  assert {
    condition     = [for i in aws_dynamodb_table.versions.local_secondary_index : [i.name, i.range_key, i.projection_type]] == [["by_version_order", "version_order", "ALL"]]
    error_message = "The index is by_version_order, with every attribute."
  }
}

run "who_pulls_can_write_nothing" {
  assert {
    condition = toset(flatten([for s in jsondecode(output.policy_documents.pull).Statement : s.Action])) == toset([
      "s3:GetObject", "s3:ListBucket", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan",
    ])
    error_message = "Pull only reads."
  }
}

run "who_pushes_can_delete_no_object" {
  assert {
    condition     = !anytrue([for a in flatten([for s in jsondecode(output.policy_documents.push).Statement : s.Action]) : startswith(a, "s3:Delete")])
    error_message = "Push deletes nothing from the bucket."
  }
}

run "no_policy_has_a_wildcard_for_action_or_resource" {
  assert {
    condition = !anytrue(flatten([
      for document in values(output.policy_documents) : [
        for s in jsondecode(document).Statement : [
          contains(s.Resource, "*"), [for a in s.Action : strcontains(a, "*")],
        ]
      ]
    ]))
    error_message = "Each policy names its actions and its resources."
  }
}

run "with_a_key_bucket_and_table_use_only_it" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/11111111-2222-3333-4444-555555555555"
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.models.rule).apply_server_side_encryption_by_default[0].kms_master_key_id == var.kms_key_arn
    error_message = "The bucket is encrypted by the key."
  }
  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.models.rule).bucket_key_enabled
    error_message = "A bucket key saves calls of KMS."
  }
  assert {
    condition     = one(aws_dynamodb_table.versions.server_side_encryption).kms_key_arn == var.kms_key_arn
    error_message = "The table is encrypted by the key."
  }
  assert {
    condition     = [for s in jsondecode(aws_s3_bucket_policy.models[0].policy).Statement : s.Sid] == ["OnlyTls", "OnlyKms", "OnlyThisKey"]
    error_message = "Uploads that name another encryption are refused."
  }
  assert {
    condition     = [for s in jsondecode(output.policy_documents.pull).Statement : s.Action if s.Sid == "UseKey"] == [["kms:Decrypt"]]
    error_message = "Who pulls may decrypt, and not encrypt."
  }
  assert {
    condition     = [for s in jsondecode(output.policy_documents.push).Statement : s.Resource if s.Sid == "UseKey"] == [[var.kms_key_arn]]
    error_message = "Who pushes may use this key alone."
  }
}

run "without_tls_and_key_the_bucket_has_no_policy" {
  variables {
    require_tls = false
  }

  assert {
    condition     = length(aws_s3_bucket_policy.models) == 0
    error_message = "An empty policy is not valid."
  }
}

run "names_can_be_chosen" {
  variables {
    bucket_name        = "weights-of-acme"
    table_name         = "acme-versions"
    policy_name_prefix = "acme"
    tags               = { Team = "ml", Environment = "overruled" }
  }

  assert {
    condition     = output.bucket == "weights-of-acme" && output.table == "acme-versions"
    error_message = "Bucket and table have the names that were asked for."
  }
  assert {
    condition     = aws_iam_policy.registry["push"].name == "acme-prod-push"
    error_message = "The policies have the prefix that was asked for."
  }
  assert {
    condition     = aws_s3_bucket.models.tags == tomap({ Team = "ml", Component = "model-registry", Environment = "prod" })
    error_message = "Own tags are added, those of the module stay true."
  }
  assert {
    condition = output.inferdock_environment == {
      INFERDOCK_REGISTRY__URL       = "s3://weights-of-acme"
      INFERDOCK_REGISTRY__S3__TABLE = "acme-versions"
    }
    error_message = "Inferdock is told the same names."
  }
  assert {
    condition     = yamldecode(output.inferdock_config).registry == { url = "s3://weights-of-acme", s3 = { table = "acme-versions" } }
    error_message = "The lines of inferdock.yaml say the same."
  }
}

run "what_is_not_kept_expires" {
  command = plan

  variables {
    incomplete_upload_days   = 2
    noncurrent_version_days  = 30
    noncurrent_versions_kept = 3
  }

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.models.rule[0].abort_incomplete_multipart_upload[0].days_after_initiation == 2
    error_message = "Parts of uploads that were never completed are removed."
  }
  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.models.rule[1].noncurrent_version_expiration[0].noncurrent_days == 30
    error_message = "Old versions expire."
  }
  assert {
    condition     = tonumber(aws_s3_bucket_lifecycle_configuration.models.rule[1].noncurrent_version_expiration[0].newer_noncurrent_versions) == 3
    error_message = "The newest ones stay."
  }
}

run "an_environment_in_capitals_is_refused" {
  command = plan
  variables {
    environment = "Prod"
  }
  expect_failures = [var.environment]
}

run "a_bucket_name_with_dots_is_refused" {
  command = plan
  variables {
    bucket_name = "models.acme.org"
  }
  expect_failures = [var.bucket_name]
}

run "a_table_name_of_two_letters_is_refused" {
  command = plan
  variables {
    table_name = "ab"
  }
  expect_failures = [var.table_name]
}

run "an_alias_of_a_key_is_refused" {
  command = plan
  variables {
    kms_key_arn = "alias/models"
  }
  expect_failures = [var.kms_key_arn]
}

run "half_days_are_refused" {
  command = plan
  variables {
    incomplete_upload_days   = 0.5
    noncurrent_version_days  = 0
    noncurrent_versions_kept = 101
  }
  expect_failures = [var.incomplete_upload_days, var.noncurrent_version_days, var.noncurrent_versions_kept]
}

run "a_policy_prefix_with_a_slash_is_refused" {
  command = plan
  variables {
    policy_name_prefix = "team/ml"
  }
  expect_failures = [var.policy_name_prefix]
}
