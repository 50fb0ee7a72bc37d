# The faults of the plan's step 3.1, shortened; tests/docs/test_plan_errata.py shows what is wrong with it.
resource "aws_s3_bucket" "models" {
  bucket = "models-${var.environment}"

  versioning {
    enabled = true
  }

  server_side_encryption_configuration {
  }
}

resource "aws_dynamodb_table" "versions" {
  name      = "model-versions"
  hash_key  = "model_name"
  range_key = "version"
}
