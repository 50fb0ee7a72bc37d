output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.models.bucket
}

output "bucket_arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.models.arn
}

output "table" {
  description = "Name of the DynamoDB table."
  value       = aws_dynamodb_table.versions.name
}

output "table_arn" {
  description = "ARN of the DynamoDB table."
  value       = aws_dynamodb_table.versions.arn
}

output "policy_arns" {
  description = "ARNs of the IAM policies by what they allow: push, pull, admin."
  value       = { for who, policy in aws_iam_policy.registry : who => policy.arn }
}

output "policy_documents" {
  description = "The same policies as JSON, for roles that carry them inline."
  value       = { for who, policy in local.policies : who => policy.document }
}

output "inferdock_environment" {
  description = "Environment variables by which Inferdock finds this registry."
  value = {
    INFERDOCK_REGISTRY__URL       = "s3://${aws_s3_bucket.models.bucket}"
    INFERDOCK_REGISTRY__S3__TABLE = aws_dynamodb_table.versions.name
  }
}

output "inferdock_config" {
  description = "The same as lines of inferdock.yaml."
  value = yamlencode({
    registry = {
      url = "s3://${aws_s3_bucket.models.bucket}"
      s3  = { table = aws_dynamodb_table.versions.name }
    }
  })
}
