# One item for each version, each event of the history (version = "history#...") and each running push ("push#...").
# There is no TTL on purpose: DynamoDB would delete what the history still needs. A push takes over expired claims itself.
resource "aws_dynamodb_table" "versions" {
  name                        = var.table_name
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "model_name"
  range_key                   = "version"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "model_name"
    type = "S"
  }

  attribute {
    name = "version"
    type = "S"
  }

  attribute {
    name = "version_order"
    type = "S"
  }

  # "1.10.0" sorts before "1.9.0" as text, hence the padded version_order. Only versions carry it, and the first event of
  # each history, so that this index lists models and versions without reading histories and claims. A local index can
  # only be made together with its table.
  local_secondary_index {
    name            = "by_version_order"
    range_key       = "version_order"
    projection_type = "ALL"
  }

  point_in_time_recovery {
    enabled = true
  }

  # DynamoDB always encrypts; the block chooses a key other than the one that AWS owns.
  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }
}
