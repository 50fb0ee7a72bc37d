# The model registry on AWS: the files of models in a bucket (bucket.tf), their records, history and claims of running
# pushes in a table (table.tf), and who may do what (iam.tf). What lies where is described in the README.

locals {
  bucket_name = coalesce(var.bucket_name, "llm-model-registry-${var.environment}")
  tags        = merge(var.tags, { Component = "model-registry", Environment = var.environment })

  # Every object of the registry lies below this prefix: models/NAME/vVERSION/...
  models_prefix = "models/"
}
