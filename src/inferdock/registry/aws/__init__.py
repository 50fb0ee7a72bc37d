"""The registry in S3 (files) and DynamoDB (what changes): `store.AwsStore`. Needs the extra `registry`."""
